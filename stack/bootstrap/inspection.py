"""Inspect every machine of a fleet before changing any."""

from collections.abc import Sequence
from dataclasses import dataclass

from stack import waiting
from stack.bootstrap import install_docker, join, networks
from stack.engine import connection
from stack.errors import Refused, raise_all
from stack.inventory.settings import Settings
from stack.machines import checks, clock, facts
from stack.machines.local import LocalMachine
from stack.progress import Step
from stack.swarm import membership
from stack.swarm.fleet import Fleet, Member
from stack.swarm.membership import Membership

SETTLED = 30.0  # seconds that an engine may take to find its Swarm after a start


@dataclass(frozen=True)
class Look:
    """The state of a machine; `membership` is its part in a Swarm."""

    member: Member
    system: facts.System
    installed: bool
    running: bool
    membership: Membership
    offset: float

    @property
    def name(self) -> str:
        return self.member.name


def look(fleet: Fleet, settings: Settings) -> list[Look]:
    """Inspect all machines in parallel; raises one line for each reason to stop."""
    if not fleet.local:
        fleet.each("cloud-init", wait)
    looks = fleet.each("preflight", lambda member, step: _look(member, settings, step))
    if fleet.local:
        membership.check_membership(looks[0].membership)
        return looks
    raise_all([Refused(line) for line in
               clock.complaints({look.name: look.offset for look in looks})])
    raise_all(networks.complaints(fleet.members))
    parts = {look.member: look.membership for look in looks}
    raise_all(join.complaints(parts))
    if base := join.first_manager(parts):
        raise_all(join.strangers(base.engine, parts))
    return looks


def wait(member: Member, current: Step) -> None:
    """Wait for the end of a machine's first boot."""
    checks.wait_for_cloud_init(member.machine)


def memberships(looks: Sequence[Look]) -> dict[Member, Membership]:
    """Return each machine's part in a Swarm, once all of their engines run.

    An engine that was only just started needs a moment to find its Swarm again.
    """
    return {look.member: look.membership if look.running else _settled(look.member)
            for look in looks}


def _settled(member: Member) -> Membership:
    return waiting.until(member.membership, SETTLED, done=lambda found: found.state != "pending")


def _answers(member: Member) -> bool:
    """Return whether a machine's engine answers, on the connection that is used from then on."""
    try:
        return member.engine.ping()
    except connection.NoAnswer:
        return False


def _look(member: Member, settings: Settings, current: Step) -> Look:
    machine = member.machine
    system, running = facts.system(machine), _answers(member)
    # An engine behind SSH is reached by the docker command there.
    installed = running and not isinstance(machine, LocalMachine) \
        or install_docker.docker_is_installed(machine)
    if not installed:
        install_docker.require_supported(machine, system)
    checks.check_room(machine, checks.LEAST_DISK if running
                      else checks.LEAST_DISK_AT_FIRST)
    if member.host.labels.get("edge") == "true":
        checks.check_ports(machine, settings)
    membership = member.membership() if running else Membership()
    current.found(f"{system.name}, memory, disk and ports ok")
    return Look(member, system, installed, running, membership,
                0.0 if isinstance(machine, LocalMachine) else clock.offset(machine))
