"""Form one Swarm of the machines: start it, and join the others in their roles."""

from collections.abc import Mapping, Sequence

from stack.bootstrap.networks import free_pool, taken
from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.swarm import membership
from stack.swarm.fleet import Member
from stack.swarm.membership import LOOPBACK, Membership
from stack.swarm.nodes import all_nodes

PORT = 2377
Parts = Mapping[Member, Membership]
# The node is joining or restarting, or failed to.
UNDECIDED = {"pending", "error"}


def complaints(parts: Parts) -> list[OperatorError]:
    """Return the reasons why these machines can't form one Swarm."""
    errors: list[OperatorError] = []
    for member, part in parts.items():
        if part.state == "locked" or part.state == "active" and part.manager and part.error:
            errors.append(Refused(f"the Swarm on {member.name} reports an error "
                                  f"({part.error or part.state})", "run docker info on it"))
        elif len(parts) > 1 and part.address == LOOPBACK:
            # Raft keeps the first address of a manager for good.
            errors.append(Refused(f"{member.name} runs a Swarm that advertises {LOOPBACK} and "
                                  "cannot accept other nodes",
                                  "start a new Swarm on other machines"))
        elif part.member and part.address not in {member.private, LOOPBACK} and part.address:
            errors.append(Refused(f"{member.name} is in a Swarm as {part.address}, and the "
                                  f"inventory says private: {member.private or 'nothing'}",
                                  "correct the inventory"))
    return errors or _different_swarms(parts)


def _different_swarms(parts: Parts) -> list[OperatorError]:
    """Refuse machines of several Swarms; the first manager's Swarm is the right one."""
    managers = {member: part.cluster for member, part in parts.items() if part.cluster}
    joined = [member for member, part in parts.items() if part.state == "active"]
    if not managers:
        lost: list[OperatorError] = [
            Refused(f"{member.name} is still finding the managers of its Swarm",
                    "wait, then ./fab bootstrap; if that doesn't help, run docker info on it")
            for member, part in parts.items() if part.state in UNDECIDED]
        return lost + [Refused(f"{member.name} is a worker of a Swarm whose managers aren't in "
                               "the inventory", "add them to it, or run on it: docker swarm leave")
                       for member in joined]
    first, cluster = next(iter(managers.items()))
    return [Refused(f"{member.name} belongs to another Swarm than {first.name}",
                    "run on the one that is wrong: docker swarm leave --force")
            for member, other in managers.items() if other != cluster]


def strangers(engine: Engine, parts: Parts) -> list[OperatorError]:
    """Refuse nodes that the Swarm doesn't know: they belong to another.

    A machine without a node id was interrupted before any Swarm accepted it.
    """
    known = {node.id for node in all_nodes(engine)}
    return [Refused(f"{member.name} belongs to another Swarm",
                    "run on it: docker swarm leave, then ./fab bootstrap")
            for member, part in parts.items()
            if part.member and part.node_id and part.node_id not in known]


def first_manager(parts: Parts) -> Member | None:
    """Return the first machine that already manages a Swarm."""
    return next((member for member, part in parts.items() if part.manager), None)


def begin(member: Member, members: Sequence[Member]) -> None:
    """Make a Swarm of one machine; it listens for others only if it has a private address.

    Its overlay networks get their subnets where none of its future nodes has any other network.
    """
    address = member.private or LOOPBACK
    member.engine.init_swarm(address, PORT, str(free_pool(taken(members))))


def add_node(engine: Engine, member: Member, managers: Sequence[str]) -> None:
    """Join a machine to the Swarm in its role; an interrupted join is restarted."""
    own = member.engine
    # This node isn't in the Swarm yet, and nodes of other Swarms were refused: so a membership
    # found here is an interrupted join of our own.
    if membership.membership(own).member:
        own.leave_swarm()
    own.join_swarm(managers, engine.join_token(member.host.role), member.private, PORT)
