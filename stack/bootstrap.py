"""Make this machine ready to deploy on: Docker, a Swarm, secrets, the base image."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack import console, engine, facts, images, install, lock, preflight, records, swarm
from stack.console import step
from stack.errors import Locked
from stack.machine import LocalMachine
from stack.privilege import require_root
from stack.settings import Settings

LOCK = Path("/run/tally-bootstrap.lock")


@engine.in_one_line
def bootstrap() -> None:
    """Change whatever differs from what a deploy needs, and say what that was."""
    require_root("./fab bootstrap")
    machine, settings = LocalMachine(), Settings.load()
    console.heading("Bootstrap: this machine becomes a Swarm of one")
    with alone():
        converge(machine, settings)


@contextmanager
def alone() -> Iterator[None]:
    """See that only one bootstrap at a time changes this machine."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked("another ./fab bootstrap is at work on this machine",
                         "try again when it has ended") from error
        yield


def converge(machine: LocalMachine, settings: Settings) -> None:
    """Look first, then install, start and make what is missing."""
    with step("preflight") as current:
        system = facts.system(machine)
        preflight.check_room(machine, preflight.LEAST_DISK if engine.answers()
                             else preflight.LEAST_DISK_AT_FIRST)
        preflight.check_engine()
        preflight.check_ports(machine, settings)
        current.found(f"{system.name}, room and ports are there")
    ensure_docker(machine, system)
    ensure_swarm(machine)


def ensure_docker(machine: LocalMachine, system: facts.System) -> None:
    """Install Docker where there is none, and start it where it isn't running."""
    with step("docker") as current:
        done = []
        if not install.docker_is_installed():
            current.doing("installing it, a minute or so")
            install.install_docker(machine, system)
            done.append("installed")
        if not engine.answers():
            install.start_docker(machine, system)
            done.append("started")
        version = engine.connect().version()["Version"]
        if done:
            current.changed(f"{' and '.join(done)}, version {version}")


def ensure_swarm(machine: LocalMachine) -> None:
    """Make the Swarm and what the stack expects of it; safe to run at any time."""
    client = engine.connect()
    with step("swarm") as current:
        if swarm.init(client):
            current.changed("initialised, with this machine as its manager")
    with lock.hold(client):
        with step("labels") as current:
            if chosen := swarm.label_nodes(client):
                current.changed("this node is now " + " and ".join(chosen))
        with step("secrets") as current:
            if made := swarm.make_secrets(client):
                current.changed("made " + ", ".join(made))
        with step("base image") as current:
            if not images.image_id(client, images.BASE):
                current.doing("pulling or building it, a minute or so")
                current.changed(images.make_base(client, machine))
        with step("data volume") as current:
            # Once there was a release, an empty volume is a loss, not a beginning.
            if not records.history(client) and swarm.prepare_volume(client, images.BASE):
                current.changed("made, empty")
