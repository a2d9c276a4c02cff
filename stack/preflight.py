"""Look before anything is changed: is this a machine that can carry the stack?"""

from stack import engine, facts, swarm
from stack.errors import Refused
from stack.machine import LocalMachine
from stack.settings import Settings

GIB = 1024 ** 3
# Measured: Docker, the images and what building them leaves take 1.6 GiB.
LEAST_DISK_AT_FIRST = 3 * GIB
LEAST_DISK = 1 * GIB
# The reservations in docker-stack.yml, two app tasks during an update, and
# the engine itself.
LEAST_MEMORY = 1 * GIB
DOCKER_ROOT = "/var/lib/docker"


def check_room(machine: LocalMachine, least_disk: int) -> None:
    """Refuse a machine with too little memory, or less free disk than these bytes."""
    memory, disk = facts.memory(machine), facts.free_disk(machine, DOCKER_ROOT)
    # A machine sold as 1 GiB shows a little less: its kernel keeps some.
    if memory < 0.9 * LEAST_MEMORY:
        raise Refused(f"this machine has {memory / GIB:.1f} GiB of memory, "
                      f"at least {LEAST_MEMORY // GIB} is needed", "use a larger machine")
    if disk < least_disk:
        raise Refused(f"{DOCKER_ROOT} has {disk / GIB:.1f} GiB free, "
                      f"at least {least_disk // GIB} GiB are needed",
                      "make room, with docker system prune for example")


def check_ports(machine: LocalMachine, settings: Settings) -> None:
    """Refuse ports that something else than this stack listens on."""
    ours = _published()
    taken = {listener.port: listener for listener in facts.listeners(machine)}
    for name, port, other in (("HTTP_PORT", settings.http_port, 8080),
                              ("HTTPS_PORT", settings.https_port, 8443)):
        if port in taken and port not in ours:
            who = taken[port]
            raise Refused(f"port {port} is taken by {who.process} (pid {who.pid})",
                          f"stop it, or choose another: echo {name}={other} >> .env")


def _published() -> set[int]:
    """Return the ports that this stack's Traefik holds, if there is one."""
    if not engine.answers() or not swarm.membership(engine.connect()).manager:
        return set()
    services = engine.connect().services.list(filters={"name": f"{swarm.STACK}_traefik"})
    return {port["PublishedPort"] for service in services
            for port in service.attrs["Endpoint"].get("Ports", [])}


def check_engine() -> None:
    """Refuse an engine that is too old or a machine in a Swarm that isn't its own."""
    if engine.answers():
        swarm.check_membership(swarm.membership(engine.connect()))
