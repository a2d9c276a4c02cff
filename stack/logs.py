"""Show what tasks have written: to whoever asks, and where a task is to blame for a failure."""

import os
import re
import sys
import time
from typing import NoReturn

from stack import console, engine, records
from stack.errors import INTERRUPTED, OperatorError, Refused, raise_all
from stack.rollout import NotArrived
from stack.swarm import STACK
from stack.target import Target
from stack.task_logs import Line, Reader

# Seconds from one look for new lines to the next.
POLL = 1.0
# How many lines tell why a task failed.
CULPRIT_LINES = 20
# The exit code of a program whose output nobody reads any more.
SIGPIPE = 141


@engine.in_one_line
def logs(service: str, follow: bool, lines: str) -> None:
    """Print the last lines of one service's tasks, in the order of time; `follow` goes on."""
    if not re.fullmatch("[0-9]{1,9}|all", lines):
        raise Refused(f"--lines={lines!r}", "it should be a number, or all")
    # Whoever reads the log from a pipe wants nothing else in it.
    console.leave_stdout()
    target = Target.reach("./fab logs")
    records.require_service(target.client, service)
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
    told: set[str] = set()
    try:
        while True:
            for task, cause in reader.unread.items():
                if task not in told:
                    console.say(f"the log of {task} can't be read: {cause}")
            told = set(reader.unread)
            if not target.machine.alive:
                raise OperatorError("no manager answers any more", "./fab logs again")
            time.sleep(POLL)
            show(reader.read())
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def show(lines: list[Line]) -> None:
    """Print lines; ends the program where nobody reads them any more."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(SIGPIPE) from None


def tell_cause(target: Target, failure: NotArrived) -> None:
    """Print what Docker said of a failure, and the last lines of the task that is to blame.

    Whatever is wrong with these, the failure and what is to be done about it matter more.
    """
    console.block(failure.said)
    if not failure.task:
        return
    try:
        reader = Reader(target, "", {"id": failure.task}, CULPRIT_LINES)
        console.block([line.text for line in reader.read()])
        causes = list(reader.unread.values())
    except Exception as error:
        causes = [engine.cause_of(error)]
    console.block([f"its log can't be read: {cause}" for cause in causes])
