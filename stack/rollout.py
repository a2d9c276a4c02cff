"""Hand a stack to Swarm and find out what really became of it."""

import re
import time
from collections.abc import Callable

import docker
import requests
from docker.errors import DockerException

from stack import console, live
from stack.definition import Stack
from stack.engine import FAILURES, DockerCli
from stack.errors import OperatorError
from stack.machine import Completed, Machine
from stack.probe import is_answered
from stack.progress import Progress, progress
from stack.stall import Stalls
from stack.swarm import STACK

NO_ENGINE = "unix:///nonexistent"
# Seconds for which everything must stay up to be believed: as long as Swarm itself watches
# (`monitor` in docker-stack.yml), which it doesn't if a change is handed over twice.
HELD = 10.0
POLL = 0.3  # seconds from one look to the next
# Seconds after which another manager is asked: an election takes less.
SILENCE = 15.0


class NotArrived(OperatorError):
    """The stack isn't running as wanted; carries what Docker said, or the task to blame."""

    def __init__(self, cause: str, *, said: list[str] | None = None, task: str = "") -> None:
        super().__init__(cause)
        self.said = said or []
        self.task = task


def apply(cli: DockerCli, stack: Stack, *, prune: bool) -> None:
    """Hand the stack to Swarm; returns when Swarm has accepted it, not when it runs.

    Raises NotArrived if Docker refuses it, or would leave out part of it.
    """
    options = ["--prune"] if prune else []
    # With any other choice Docker keeps an image that somebody changed by hand. No registry
    # knows the machine's own images: the warning about these says nothing new.
    command = ("deploy", "--compose-file=-", "--resolve-image=always", *cli.authenticated,
               *options, STACK)
    done = cli.stack(*command, stdin=stack.text())
    for _ in range(3):
        # Swarm itself changed a service meanwhile, as it does when it rolls back.
        if done.ok or "out of sequence" not in done.stderr:
            break
        done = cli.stack(*command, stdin=stack.text())
    said = (done.stdout + done.stderr).strip().splitlines()
    if not done.ok:
        raise NotArrived(f"docker stack deploy refused the stack: {done.last_line}",
                         said=said[-10:])
    if ignored := _left_out(done):
        raise NotArrived(f"docker stack deploy left something out: {ignored}", said=said)


def check(cli: DockerCli, stack: Stack) -> str:
    """Return what Docker has against the stack, or "" if it would take all of it.

    The command reads and checks the whole file before it looks for an engine, and
    finds none here. Unlike `stack config` it also tells what it would leave out,
    and every version of the CLI has it.
    """
    done = cli.stack("deploy", "--compose-file=-", STACK, stdin=stack.text(), host=NO_ENGINE)
    ignored = _left_out(done)
    if ignored or not re.search("connect to the docker", done.stderr, re.IGNORECASE):
        return ignored or done.last_line
    return ""


def _left_out(done: Completed) -> str:
    """Return Docker's warning that it leaves something of a stack file out, or ""."""
    said = (done.stdout + done.stderr).splitlines()
    return next((line for line in said if line.lower().startswith("ignoring")), "")


class Steadiness:
    """How long everything has run as wanted, and how long it has to, to be believed.

    At least `held` seconds. Where a task dies by itself meanwhile, the others have to
    outlive it: code that ends after a while has them all running again for some time.
    """

    def __init__(self, held: float) -> None:
        self._needed = held
        self._since = time.monotonic()
        self._seen: frozenset[str] = frozenset()
        self._over: frozenset[str] | None = None

    def believes(self, now: list[Progress]) -> bool:
        """Take in how things are now; tell whether they have been so for long enough."""
        ids = frozenset().union(*(service.ids for service in now))
        if ids != self._seen or not all(service.full for service in now):
            self._seen, self._since = ids, time.monotonic()
        lives = {task: life for service in now for task, life in service.lives.items()}
        if self._over is None:
            # What ended before anybody waited has nothing to do with it.
            self._over = frozenset(lives)
        self._needed = max([self._needed, *(life for task, life in lives.items()
                                            if task not in self._over)])
        return all(service.settled for service in now) and self.left <= 0

    @property
    def left(self) -> float:
        """The seconds for which it still has to go on as it was seen last."""
        return self._since + self._needed - time.monotonic()


