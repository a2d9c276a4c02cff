"""Show what runs."""

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from stack import console, engine, lock, records, rollout, swarm
from stack.errors import OperatorError, Refused, raise_all
from stack.progress import Progress, progress
from stack.target import Target

RUNNING = "running"


@dataclass(frozen=True)
class Row:
    """One service, as a line of the table."""

    name: str
    tasks: str
    image: str
    state: str

    @classmethod
    def of(cls, now: Progress, spec: dict[str, Any] | None) -> "Row":
        """Tell how a service is; the last release had it, even if it is gone now."""
        if spec is None:
            return cls(now.name, "-", "-", "missing")
        return cls(now.name, f"{now.running}/{now.wanted}",
                   spec["TaskTemplate"]["ContainerSpec"]["Image"],
                   now.broken or (RUNNING if now.settled else "not settled"))


@engine.in_one_line
def status() -> None:
    """Print the release, the nodes, the services and their tasks; exit 1 unless all is well."""
    target = Target.reach("./fab status")
    history = records.history(target.client)
    running = records.definitions(target.client)
    names = sorted(running.keys() | (history[0].stack.services.keys() if history else set()))
    if not names:
        raise Refused("nothing is deployed here", "./fab deploy")
    found = [Row.of(now, running.get(now.name)) for now in progress(target.client, names)]
    serving = versions_served(target, history)
    proven = history[0].version if history else "none proven yet"
    console.say(f"release  {proven}")
    console.say(f"serving  {', '.join(sorted(set(serving.values())))}")
    console.say(f"lock     {lock.describe(lock.holder(target.client))}")
    if not target.fleet.local:
        console.table(node_table(target))
    console.table(service_table(found))
    complain(target, found, serving, proven)


def versions_served(target: Target, history: list[records.Record]) -> dict[str, str]:
    """Return what each edge node serves."""
    port = history[0].stack.http_port if history else target.settings.http_port
    try:
        return {host: rollout.serving_version(host, port) for host in target.edges()}
    except Refused:
        return {"no edge node": "nothing"}


def service_table(rows: list[Row]) -> Table:
    table = Table("service", "tasks", "image", "state", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.name, row.tasks, row.image, row.state)
    return table


def node_table(target: Target) -> Table:
    """Return the Swarm's nodes, also those of which the inventory knows nothing."""
    table = Table("node", "machine", "role", "state", "availability", "holds", box=None,
                  pad_edge=False)
    hosts = target.hosts()
    for node in sorted(target.client.nodes.list(), key=lambda each: hosts.get(str(each.id), "~")):
        manager = node.attrs.get("ManagerStatus") or {}
        role = "leader" if manager.get("Leader") else node.attrs["Spec"]["Role"]
        held = (node.attrs["Spec"].get("Labels") or {}).items()
        table.add_row(node.attrs["Description"]["Hostname"], hosts.get(str(node.id), "-"), role,
                      node.attrs["Status"]["State"], node.attrs["Spec"]["Availability"],
                      ", ".join(sorted(name for name, value in held if value == "true")))
    return table


def complain(target: Target, rows: list[Row], serving: dict[str, str], proven: str) -> None:
    """Raise a line for everything that isn't as it should be."""
    errors: list[OperatorError] = list(target.fleet.missing.values())
    errors += [Refused(f"not as wanted: {row.name} ({row.state})",
                       f"docker service ps --no-trunc {swarm.STACK}_{row.name}")
               for row in rows if row.state != RUNNING]
    errors += [Refused(f"{host} serves {found} instead of the proven release", "./fab deploy")
               for host, found in serving.items() if found != proven]
    raise_all(errors)
