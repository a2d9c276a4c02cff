"""A Swarm with a fault: who deploys, who visits, and what has to be true then."""

import http.client
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e import crowd, verdict
from tests.e2e.background import repeating
from tests.e2e.cluster import entry
from tests.e2e.crowd import Visitor
from tests.e2e.laptop import Laptop
from tests.e2e.site import Site, lines
from tests.lab import Machine, Result, host

log = logging.getLogger(__name__)

TASKS = "docker service ps --quiet --no-trunc --filter desired-state=running tally_"
STOPPING = "docker stack ps tally --filter desired-state=shutdown " \
    "--format '{{.Node}} {{.CurrentState}}'"
POSTGRES = "$(docker ps --quiet --filter label=com.docker.swarm.service.name=tally_postgres)"
IN_POSTGRES = f"docker exec {POSTGRES} psql -U postgres -d tally -Atc"
UNDO = "cd tally && git checkout --quiet -- . && git clean --quiet -d --force app migrations stack"


@dataclass(frozen=True)
class Scene:
    """Three managers with the site; the first has the database and the registry.

    `guests` are the client addresses of returning visitors. `lost` are the names of nodes
    that are off, so that Swarm knows nothing new of their tasks.
    """

    laptop: Laptop
    machines: Sequence[Machine]
    edges: Sequence[Site]
    guests: Sequence[str]
    lost: frozenset[str] = frozenset()

    @property
    def holder(self) -> Machine:
        return self.machines[0]

    def fab(self, arguments: str, env: str = "") -> Result:
        """Run ./fab on the laptop, whatever its exit code."""
        return self.laptop.shell(f"cd tally && {env} ./fab {arguments}", 600)

    def write(self, path: str, text: str) -> None:
        """Write a file of the clone."""
        (self.laptop.folder / path).write_text(text)

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace text in a file of the clone."""
        text = (self.laptop.folder / path).read_text()
        assert old in text, path
        self.write(path, text.replace(old, new))

    def edges_but(self, machine: Machine) -> list[Site]:
        """Return all edges but this machine's."""
        return [site for site in self.edges if site.address != machine.address]

    def change_page(self, line: str) -> None:
        """Change the page, so that a deploy has something to do."""
        self.replace("app/templates/base.html", "</main>", f"<p>{line}</p></main>")

    def restore(self) -> None:
        """Reset the clone and its inventory to the state that every test starts with."""
        done = self.laptop.shell(UNDO, 60)
        assert done.code == 0, done.stderr
        self.change_page("Before all faults")
        self.laptop.choose([entry(machine) for machine in self.machines])

    def tasks(self, service: str) -> set[str]:
        """Return the IDs of the tasks that a service should run now."""
        return set(self.holder.console(TASKS + service).stdout.split())

    def settle(self) -> None:
        """Wait until the stopping tasks have ended: Docker counts them until then."""
        host.wait_until(lambda: not self.stopping(), 60, "end of the tasks that were told to stop")

    def stopping(self) -> list[str]:
        """Return the tasks that are stopping but still run."""
        lines = self.holder.console(STOPPING).stdout.splitlines()
        return [line for line in lines
                if line.split()[1:2] == ["Running"] and line.split()[0] not in self.lost]

    def query(self, sql: str) -> str:
        """Query the site's database as its superuser."""
        return self.holder.console(f'{IN_POSTGRES} "{sql}"').stdout.strip()

    def serving(self) -> "Serving":
        """Return what runs and what visitors get; it has to be the same at every edge."""
        version, = {site.version() for site in self.edges}
        return Serving(self, verdict.definitions(self.holder), version)

    @contextmanager
    def visited(self, edges: Sequence[Site] = (), *, least: int = 20,
                may_fail: bool = False) -> Iterator[list[Visitor]]:
        """Let the guests visit 50 times a second during the block; check that each is counted.

        No visit may fail unless `may_fail`; a failed visit is counted at most once.
        """
        sites = edges or self.edges
        before = [sites[0].visit(guest).visits for guest in self.guests]
        with crowd.crowd(sites, self.guests) as visitors:
            yield visitors
        for visitor, earlier in zip(visitors, before):
            counted, failed = visitor.last - earlier, len(visitor.failures)
            assert visitor.answered <= counted <= visitor.answered + failed, visitor
        answered, turned_away = sum(visitor.answered for visitor in visitors), failures(visitors)
        log.info("%d visits answered, %d failed", answered, len(turned_away))
        assert may_fail or not turned_away
        assert answered >= least


@dataclass(frozen=True)
class Serving:
    """What runs at one moment: every service's definition, and the version that is served."""

    scene: Scene
    definitions: dict[str, Any]
    version: str

    def cause(self, done: Result, code: int) -> str:
        """Check a command's exit code and that this still runs; return the line with the cause."""
        cause = said_cause(done, code)
        self.check(done)
        return cause

    def check(self, done: Result) -> None:
        """Check the report of a command that started from this state."""
        self.scene.settle()
        verdict.check_true(done, self.scene.holder, self.scene.edges, self.definitions,
                           self.version)


def said_cause(done: Result, code: int) -> str:
    """Check the exit code of a command with --json; return its error message."""
    assert done.code == code, done.stdout + done.stderr
    # A container's output is indented.
    assert not [line for line in done.stderr.splitlines() if line.startswith("Traceback")]
    cause = str(verdict.report(done)["cause"])
    assert lines(done)[-len(cause.splitlines()):] == cause.splitlines()
    return cause


def well(done: Result) -> Result:
    """Check that a command succeeded."""
    assert done.code == 0, done.stdout + done.stderr
    return done


def failures(visitors: Sequence[Visitor]) -> list[str]:
    """Return every visitor's failures."""
    return [failure for visitor in visitors for failure in visitor.failures]


@dataclass(frozen=True)
class Sample:
    """One answer; `status` is 0 if there was none."""

    asked: float
    took: float
    status: int


@contextmanager
def watching(site: Site, path: str, method: str = "HEAD") -> Iterator[list[Sample]]:
    """Request a path of an edge ten times a second during the block, without counting visits."""
    samples: list[Sample] = []

    def ask() -> None:
        asked = time.monotonic()
        try:
            status = site.ask(path, method=method).status
        except (OSError, http.client.HTTPException):
            status = 0
        samples.append(Sample(asked, time.monotonic() - asked, status))

    with repeating(ask, pause=0.1):
        yield samples
