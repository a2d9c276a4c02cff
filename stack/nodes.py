"""Take nodes out of service, bring them back, and let them go, without losing a request."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests

from stack import console, engine, joining, lock, logs, peers, probe, records, rollout
from stack.console import step
from stack.definition import Stack
from stack.errors import OperatorError, Refused
from stack.fleet import AnyManager, Member
from stack.records import Record
from stack.remote import Gone
from stack.swarm import STACK
from stack.target import Target, serves_visitors

Node = dict[str, Any]
# Labels of nodes with a volume that exists nowhere else, and what is in it.
PINNED = {"postgres": "the database", "registry": "the images"}
TRIES = 5
LEFT = 60.0  # seconds until a node that left has to be known as gone


@engine.in_one_line
def drain(name: str, gap: bool) -> None:
    """Move a node's tasks to others; with `gap`, also stop what can run nowhere else."""
    target = Target.reach("./fab node.drain")
    with lock.hold(target.client):
        node = find(target, name)
        if not gap:
            require_movable(node, "--gap stops it until ./fab node.activate")
            require_other_edge(target, node)
        with watched(target, node):
            empty(target, node)
    console.say(f"{name} has no tasks; it answers no visitors until ./fab node.activate {name}")


@engine.in_one_line
def activate(name: str) -> None:
    """Let a node have tasks again."""
    target = Target.reach("./fab node.activate")
    with lock.hold(target.client):
        node = find(target, name)
        with step("availability") as current:
            if set_availability(target.client, node["ID"], "active"):
                current.changed("active")
        if latest := newest(target):
            with step("tasks") as current:
                # What a drain that was broken off has left.
                if allowed := [name for name in movable(latest.stack)
                               if allow(target.client, name, node["ID"])]:
                    current.changed(f"{' and '.join(allowed)} may run there again")
            settle(target, latest.stack)


@engine.in_one_line
def remove(name: str) -> None:
    """Let a node go for good: empty it, demote it, take it out of the Swarm."""
    target = Target.reach("./fab node.remove")
    with lock.hold(target.client):
        node = find(target, name)
        require_movable(node, "nothing was changed: it has to stay")
        require_other_edge(target, node)
        require_majority(target.client.api.nodes(), node)
        member = target.members().get(node["ID"])
        look_elsewhere(target, member)
        with watched(target, node):
            empty(target, node)
        demote(target.client, node)
        leave(target, node, member)
    console.say(f"{name} is no node any more: take it out of the inventory as well, which has to "
                "have 1, 3 or 5 managers")


def find(target: Target, name: str) -> Node:
    """Return the node of a machine, a host name, an address or the beginning of an id."""
    members, nodes = target.members(), list(target.client.api.nodes())
    # Also of a machine that is lost.
    private = {missing.host: str(missing.private) for missing in target.fleet.missing}
    found = [node for node in nodes if name in {
        node["Description"]["Hostname"], node["Status"].get("Addr"),
        members[node["ID"]].name if node["ID"] in members else ""}
        or private.get(name) == node["Status"].get("Addr")
        or len(name) >= 6 and node["ID"].startswith(name)]
    if len(found) > 1:
        raise Refused(f"{name} is the name of {len(found)} nodes",
                      "say one of: " + ", ".join(node["ID"][:12] for node in found))
    if not found:
        raise Refused(f"{name} isn't a node", "./fab status lists them")
    node: Node = found[0]
    return node


def require_movable(node: Node, remedy: str) -> None:
    """Refuse to empty a node with a volume that is pinned to it."""
    labels = node["Spec"].get("Labels") or {}
    for label, what in PINNED.items():
        if labels.get(label) == "true":
            raise Refused(f"{node['Description']['Hostname']} holds {what}, which can't move",
                          remedy)


def require_other_edge(target: Target, leaving: Node) -> None:
    """Refuse to empty the last node that answers visitors."""
    nodes = target.client.api.nodes()
    if serves_visitors(leaving) and not any(
            serves_visitors(node) for node in nodes if node["ID"] != leaving["ID"]):
        raise Refused(f"{leaving['Description']['Hostname']} is the only node that answers "
                      "visitors", 'give another one the label edge: "true" and ./fab bootstrap')


def require_majority(nodes: list[Node], leaving: Node) -> None:
    """Refuse to let a manager go without which the others couldn't decide anything."""
    if "ManagerStatus" not in leaving:
        return
    staying = [node["ManagerStatus"]["Reachability"] for node in nodes
               if "ManagerStatus" in node and node["ID"] != leaving["ID"]]
    reachable = staying.count("reachable")
    if reachable <= len(staying) / 2:
        raise Refused(f"only {reachable} of the other {len(staying)} managers can be reached, and "
                      "a majority has to be left", "bring them back first, or add managers")


def look_elsewhere(target: Target, member: Member | None) -> None:
    """Ask another manager from now on than the one that is about to be none."""
    if member and isinstance(target.machine, AnyManager):
        target.machine.avoid(member)
        # Its connections would stay with the manager that they were opened to.
        target.client.close()


@contextmanager
def watched(target: Target, node: Node) -> Iterator[None]:
    """Watch the site as visitors of the other edge nodes meanwhile."""
    latest, own = newest(target), target.hosts().get(node["ID"])
    hosts, nodes = target.hosts(), target.client.api.nodes()
    others = [hosts[each["ID"]] for each in nodes if serves_visitors(each)
              and hosts.get(each["ID"], own) != own]
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
    latest = newest(target)
    if latest and node["Status"]["State"] == "ready":
        with step("tasks") as current:
            current.doing("starting them elsewhere")
            if moved := move_away(target, latest.stack, node["ID"]):
                current.changed(f"{' and '.join(moved)} moved to other nodes")
    with step("availability") as current:
        if set_availability(target.client, node["ID"], "drain"):
            current.changed("drained")
    if latest:
        settle(target, latest.stack, without=node)


