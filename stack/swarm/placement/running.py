"""Ask the Swarm what the tasks on its nodes hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stack.engine.engine import Engine
from stack.swarm.placement.resources import Held, Resources
from stack.swarm.services import Service, find_services
from stack.swarm.tasks import Task, find_tasks

# The states in which a task holds its node's resources.
HOLDING = {"assigned", "accepted", "preparing", "ready", "starting", "running"}


@dataclass(frozen=True)
class Committed:
    """The services of the stack that exist, and what tasks hold of each node, by its id.

    `own` tasks are the stack's, `others` are those of anything else on the Swarm.
    """

    services: frozenset[str] = frozenset()
    own: Mapping[str, Held] = field(default_factory=dict)
    others: Mapping[str, Held] = field(default_factory=dict)


def find_running(engine: Engine) -> Committed:
    """Read the lasting tasks: neither stopping ones nor jobs, which end."""
    services = {service.id: service for service in find_services(engine)}
    own = {key: service.short_name for key, service in services.items() if service.of_stack}
    tasks = [task for task in find_tasks(engine)
             if task.desired_state == "running" and task.state in HOLDING]
    return Committed(frozenset(own.values()),
                     _on_each_node((task for task in tasks if task.service in own), services),
                     _on_each_node((task for task in tasks if task.service not in own), services))


def _on_each_node(tasks: Iterable[Task], services: Mapping[str, Service]) -> dict[str, Held]:
    total: dict[str, Held] = {}
    for task in tasks:
        service = services.get(task.service)
        held = Held(Resources.read((task.definition.get("Resources") or {}).get("Reservations")),
                    _host_ports(service.definition if service else {}))
        total[task.node] = total.get(task.node, Held()) + held
    return total


def _host_ports(spec: Mapping[str, Any]) -> frozenset[str]:
    ports = (spec.get("EndpointSpec") or {}).get("Ports") or []
    return frozenset(f"{port['PublishedPort']}/{port['Protocol']}" for port in ports
                     if port.get("PublishMode") == "host" and port.get("PublishedPort"))
