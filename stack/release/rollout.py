"""Deploy a stack to Swarm and wait for the real result."""

import re
import time

from stack import progress
from stack.engine.cli import DockerCli
from stack.engine.engine import Engine
from stack.engine.failures import EngineError
from stack.errors import OperatorError
from stack.inventory.settings import DEFAULT_REPLICAS
from stack.machines.machine import Completed, Machine
from stack.release.target import Target
from stack.swarm import nodes, service_state, tasks
from stack.swarm.names import STACK
from stack.swarm.service_state import Progress
from stack.swarm.stackfile import Stack
from stack.swarm.stuck_updates import Stalls

NO_ENGINE = "unix:///nonexistent"
POLL = 0.3  # seconds between polls
# Seconds of silence before another manager is tried: an election takes less.
SILENCE = 15.0
# Seconds to replace one task of the app: tasks are replaced one at a time.
A_TASK = 10


class NotArrived(OperatorError):
    """The stack isn't running as wanted; carries Docker's output, or the failed task."""

    def __init__(self, cause: str, *, said: list[str] | None = None, task: str = "") -> None:
        super().__init__(cause)
        self.said = said or []
        self.task = task


def apply(cli: DockerCli, stack: Stack, *, prune: bool) -> None:
    """Deploy the stack; return when Swarm has accepted it, not when it runs.

    Raises NotArrived if Docker refuses the stack or ignores part of it.
    """
    options = ["--prune"] if prune else []
    # `changed` and `never` would keep an image set by hand. Docker warns that no registry has
    # the machine's own images; that is expected.
    command = ("deploy", "--compose-file=-", "--resolve-image=always", *cli.authenticated,
               *options, STACK)
    done = cli.stack(*command, stdin=stack.text())
    for _ in range(3):
        # Swarm changed a service in between, as it does when it rolls back: retry.
        if done.ok or "out of sequence" not in done.stderr:
            break
        done = cli.stack(*command, stdin=stack.text())
    said = (done.stdout + done.stderr).strip().splitlines()
    if not done.ok:
        raise NotArrived(f"docker stack deploy refused the stack: {done.last_line}",
                         said=said[-10:])
    if ignored := _left_out(done):
        raise NotArrived(f"docker stack deploy ignored part of the stack: {ignored}", said=said)


def check(cli: DockerCli, stack: Stack) -> str:
    """Return Docker's complaint about the stack, or "" if Docker accepts all of it.

    The command validates the whole file before it connects to an engine, and there is none
    here. Unlike `stack config` it also reports what it would ignore, and every version of
    the CLI has it.
    """
    done = cli.stack("deploy", "--compose-file=-", STACK, stdin=stack.text(), host=NO_ENGINE)
    ignored = _left_out(done)
    if ignored or not re.search("connect to the docker", done.stderr, re.IGNORECASE):
        return ignored or done.last_line
    return ""


def _left_out(done: Completed) -> str:
    """Return Docker's warning that it ignores part of a stack file, or ""."""
    said = (done.stdout + done.stderr).splitlines()
    return next((line for line in said if line.lower().startswith("ignoring")), "")


class Steadiness:
    """How long everything has run as wanted, and how long it must.

    At least `held` seconds. If a task dies during the wait, the others must outlive it:
    tasks that crash after a while all look healthy between two crashes.
    """

    def __init__(self, held: float) -> None:
        self._needed = held
        self._since = time.monotonic()
        self._seen: frozenset[str] = frozenset()
        self._over: frozenset[str] | None = None

    def believes(self, now: list[Progress]) -> bool:
        """Record the current state; return whether it has been good for long enough."""
        ids = frozenset().union(*(service.ids for service in now))
        if ids != self._seen or not all(service.full for service in now):
            self._seen, self._since = ids, time.monotonic()
        lives = {task: life for service in now for task, life in service.lives.items()}
        if self._over is None:
            # Tasks that ended before the wait don't count.
            self._over = frozenset(lives)
        self._needed = max([self._needed, *(life for task, life in lives.items()
                                            if task not in self._over)])
        return all(service.settled for service in now) and self.left <= 0

    @property
    def left(self) -> float:
        """The seconds for which the last state must still hold."""
        return self._since + self._needed - time.monotonic()


def wait(engine: Engine, machine: Machine, stack: Stack, timeout: float,
         held: float | None = None) -> None:
    """Wait until every service runs as wanted, for at least `held` seconds.

    By default, that is as long as Swarm itself monitors an update, which it skips if the same
    change is deployed twice.
    Shows the tasks while it waits. Raises NotArrived when a service fails, when no manager
    can be reached, or after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    steadiness = Steadiness(stack.monitor if held is None else held)
    managers, stalls = Managers(engine, machine), Stalls(engine)
    with progress.tasks(lambda: host_names(engine)) as show:
        while True:
            now = look(engine, stack)
            show(now)
            managers.require_answer(now)
            _give_up_if_broken(now)
            if steadiness.believes(now):
                return
            waiting = [service.name for service in now if not service.settled]
            for name, cause in stalls.end(waiting).items():
                progress.note(f"Swarm {cause}; restarted the update", name)
            if time.monotonic() > deadline:
                _give_up_late(engine, now, timeout)
            # Poll sooner if the next poll can be the last.
            left = steadiness.left
            time.sleep(left if 0 < left < POLL else POLL)


class Managers:
    """The managers; after a while without an answer, the next one is tried."""

    def __init__(self, engine: Engine, machine: Machine) -> None:
        self._engine, self._machine = engine, machine
        self._heard = time.monotonic()

    def require_answer(self, now: list[Progress]) -> None:
        """Switch managers after too long a silence; raise NotArrived if none can be reached."""
        if any(service.wanted for service in now):
            self._heard = time.monotonic()
        if not self._machine.alive:
            raise NotArrived("lost contact with every manager")
        if time.monotonic() - self._heard > SILENCE:
            self._machine.pass_over()
            # Open connections would stay with the old manager.
            self._engine.close()
            self._heard = time.monotonic()


def look(engine: Engine, stack: Stack) -> list[Progress]:
    """Read every service's progress; without an answer, none is settled."""
    try:
        return service_state.progress(engine, stack.services)
    except EngineError:
        return [Progress(name, 0, 0) for name in stack.services]


def host_names(engine: Engine) -> dict[str, str]:
    """Return the host name of each node's id, or nothing if the engine doesn't answer."""
    try:
        return {node.id: node.hostname for node in nodes.all_nodes(engine)}
    except EngineError:
        return {}


def _give_up_if_broken(now: list[Progress]) -> None:
    for service in now:
        if service.broken:
            raise NotArrived(f"{service.name}: {service.broken}", task=service.task)


def _give_up_late(engine: Engine, now: list[Progress], timeout: float) -> None:
    late = [service for service in now if not service.settled]
    reasons = [f"{service} ({_why(engine, service)})" for service in late] \
        or ["tasks keep restarting"]
    raise NotArrived(f"not stable after {timeout:.0f} s: {'; '.join(reasons)}",
                     task=late[0].task if late else "")


def _why(engine: Engine, service: Progress) -> str:
    if len(service.ids) > service.wanted:
        return "more tasks running than requested"
    if not service.task:
        return "no up-to-date task"
    try:
        task = tasks.inspect(engine, service.task)
    except EngineError as error:
        return f"the engine doesn't answer: {error.kind}"
    return f"{task.state}: {task.reason}"


def patience(target: Target, stack: Stack) -> float:
    """Return an update's timeout in seconds; each task above the default adds to it."""
    return target.settings.deploy_timeout + A_TASK * max(0, stack.replicas - DEFAULT_REPLICAS)