def move_away(target: Target, stack: Stack, node_id: str) -> list[str]:
    """Have services that may run anywhere start on other nodes first; return which did."""
    moved = []
    for name in movable(stack):
        if has_task(target.client, name, node_id):
            with elsewhere(target.client, name, node_id):
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
    deadline = time.monotonic() + target.settings.deploy_timeout
    try:
        while has_task(target.client, name, node_id):
            if time.monotonic() > deadline:
                raise rollout.NotArrived("its tasks found no other node")
            time.sleep(0.5)
        rollout.wait(target.client, target.machine, service, target.settings.deploy_timeout, held=0)
    except rollout.NotArrived as failure:
        logs.tell_cause(target, failure)
        raise OperatorError(f"{name} could not move: {failure.cause}; the node was not drained",
                            "./fab status") from failure


@contextmanager
def elsewhere(client: docker.DockerClient, name: str, node_id: str) -> Iterator[None]:
    """Forbid a service one node for a while; its tasks there are replaced start-first.

    Allowing it again restarts nothing: every task is on a node that fits.
    """
    forbidden = f"node.id!={node_id}"
    constrain(client, name, lambda constraints: [*constraints, forbidden])
    try:
        yield
    finally:
        allow(client, name, node_id)


def allow(client: docker.DockerClient, name: str, node_id: str) -> bool:
    """Let a service run on a node again; tell whether that was forbidden."""
    return constrain(client, name, lambda constraints: [
        each for each in constraints if each != f"node.id!={node_id}"])


def constrain(client: docker.DockerClient, name: str,
              change: Callable[[list[str]], list[str]]) -> bool:
    """Change a service's constraints and nothing else of it; tell whether that was needed.

    Again, if Swarm or somebody else changed it meanwhile.
    """
    for _ in range(TRIES):
        service = client.api.inspect_service(f"{STACK}_{name}")
        template = service["Spec"]["TaskTemplate"]
        placement = template.get("Placement", {})
        before = placement.get("Constraints") or []
        if (after := change(before)) == before:
            return False
        kept = {key: value for key, value in placement.items() if key != "Constraints"}
        wanted = {**kept, "Constraints": after} if after else kept
        try:
            engine.redefine(client, f"services/{STACK}_{name}", {**service, "Spec": {
                **service["Spec"], "TaskTemplate": {**template, "Placement": wanted}}})
            return True
        except requests.HTTPError as error:
            if error.response is None or "out of sequence" not in error.response.text:
                raise
    raise OperatorError(f"{name} was changed again and again meanwhile", "./fab status")


def has_task(client: docker.DockerClient, name: str, node_id: str) -> bool:
    return bool(client.api.tasks(filters={
        "service": f"{STACK}_{name}", "node": node_id, "desired-state": "running"}))


def settle(target: Target, stack: Stack, without: Node | None = None) -> None:
    """Wait until every service has all the tasks that it should have."""
    labels = ((without or {}).get("Spec", {}).get("Labels") or {})
    # With --gap, what could run on this node alone has no task now.
    stopped = {"postgres"} if labels.get("postgres") == "true" else set()
    if not any(serves_visitors(node) for node in target.client.api.nodes()):
        stopped.add("traefik")
    names = [name for name in stack.services if name not in stopped]
    with step("settled") as current:
        try:
            rollout.wait(target.client, target.machine, stack.only(*names),
                         target.settings.deploy_timeout)
        except rollout.NotArrived as failure:
            logs.tell_cause(target, failure)
            raise OperatorError(f"the tasks didn't settle: {failure.cause}",
                                "./fab status") from failure
        current.found("every service has all of its tasks")


def set_availability(client: docker.DockerClient, node_id: str, wanted: str) -> bool:
    """Set a node's availability; tell whether it had another."""
    node = client.nodes.get(node_id)
    if node.attrs["Spec"]["Availability"] == wanted:
        return False
    node.update({**node.attrs["Spec"], "Availability": wanted})
    return True


def demote(client: docker.DockerClient, node: Node) -> None:
    """Make a worker of a manager."""
    if "ManagerStatus" in node:
        with step("role") as current:
            if joining.demote(client, node["ID"]):
                current.changed("demoted")


def leave(target: Target, node: Node, member: Member | None) -> None:
    """Let a machine leave, if it can be reached, and forget its node."""
    with step("node") as current:
        if member:
            try:
                # It has left already, if this was broken off before.
                if member.membership().member:
                    member.machine.must(["docker", "swarm", "leave", "--force"])
            except Gone as error:
                console.say(f"  note           {error.cause}; it still thinks it is a node")
        deadline = time.monotonic() + LEFT
        while target.client.api.inspect_node(node["ID"])["Status"]["State"] == "ready":
            if time.monotonic() > deadline:
                raise OperatorError("the node is still there, though it has left",
                                    f"docker node rm --force {node['ID']}")
            time.sleep(0.3)
        target.client.api.remove_node(node["ID"], force=True)
        current.changed("removed")
    for other in target.fleet.members:
        if other is not member:
            peers.forget(other, str(node["Status"].get("Addr", "")))


def newest(target: Target) -> Record | None:
    return next(iter(records.history(target.client)), None)
