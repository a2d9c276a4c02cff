"""Say which services' tasks an update replaces, and whether visitors notice."""

from collections.abc import Iterable, Mapping
from typing import Any

from stack.release.plan.diff import Difference, compare
from stack.swarm.stackfile import Stack

# Keys of a service in a stack file that say how Swarm manages it, not what a task is.
AROUND_TASKS = ("deploy.labels", "deploy.mode", "deploy.replicas", "deploy.rollback_config",
                "deploy.update_config")
# Where a task may run: a task stays if its node still fits.
PLACEMENT = "deploy.placement"
# Fields of Docker's service definition: Swarm replaces tasks if one of these changes.
OF_A_TASK = ("TaskTemplate", "EndpointSpec")
# Exceptions to them; a stack update doesn't touch the second.
NOT_OF_A_TASK = ("TaskTemplate.Placement", "TaskTemplate.ForceUpdate")
FILES = ("secrets", "configs")


def of(old: Stack, new: Stack, drifted: Mapping[str, Iterable[Difference]]) -> list[str]:
    """Return a line for each existing service whose tasks are replaced.

    `drifted` holds each service's manual changes since it was proven.
    """
    lines = []
    for name, service in new.services.items():
        if name not in old.services:
            continue
        changed = compare(_whole(old, name), _whole(new, name))
        if replaces(changed) or reverts(drifted.get(name, ())):
            lines.append(f"{name}: {gap(service)}")
        elif any(difference.within(PLACEMENT) for difference in changed):
            lines.append(f"{name}: only tasks whose node no longer fits will move")
    return lines


def _whole(stack: Stack, name: str) -> dict[str, Any]:
    """Return a service with its secrets and configs: a rotated one is a change."""
    service = stack.services[name]
    uses = {section: [use["source"] if isinstance(use, dict) else use
                      for use in service.get(section) or []] for section in FILES}
    return {**service, "uses": {section: {use: stack.content[section][use] for use in used}
                                for section, used in uses.items()}}


def replaces(changed: Iterable[Difference]) -> bool:
    """Return whether changes to a stack file's service make Swarm replace its tasks."""
    return any(not difference.within(*AROUND_TASKS, PLACEMENT) for difference in changed)


def reverts(drifted: Iterable[Difference]) -> bool:
    """Return whether undoing changes to Docker's definition makes Swarm replace the tasks."""
    return any(difference.within(*OF_A_TASK) and not difference.within(*NOT_OF_A_TASK)
               for difference in drifted)


def gap(service: Mapping[str, Any]) -> str:
    """Say how a service's tasks are replaced, and how visitors are affected.

    Swarm's defaults apply to unset keys: one replica, one at a time, stop-first.
    """
    deploy = service.get("deploy") or {}
    update = deploy.get("update_config") or {}
    if update.get("order") == "start-first":
        return "new tasks start first, no gap"
    at_once = int(update.get("parallelism", 1))
    nodes = "one node at a time" if at_once else "all nodes at once"
    if _owns_ports(service):
        refusing = "each node in turn refuses" if at_once else "all nodes at once refuse"
        return f"{refusing} connections for about a second"
    if deploy.get("mode") == "global":
        return f"{nodes}, old tasks stop first"
    replicas = int(deploy.get("replicas", 1))
    if 0 < at_once < replicas:
        return f"{at_once} of {replicas} tasks at a time while the others serve, no gap"
    return "old tasks stop first, pages return 503 for a few seconds"


def _owns_ports(service: Mapping[str, Any]) -> bool:
    """Return whether its tasks use host ports, which two tasks can't share."""
    return any(isinstance(port, dict) and port.get("mode") == "host"
               for port in service.get("ports") or [])
