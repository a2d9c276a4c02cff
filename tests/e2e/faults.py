"""A Swarm in which something goes wrong: who deploys, who visits, and what has to be true then."""

import http.client
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e import crowd, verdict
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
    """Three managers with the site, of which the first has the database and the registry.

    `guests` are client addresses of people who come again and again. `lost` are the names
    of nodes that are off, of whose tasks nothing is heard any more.
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
        """Change a file of the clone, as an editor would."""
        text = (self.laptop.folder / path).read_text()
        assert old in text, path
        self.write(path, text.replace(old, new))

    def edges_but(self, machine: Machine) -> list[Site]:
        """Return the edges that aren't on a machine."""
        return [site for site in self.edges if site.address != machine.address]

    def change_page(self, line: str) -> None:
        """Change the page, so that a deploy has something to bring."""
        self.replace("app/templates/base.html", "</main>", f"<p>{line}</p></main>")

    def restore(self) -> None:
        """Make the clone and its inventory again what every test begins with."""
        done = self.laptop.shell(UNDO, 60)
        assert done.code == 0, done.stderr
        self.change_page("Before all faults")
        self.laptop.choose([entry(machine) for machine in self.machines])

    def tasks(self, service: str) -> set[str]:
        """Return the ids of the tasks that a service should run now."""
        return set(self.holder.console(TASKS + service).stdout.split())

    def settle(self) -> None:
        """Wait for the end of the tasks that were told to stop: till then Docker counts them."""
        host.wait_until(lambda: not self.stopping(), 60, "end of the tasks that were told to stop")

    def stopping(self) -> list[str]:
        """Return the tasks that still run though they were told to stop."""
        lines = self.holder.console(STOPPING).stdout.splitlines()
        return [line for line in lines
                if line.split()[1:2] == ["Running"] and line.split()[0] not in self.lost]

    def query(self, sql: str) -> str:
        """Ask the site's own database, as its superuser."""
        return self.holder.console(f'{IN_POSTGRES} "{sql}"').stdout.strip()

    def serving(self) -> "Serving":
        """Return what runs and what visitors get, the same at every edge."""
        version, = {site.version() for site in self.edges}
        return Serving(self, verdict.definitions(self.holder), version)

    @contextmanager
    def visited(self, edges: Sequence[Site] = (), *, least: int = 20,
                may_fail: bool = False) -> Iterator[list[Visitor]]:
        """Let the guests come meanwhile, 50 times a second, and see that each visit was counted.

        All of them are answered, unless some may fail: such a visit is counted once or not at all.
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
    """What ran and was served at some moment: every service's definition, and the version."""

    scene: Scene
    definitions: dict[str, Any]
    version: str

    def cause(self, done: Result, code: int) -> str:
        """See that a command ended so and this still serves; return the line that says why."""
        cause = said_cause(done, code)
        self.check(done)
        return cause

    def check(self, done: Result) -> None:
        """See that the report of a command that began here is true."""
        self.scene.settle()
        verdict.check_true(done, self.scene.holder, self.scene.edges, self.definitions,
                           self.version)


def said_cause(done: Result, code: int) -> str:
    """See that a command with --json ended with this code; return its one line on stderr."""
    assert done.code == code, done.stdout + done.stderr
    # What a container wrote is indented.
    assert not [line for line in done.stderr.splitlines() if line.startswith("Traceback")]
    cause = str(verdict.report(done)["cause"])
    assert lines(done)[-len(cause.splitlines()):] == cause.splitlines()
    return cause


def well(done: Result) -> Result:
    """See that a command succeeded."""
    assert done.code == 0, done.stdout + done.stderr
    return done


def failures(visitors: Sequence[Visitor]) -> list[str]:
    """Return what every visitor who was turned away met."""
    return [failure for visitor in visitors for failure in visitor.failures]


@dataclass(frozen=True)
class Sample:
    """One answer to a watcher; without one, `status` is 0."""

    asked: float
    took: float
    status: int


@contextmanager
def watching(site: Site, path: str, method: str = "HEAD") -> Iterator[list[Sample]]:
    """Ask an edge for a path ten times a second meanwhile; no visit is counted."""
    samples: list[Sample] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.1):
            asked = time.monotonic()
            try:
                status = site.ask(path, method=method).status
            except (OSError, http.client.HTTPException):
                status = 0
            samples.append(Sample(asked, time.monotonic() - asked, status))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
