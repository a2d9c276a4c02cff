"""Drain, activate and remove nodes without losing a request."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stack import console, progress, waiting
from stack.bootstrap import firewall
from stack.commands.one_line import in_one_line
from stack.engine.connection import NoAnswer
from stack.engine.engine import Engine
from stack.errors import OperatorError, Refused
from stack.machines import docker_command
from stack.machines.ssh import Gone
from stack.progress import step
from stack.release import probe, rollout
from stack.release.failure import show_cause
from stack.release.target import Target
from stack.state import lock, releases
from stack.swarm import nodes
from stack.swarm.fleet import AnyManager, Member
from stack.swarm.nodes import Node, set_availability
from stack.swarm.services import allow, elsewhere, has_task
from stack.swarm.stackfile import Stack

# Labels of nodes with a volume that exists nowhere else, and what is in it.
PINNED = {"postgres": "the database", "registry": "the images"}
LEFT = 60.0  # seconds until a node that left has to be known as gone


@in_one_line
def drain(name: str, gap: bool) -> None:
    """Move a node's tasks to others; with `gap`, also stop what can run nowhere else."""
    target = Target.reach("./fab node.drain")
    with lock.hold(target.engine):
        node = find(target, name)
        if not gap:
            require_movable(node, "--gap stops it until ./fab node.activate")
            require_other_edge(target, node)
        with watched(target, node):
            empty(target, node)
    console.say(f"{name} is drained and serves no visitors; to undo: ./fab node.activate {name}")


@in_one_line
def activate(name: str) -> None:
    """Return a drained node to service."""
    target = Target.reach("./fab node.activate")
    with lock.hold(target.engine):
        node = find(target, name)
        with step("availability") as current:
            if set_availability(target.engine, node.id, "active"):
                current.changed("active")
        if latest := releases.newest(target.engine):
            with step("tasks") as current:
                # An interrupted drain may have left these.
                if allowed := [name for name in movable(latest.stack)
                               if allow(target.engine, name, node.id)]:
                    current.changed(f"{' and '.join(allowed)} allowed there again")
            settle(target, latest.stack)


@in_one_line
def remove(name: str) -> None:
    """Remove a node: empty it, demote it, take it out of the Swarm."""
    target = Target.reach("./fab node.remove")
    with lock.hold(target.engine):
        node = find(target, name)
        require_movable(node, "nothing was changed: it has to stay")
        require_other_edge(target, node)
        require_majority(nodes.all_nodes(target.engine), node)
        member = target.members().get(node.id)
        look_elsewhere(target, member)
        with watched(target, node):
            empty(target, node)
        demote(target.engine, node)
        leave(target, node, member)
    console.say(f"{name} has left the Swarm: remove it from the inventory too (keep 1, 3 or 5 "
                "managers)")


def find(target: Target, name: str) -> Node:
    """Return the node of a machine, a host name, an address or the beginning of an id."""
    members = target.members()
    # Also of a machine that is lost.
    private = {missing.host: str(missing.private) for missing in target.fleet.missing}
    found = [node for node in nodes.all_nodes(target.engine) if name in {
        node.hostname, node.address, members[node.id].name if node.id in members else ""}
        or private.get(name) == node.address
        or len(name) >= 6 and node.id.startswith(name)]
    if len(found) > 1:
        raise Refused(f"{name} matches {len(found)} nodes",
                      "choose one of: " + ", ".join(node.id[:12] for node in found))
    if not found:
        raise Refused(f"{name} isn't a node", "./fab status lists them")
    return found[0]


def require_movable(node: Node, remedy: str) -> None:
    """Refuse to empty a node with a volume that is pinned to it."""
    for label, what in PINNED.items():
        if node.has(label):
            raise Refused(f"{node.hostname} holds {what}, which can't move", remedy)


def require_other_edge(target: Target, leaving: Node) -> None:
    """Refuse to empty the last node that serves visitors."""
    if leaving.serves_visitors and not any(
            node.serves_visitors for node in nodes.all_nodes(target.engine)
            if node.id != leaving.id):
        raise Refused(f"{leaving.hostname} is the only node that serves "
                      "visitors", 'give another one the label edge: "true" and ./fab bootstrap')


def require_majority(all_nodes: Sequence[Node], leaving: Node) -> None:
    """Refuse to remove a manager if the others would lose their quorum."""
    if not leaving.manages:
        return
    staying = [node.reachability for node in all_nodes if node.manages and node.id != leaving.id]
    reachable = staying.count("reachable")
    if reachable <= len(staying) / 2:
        raise Refused(f"only {reachable} of the other {len(staying)} managers can be reached, and "
                      "a majority must remain", "bring them back first, or add managers")


