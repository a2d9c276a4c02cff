"""Errors of the lab, each with a message of one line."""

from __future__ import annotations


class LabError(Exception):
    """The lab can't do what was asked; the message says why, and what helps."""


class CommandFailed(LabError):
    """A command failed; the message has its exit code and output."""

    def __init__(self, command: str, code: int, output: str) -> None:
        super().__init__(f"{command!r} exited with {code}: {output.strip()}")
        self.code = code
        self.output = output
