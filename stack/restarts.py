"""Say which services have their tasks replaced by an update, and whether visitors notice."""

from collections.abc import Iterable, Mapping
from typing import Any

from stack.definition import Stack
from stack.differences import Difference, compare

# Of a service in a stack file: how Swarm treats it, not what a task is.
AROUND_TASKS = ("deploy.labels", "deploy.mode", "deploy.replicas", "deploy.rollback_config",
                "deploy.update_config")
# Where a task may run: one whose node still fits stays.
PLACEMENT = "deploy.placement"
# Of a service as Docker holds it: Swarm replaces a task that differs in one of these.
OF_A_TASK = ("TaskTemplate", "EndpointSpec")
# But not in these; a stack's update leaves the second as it finds it.
NOT_OF_A_TASK = ("TaskTemplate.Placement", "TaskTemplate.ForceUpdate")
FILES = ("secrets", "configs")


def of(old: Stack, new: Stack, drifted: Mapping[str, Iterable[Difference]]) -> list[str]:
    """Return a line for each service that goes on, but not with the tasks that it has.

    `drifted` has what was changed in Docker's own definition of each since it was proven.
    """
    lines = []
    for name, service in new.services.items():
        if name not in old.services:
            continue
        changed = compare(_whole(old, name), _whole(new, name))
        if replaces(changed) or reverts(drifted.get(name, ())):
            lines.append(f"{name}: {gap(service)}")
        elif any(difference.within(PLACEMENT) for difference in changed):
            lines.append(f"{name}: only tasks whose node doesn't fit any more move")
    return lines


def _whole(stack: Stack, name: str) -> dict[str, Any]:
    """Return a service with the secrets and configs that it uses: one that rotates is another."""
    service = stack.services[name]
    uses = {section: [use["source"] if isinstance(use, dict) else use
                      for use in service.get(section) or []] for section in FILES}
    return {**service, "uses": {section: {use: stack.content[section][use] for use in used}
                                for section, used in uses.items()}}


def replaces(changed: Iterable[Difference]) -> bool:
    """Tell whether changes to a stack file's service make Swarm replace its tasks."""
    return any(not difference.within(*AROUND_TASKS, PLACEMENT) for difference in changed)


def reverts(drifted: Iterable[Difference]) -> bool:
    """Tell whether undoing changes to Docker's definition makes Swarm replace the tasks."""
    return any(difference.within(*OF_A_TASK) and not difference.within(*NOT_OF_A_TASK)
               for difference in drifted)


def gap(service: Mapping[str, Any]) -> str:
    """Say how a service's tasks are replaced, and what visitors miss meanwhile.

    Swarm's defaults hold for what isn't said: one replica, one at a time, stop-first.
    """
    deploy = service.get("deploy") or {}
    update = deploy.get("update_config") or {}
    if update.get("order") == "start-first":
        return "new tasks before old ones, no gap"
    at_once = int(update.get("parallelism", 1))
    nodes = "one node after the other" if at_once else "all nodes at once"
    if _owns_ports(service):
        return f"{nodes} refuses visitors for about a second" if at_once \
            else f"{nodes} refuse visitors for about a second"
    if deploy.get("mode") == "global":
        return f"{nodes}, old tasks before new ones"
    replicas = int(deploy.get("replicas", 1))
    if 0 < at_once < replicas:
        return f"{at_once} of {replicas} tasks at a time while the others serve, no gap"
    return "old tasks before new ones, pages are 503 for some seconds"


def _owns_ports(service: Mapping[str, Any]) -> bool:
    """Tell whether its tasks hold ports of their nodes, which two can't at a time."""
    return any(isinstance(port, dict) and port.get("mode") == "host"
               for port in service.get("ports") or [])
