"""What can go wrong in the lab, each told in one line."""

from __future__ import annotations


class LabError(Exception):
    """Say that the lab can't do what was asked, and what would help."""


class CommandFailed(LabError):
    """Say which command failed, with its exit code and what it printed."""

    def __init__(self, command: str, code: int, output: str) -> None:
        super().__init__(f"{command!r} exited with {code}: {output.strip()}")
        self.code = code
        self.output = output
