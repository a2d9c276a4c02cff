"""Ask the Swarm what the tasks on its nodes hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import docker

from stack.placement.resources import Held, Resources
from stack.swarm import NAMESPACE, STACK

Task = Mapping[str, Any]
# The states in which a task has its node's resources.
HOLDING = {"assigned", "accepted", "preparing", "ready", "starting", "running"}


@dataclass(frozen=True)
class Running:
    """The services of the stack that exist, and what tasks hold of each node, by its id.

    `own` tasks are the stack's, `others` are those of anything else on the Swarm.
    """

    services: frozenset[str] = frozenset()
    own: Mapping[str, Held] = field(default_factory=dict)
    others: Mapping[str, Held] = field(default_factory=dict)


def find_running(client: docker.DockerClient) -> Running:
    """Read what is there to stay: neither tasks that are stopping nor jobs, which end."""
    specs = {str(service.id): service.attrs["Spec"] for service in client.services.list()}
    own = {key: spec["Name"].removeprefix(f"{STACK}_") for key, spec in specs.items()
           if (spec.get("Labels") or {}).get(NAMESPACE) == STACK}
    tasks = [task for task in client.api.tasks()
             if task["DesiredState"] == "running" and task["Status"]["State"] in HOLDING]
    return Running(frozenset(own.values()),
                   _on_each_node((task for task in tasks if _service(task) in own), specs),
                   _on_each_node((task for task in tasks if _service(task) not in own), specs))


def _service(task: Task) -> str:
    """Return its service's id; a container on an attachable network is a task without one."""
    return task.get("ServiceID") or ""


def _on_each_node(tasks: Iterable[Task], specs: Mapping[str, Any]) -> dict[str, Held]:
    total: dict[str, Held] = {}
    for task in tasks:
        held = Held(Resources.read((task["Spec"].get("Resources") or {}).get("Reservations")),
                    _host_ports(specs.get(_service(task), {})))
        total[task["NodeID"]] = total.get(task["NodeID"], Held()) + held
    return total


def _host_ports(spec: Mapping[str, Any]) -> frozenset[str]:
    ports = (spec.get("EndpointSpec") or {}).get("Ports") or []
    return frozenset(f"{port['PublishedPort']}/{port['Protocol']}" for port in ports
                     if port.get("PublishMode") == "host" and port.get("PublishedPort"))
