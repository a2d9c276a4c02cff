"""Show the logs of a service's tasks."""

import re
import sys
import time
from typing import NoReturn

from stack import console
from stack.commands.one_line import in_one_line
from stack.errors import INTERRUPTED, OperatorError, Refused, raise_all
from stack.release.target import Target
from stack.swarm import services
from stack.swarm.names import STACK
from stack.swarm.task_logs import Line, Reader

# Seconds from one look for new lines to the next.
POLL = 1.0


@in_one_line
def logs(service: str, follow: bool, lines: str) -> None:
    """Print the last lines of a service's tasks in order of time; `follow` keeps printing."""
    if not re.fullmatch("[0-9]{1,9}|all", lines):
        raise Refused(f"--lines={lines!r}", "it should be a number, or all")
    # A pipe gets nothing but the log.
    console.leave_stdout()
    target = Target.reach("./fab logs")
    services.require_service(target.engine, service)
    most = None if lines == "all" else int(lines)
    # With the last message of a task at least, since those after it are new.
    tail = None if most is None else max(1, most)
    reader = Reader(target, service, {"service": f"{STACK}_{service}"}, tail)
    first = reader.read()
    show(first if most is None else first[max(0, len(first) - most):])
    if follow:
        go_on(target, reader)
    raise_all([OperatorError(f"the log of {task} can't be read: {cause}", "./fab status")
               for task, cause in reader.unread.items()])


def go_on(target: Target, reader: Reader) -> NoReturn:
    """Print what comes, until Ctrl-C or until there is no way to any manager.

    That a task's log can't be read is said once.
    """
    reported: set[str] = set()
    try:
        while True:
            for task, cause in reader.unread.items():
                if task not in reported:
                    console.say(f"the log of {task} can't be read: {cause}")
            reported = set(reader.unread)
            if not target.machine.alive:
                raise OperatorError("lost contact with every manager", "./fab logs again")
            time.sleep(POLL)
            show(reader.read())
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def show(lines: list[Line]) -> None:
    """Print lines at once; raises BrokenPipeError if the output was closed."""
    for line in lines:
        print(line)
    sys.stdout.flush()
