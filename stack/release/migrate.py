"""Bring the schema up to date with a Swarm job that runs the new image.

The job is created once per release and removed when it ends.
"""

import time
from contextlib import suppress

from stack import progress
from stack.engine import failures
from stack.engine.engine import Engine
from stack.engine.failures import EngineError, Missing
from stack.errors import MigrationFailed, OperatorError
from stack.images.version import Version
from stack.machines import docker_command
from stack.machines.machine import Machine
from stack.release.target import Target
from stack.swarm import migration_job
from stack.swarm.migration_job import CONTAINER_LABEL, LABEL
from stack.swarm.services import find_services
from stack.swarm.stackfile import Stack
from stack.swarm.task_logs import Reader
from stack.swarm.tasks import Task, find_tasks

# A container may already be gone or going: newer engines remove it themselves.
REMOVE_CONTAINERS = f"""
containers=$(docker ps --all --quiet --filter label={CONTAINER_LABEL})
[ -z "$containers" ] || docker rm --force $containers > /dev/null 2>&1
true
"""
REMOVAL_TIMEOUT = 60  # seconds
# Seconds between polls of the job, and after a poll without an answer.
POLL, SILENT_POLL = 0.1, 1.0
# What the states of its task mean, where the word doesn't follow "the migration".
ENDINGS = {"rejected": "was rejected by its node", "orphaned": "was lost with its node",
           "remove": "was removed", "shutdown": "was stopped"}
# Seconds before the log is streamed, and between reads: a job that changes nothing ends sooner.
PATIENCE, LOG_POLL = 3.0, 1.0


def run(target: Target, stack: Stack, version: Version) -> str:
    """Run the migration to its end and return its log's last line.

    The log of a long job is streamed. On failure or after DEPLOY_TIMEOUT, prints the job's log
    and raises MigrationFailed; the running release is untouched.
    """
    engine, machine = target.engine, target.machine
    remove_all(engine, machine)
    service = migration_job.create(engine, stack, version.tag)
    log = Log(Reader(target, "migration", {"service": service}))
    try:
        deadline = time.monotonic() + target.settings.deploy_timeout
        state, cause = _wait(engine, machine, service, deadline, log)
        log.complete()
    finally:
        # The next migration removes what is left; this one's result matters more.
        with suppress(OperatorError):
            remove_all(engine, machine)
    if state != "complete":
        log.print_new(most=40)
        raise MigrationFailed(f"the migration {ENDINGS.get(state, state)} ({cause}); "
                              "the running release is untouched",
                              "fix the migration, then ./fab deploy")
    log.print_rest()
    return log.lines[-1] if log.lines else "done"


def _wait(engine: Engine, machine: Machine, service: str, deadline: float,
          log: "Log") -> tuple[str, str]:
    """Return how the job's task ended and why, or "timed out" at the deadline.

    An engine that doesn't answer is retried until no manager can be reached.
    """
    state, cause = "new", ""
    while time.monotonic() < deadline:
        tasks, pause = list[Task](), SILENT_POLL
        with suppress(EngineError):
            tasks, pause = find_tasks(engine, {"service": service}), POLL
        for task in tasks:
            state, cause = task.state, task.reason
            if task.ended:
                return state, cause
        if not machine.alive:
            return "is out of contact", "no manager answers; it may still be running"
        log.follow()
        time.sleep(pause)
    return "timed out", f"its task was {state}: {cause}"


class Log:
    """The job's log, as far as it can be read: the job's result matters more."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.lines: list[str] = []
        self.unread: list[str] = []
        self._printed = 0
        self._next = time.monotonic() + PATIENCE

    def follow(self) -> None:
        """Print new lines, from time to time."""
        if time.monotonic() < self._next:
            return
        with suppress(OperatorError):
            self._read()
        self.print_new()
        self._next = time.monotonic() + LOG_POLL

    def complete(self) -> None:
        """Read the rest, or keep the reason why it can't be read."""
        try:
            self._read()
            self.unread = list(self._reader.unread.values())
        except OperatorError as error:
            self.unread = [failures.cause_of(error)]

    def print_new(self, most: int = 200) -> None:
        """Print the last unprinted lines, and why any are missing."""
        progress.quote(self.lines[self._printed:][-most:])
        progress.quote([f"its log can't be read: {cause}" for cause in self.unread])
        self._printed = len(self.lines)

    def print_rest(self) -> None:
        """Print the remaining lines, if the log was streamed or can't be read."""
        if self._printed or self.unread:
            self.print_new()

    def _read(self) -> None:
        self.lines += [line.text for line in self._reader.read()]


def remove_all(engine: Engine, *machines: Machine) -> None:
    """Remove every migration job, including one that a killed command left running.

    Docker 20.10 leaves their containers, which would keep the images in use.
    """
    for service in find_services(engine, {"label": LABEL}):
        with suppress(Missing):
            engine.services.remove(service.id)
    for machine in machines:
        machine.must(["sh", "-c", docker_command.script(machine, REMOVE_CONTAINERS)],
                     timeout=REMOVAL_TIMEOUT)