def look_elsewhere(target: Target, member: Member | None) -> None:
    """Ask another manager from now on, before this one is demoted."""
    if member and isinstance(target.machine, AnyManager):
        target.machine.avoid(member)
        # Its connections would stay with the manager that they were opened to.
        target.engine.close()


@contextmanager
def watched(target: Target, node: Node) -> Iterator[None]:
    """Watch the site at the other edge nodes, as their visitors do."""
    latest, own = releases.newest(target.engine), target.hosts().get(node.id)
    hosts = target.hosts()
    others = [hosts[each.id] for each in nodes.all_nodes(target.engine)
              if each.serves_visitors and hosts.get(each.id, own) != own]
    if latest is None or not others:
        yield
        return
    with probe.watching(others, latest.stack.http_port) as watch:
        yield
    with step("probe") as current:
        current.found(str(watch.report()))


def empty(target: Target, node: Node) -> None:
    """Start tasks elsewhere, then stop those on the node, and wait until all is steady.

    Draining alone would stop a task before there is another in its place.
    """
    latest = releases.newest(target.engine)
    if latest and node.state == "ready":
        with step("tasks") as current:
            current.doing("starting them elsewhere")
            if moved := move_away(target, latest.stack, node.id):
                current.changed(f"{' and '.join(moved)} moved to other nodes")
    with step("availability") as current:
        if set_availability(target.engine, node.id, "drain"):
            current.changed("drained")
    if latest:
        settle(target, latest.stack, without=node)


def move_away(target: Target, stack: Stack, node_id: str) -> list[str]:
    """Have services that may run anywhere start on other nodes first; return which did."""
    moved = []
    for name in movable(stack):
        if has_task(target.engine, name, node_id):
            with elsewhere(target.engine, name, node_id):
                wait_moved(target, stack.only(name), name, node_id)
            moved.append(name)
    return moved


def movable(stack: Stack) -> list[str]:
    """Return the services that may run on any node."""
    return [name for name, service in stack.services.items()
            if service["deploy"].get("mode") != "global"
            and "constraints" not in service["deploy"].get("placement", {})]


def wait_moved(target: Target, service: Stack, name: str, node_id: str) -> None:
    """Wait until a service has left a node and has all its tasks; raises OperatorError."""
    try:
        if not waiting.until(lambda: not has_task(target.engine, name, node_id),
                             target.settings.deploy_timeout):
            raise rollout.NotArrived("its tasks found no other node")
        rollout.wait(target.engine, target.machine, service, target.settings.deploy_timeout, held=0)
    except rollout.NotArrived as failure:
        show_cause(target, failure)
        raise OperatorError(f"{name} could not move: {failure.cause}; the node was not drained",
                            "./fab status") from failure


def settle(target: Target, stack: Stack, without: Node | None = None) -> None:
    """Wait until every service has all the tasks that it should have."""
    # With --gap, what could run on this node alone has no task now.
    stopped = {"postgres"} if without and without.has("postgres") else set()
    if not any(node.serves_visitors for node in nodes.all_nodes(target.engine)):
        stopped.add("traefik")
    names = [name for name in stack.services if name not in stopped]
    with step("settled") as current:
        try:
            rollout.wait(target.engine, target.machine, stack.only(*names),
                         target.settings.deploy_timeout)
        except rollout.NotArrived as failure:
            show_cause(target, failure)
            raise OperatorError(f"the tasks didn't settle: {failure.cause}",
                                "./fab status") from failure
        current.found("every service has all of its tasks")


def demote(engine: Engine, node: Node) -> None:
    """Make a worker of a manager."""
    if node.manages:
        with step("role") as current:
            if nodes.demote(engine, node.id):
                current.changed("demoted")


def leave(target: Target, node: Node, member: Member | None) -> None:
    """Let a machine leave the Swarm if it can be reached, then remove its node."""
    with step("node") as current:
        if member:
            try:
                # After an interruption it may already have left.
                if member.membership().member:
                    docker_command.must(member.machine, "swarm", "leave", "--force")
            except (Gone, NoAnswer) as error:
                progress.note(f"{error.cause}; it still believes that it is a node")
        if not waiting.until(lambda: nodes.inspect(target.engine, node.id).state != "ready", LEFT):
            raise OperatorError("the node is still listed, though it has left",
                                f"docker node rm --force {node.id}")
        target.engine.nodes.remove(node.id, force=True)
        current.changed("removed")
    for other in target.fleet.members:
        if other is not member:
            firewall.forget(other, node.address)
