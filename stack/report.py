"""Tell a program, in JSON, how a command that changes the stack has ended."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from invoke.exceptions import Exit

from stack import console

# What each exit code means: the table in README.md.
OUTCOMES = {0: "proven", 1: "refused", 3: "migration failed", 4: "restored", 5: "broken",
            7: "locked"}

BUG = "a bug, told on stderr"


@contextmanager
def printed(command: str, wanted: bool) -> Iterator[None]:
    """Print one JSON object to stdout when the command ends, however it does.

    Its keys: command, exit, outcome, cause (null if all went well), seconds, steps, and
    whatever the command found: version, commit, previous, probe, restore_probe.
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
            "outcome": "bug" if cause == BUG else OUTCOMES.get(code, "interrupted"),
            "cause": cause, "seconds": round(time.monotonic() - began, 1),
            **console.FACTS, "steps": console.ENDED}) + "\n")
