"""Open each machine's firewall to the other nodes, and to nobody else."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from stack.bootstrap import port_check
from stack.bootstrap.inspection import Look
from stack.errors import OperatorError, Refused, raise_all
from stack.machines.checks import FIREWALL
from stack.progress import Step, step
from stack.swarm.fleet import Fleet, Member
from stack.swarm.membership import LOOPBACK
from stack.swarm.nodes import all_nodes

# Read by the firewall that cloud-init/user-data.yml makes; other machines have their own.
FILE = "/etc/tally/peers"
# Brings the firewall's peers in line with the file, in one step.
APPLY = "/usr/local/sbin/tally-peers"
# Given the firewall's file and the peers'; fails where there is no firewall of ours.
KNOWN = '[ -e "$1" ] && { [ ! -e "$2" ] || cat "$2"; }'
HEADER = ("# Who may reach this node's cluster ports: one address a line.\n"
          "# Written by ./fab bootstrap from the inventory.\n")


def introduce(machines: Fleet, looks: Sequence[Look]) -> None:
    """Open the machines to each other, and see that they reach each other before they join.

    Raises a line for everything in the way; the firewalls are then as they were.
    """
    before: dict[Member, str] = {}
    nodes = {member.private for member in machines.members} | known_nodes(looks)

    def let_in(member: Member, current: Step) -> None:
        asked = member.machine.run(["sh", "-c", KNOWN, "known", FIREWALL, FILE])
        if not asked.ok:
            return
        wanted = text(nodes - {member.private})
        if asked.stdout == wanted:
            # Apply it all the same: an interrupted run may have written only the file.
            member.machine.must([APPLY])
            return
        before[member] = asked.stdout
        current.changed("firewall opened to the other nodes")
        write(member, wanted)
    try:
        machines.each("peers", let_in)
        if machines.several:
            with step("reachable"):
                raise_all(broken(machines, looks))
    except BaseException:
        for member, known in before.items():
            # A machine that fails again has reported it; the others are closed all the same.
            with suppress(OperatorError):
                write(member, known or HEADER)
        raise


def known_nodes(looks: Sequence[Look]) -> set[str]:
    """Return the addresses of the Swarm's nodes; only node.remove closes the firewall to one."""
    base = next((look.member for look in looks if look.membership.cluster), None)
    if base is None:
        return set()
    return {node.address for node in all_nodes(base.engine)} - {LOOPBACK, ""}


def text(addresses: Iterable[str]) -> str:
    """Return the file's content."""
    return HEADER + "".join(f"{address}\n" for address in sorted(addresses) if address)


def write(member: Member, content: str) -> None:
    """Change the peers, in the file and in the firewall."""
    member.machine.write(FILE, content)
    member.machine.must([APPLY])


def forget(member: Member, address: str) -> None:
    """Close a machine's firewall to an address again."""
    known = member.machine.read(FILE)
    if known and f"{address}\n" in known.splitlines(keepends=True):
        write(member, "".join(line for line in known.splitlines(keepends=True)
                              if line != f"{address}\n"))


def broken(machines: Fleet, looks: Sequence[Look]) -> list[OperatorError]:
    """Return a line for each connection between nodes that Swarm needs and that fails."""
    joined = {look.member: look.membership.state == "active" for look in looks}
    lines = port_check.check([
        port_check.Peer(member.machine, member.private, member.host.role, joined[member],
                        member.host.labels.get("registry") == "true")
        for member in machines.members])
    return [Refused(line) for line in lines]
