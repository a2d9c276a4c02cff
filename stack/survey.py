"""Look at every machine of a fleet before the first of them is changed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from stack import clock, engine, facts, install, joining, preflight, swarm
from stack.console import Step
from stack.errors import Refused, raise_all
from stack.fleet import Fleet, Member
from stack.machine import LocalMachine
from stack.settings import Settings
from stack.swarm import Membership

SETTLED = 30.0  # seconds that an engine may take to find its Swarm after a start


@dataclass(frozen=True)
class Look:
    """What a machine was found to be; `membership` is its part in a Swarm."""

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
    """Look at all machines side by side; raises every reason not to go on, a line each."""
    if not fleet.local:
        fleet.each("cloud-init", wait)
    looks = fleet.each("preflight", lambda member, step: _look(member, settings, step))
    if fleet.local:
        swarm.check_membership(looks[0].membership)
        return looks
    raise_all([Refused(line) for line in
               clock.complaints({look.name: look.offset for look in looks})])
    parts = {look.member: look.membership for look in looks}
    raise_all(joining.complaints(parts))
    if base := joining.first_manager(parts):
        raise_all(joining.strangers(base.client, parts))
    return looks


def wait(member: Member, current: Step) -> None:
    """Wait for the end of a machine's first boot."""
    preflight.wait_for_cloud_init(member.machine)


def memberships(looks: Sequence[Look]) -> dict[Member, Membership]:
    """Return each machine's part in a Swarm, once all of their engines run.

    An engine that was only just started needs a moment to find its Swarm again.
    """
    return {look.member: look.membership if look.running else _settled(look.member)
            for look in looks}


def _settled(member: Member) -> Membership:
    deadline = time.monotonic() + SETTLED
    while (found := member.membership()).state == "pending" \
            and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def _answers(member: Member) -> bool:
    """Tell whether a machine's engine answers, on the connection that is used from then on."""
    try:
        return member.client.ping()
    except engine.NoAnswer:
        return False


def _look(member: Member, settings: Settings, current: Step) -> Look:
    machine = member.machine
    system, running = facts.system(machine), _answers(member)
    # An engine behind SSH is reached by the docker command there.
    installed = running and not isinstance(machine, LocalMachine) \
        or install.docker_is_installed(machine)
    if not installed:
        install.require_supported(machine, system)
    preflight.check_room(machine, preflight.LEAST_DISK if running
                         else preflight.LEAST_DISK_AT_FIRST)
    if member.node.labels.get("edge") == "true":
        preflight.check_ports(machine, settings)
    membership = member.membership() if running else Membership()
    current.found(f"{system.name}, room and ports are there")
    return Look(member, system, installed, running, membership,
                0.0 if isinstance(machine, LocalMachine) else clock.offset(machine))
