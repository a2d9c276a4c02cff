"""Report the result of a command to a program, as JSON."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from invoke.exceptions import Exit

from stack import console
from stack.errors import OUTCOMES

BUG = "a bug, reported on stderr"


@contextmanager
def printed(command: str, wanted: bool,
            outcomes: Mapping[int, str] = OUTCOMES) -> Iterator[None]:
    """Print one JSON object to stdout when the command ends, however it does.

    Its keys: command, exit, outcome, cause (null if all went well), seconds, steps, and
    whatever the command found: version, commit, previous, probe, restore_probe; or serving, base.
    """
    if not wanted:
        yield
        return
    console.leave_stdout()
    cause: str | None
    began, code, cause = time.monotonic(), 1, BUG
    try:
        yield
        code, cause = 0, None
    except Exit as error:
        code, cause = error.code, str(error.message)
        raise
    except SystemExit as error:
        code, cause = int(error.code or 0), "interrupted"
        raise
    finally:
        sys.stdout.write(json.dumps({
            "command": command, "exit": code,
            "outcome": "bug" if cause == BUG else outcomes.get(code, "interrupted"),
            "cause": cause, "seconds": round(time.monotonic() - began, 1),
            **console.FACTS, "steps": console.ENDED}) + "\n")