def wait(client: docker.DockerClient, machine: Machine, stack: Stack, timeout: float,
         held: float = HELD) -> None:
    """Wait until every service runs as wanted, and stays so for `held` seconds or more.

    People see the tasks meanwhile. Raises NotArrived at the first service that can't, or
    after `timeout` seconds; and where no manager can be reached any more, at once.
    """
    deadline, steadiness = time.monotonic() + timeout, Steadiness(held)
    managers, stalls = Managers(client, machine), Stalls(client)
    with live.shown(client) as show:
        while True:
            now = look(client, stack)
            show(now)
            managers.require_answer(now)
            _give_up_if_broken(now)
            if steadiness.believes(now):
                return
            waiting = [service.name for service in now if not service.settled]
            for name, cause in stalls.end(waiting).items():
                console.say(f"  {name:<14} Swarm {cause}: its update has begun anew")
            if time.monotonic() > deadline:
                _give_up_late(client, now, timeout)
            # The last look is taken as soon as it can be the last.
            left = steadiness.left
            time.sleep(left if 0 < left < POLL else POLL)


class Managers:
    """Whoever is asked: another one, when there was no answer for a while."""

    def __init__(self, client: docker.DockerClient, machine: Machine) -> None:
        self._client, self._machine = client, machine
        self._heard = time.monotonic()

    def require_answer(self, now: list[Progress]) -> None:
        """Take in whether there was an answer; raises NotArrived without a way to any."""
        if any(service.wanted for service in now):
            self._heard = time.monotonic()
        if not self._machine.alive:
            raise NotArrived("no manager answers any more")
        if time.monotonic() - self._heard > SILENCE:
            self._machine.pass_over()
            # Its connections would stay with the manager that they were opened to.
            self._client.close()
            self._heard = time.monotonic()


def look(client: docker.DockerClient, stack: Stack) -> list[Progress]:
    """Look at every service; an engine that doesn't answer just now leaves them unsettled."""
    try:
        return progress(client, stack.services)
    except (DockerException, requests.RequestException):
        return [Progress(name, 0, 0) for name in stack.services]


def _give_up_if_broken(now: list[Progress]) -> None:
    for service in now:
        if service.broken:
            raise NotArrived(f"{service.name}: {service.broken}", task=service.task)


def _give_up_late(client: docker.DockerClient, now: list[Progress], timeout: float) -> None:
    late = [service for service in now if not service.settled]
    reasons = [f"{service} ({_why(client, service)})" for service in late] or ["tasks come and go"]
    raise NotArrived(f"not steady after {timeout:.0f} s: {'; '.join(reasons)}",
                     task=late[0].task if late else "")


def _why(client: docker.DockerClient, service: Progress) -> str:
    if len(service.ids) > service.wanted:
        return "more run than are wanted"
    if not service.task:
        return "it has no task that is up to date"
    try:
        status = client.api.inspect_task(service.task)["Status"]
    except (DockerException, requests.RequestException) as error:
        return f"the engine doesn't answer: {type(error).__name__}"
    return f"{status['State']}: {status.get('Err') or status.get('Message', '')}"


def serving_version(host: str, port: int) -> str:
    """Return the version that answers through Traefik at a node, or why none does."""
    with requests.Session() as session:
        # A proxy for the way out must not be asked for our own machines.
        session.trust_env = False
        try:
            answer = session.get(f"http://{host}:{port}/version", timeout=5)
            answer.raise_for_status()
            return str(answer.json()["version"])
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            return f"no version ({type(error).__name__})"


def prove(edges: Callable[[], list[str]], port: int, version: str, timeout: float = 20) -> None:
    """Wait until every edge node serves this version, as its visitors would see it.

    `edges` is asked again while it waits, as a node may go meanwhile. Raises NotArrived
    after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while wrong := _wrong(edges, port, version):
        if time.monotonic() > deadline:
            raise NotArrived("; ".join(wrong))
        time.sleep(POLL)


def _wrong(edges: Callable[[], list[str]], port: int, version: str) -> list[str]:
    """Say what visitors of each edge node would find wrong."""
    try:
        return [line for host in edges() if (line := _amiss(host, port, version))]
    except FAILURES as error:
        return [f"the edge nodes can't be told: {error}"]


def _amiss(host: str, port: int, version: str) -> str:
    """Say what a visitor of this node would find wrong, or return ""."""
    if (found := serving_version(host, port)) != version:
        return f"http://{host}:{port}/version answers {found}, not {version}"
    if not is_answered(host, port):
        return f"{version} serves /version at {host}:{port}, but not the page"
    return ""
