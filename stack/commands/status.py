"""Show what runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table

from stack import console
from stack.commands import report
from stack.commands.one_line import in_one_line
from stack.errors import OperatorError, Refused, raise_all
from stack.images.base import OLD, SYSTEM, Base
from stack.release import verdict
from stack.release.target import Target
from stack.state import lock, releases
from stack.swarm import names
from stack.swarm.nodes import all_nodes
from stack.swarm.service_state import Progress, progress
from stack.swarm.services import Service, services

NO_EDGE = "no edge"
RUNNING = "running"
# What the report of a status says of its exit code.
OUTCOMES = {0: "all is well", 1: "not all is well"}


@dataclass(frozen=True)
class Row:
    """One service, as a line of the table."""

    name: str
    tasks: str
    image: str
    state: str

    @classmethod
    def of(cls, now: Progress, service: Service | None) -> "Row":
        """Tell how a service is; the last release had it, even if it is gone now."""
        if service is None:
            return cls(now.name, "-", "-", "missing")
        return cls(now.name, f"{now.running}/{now.wanted}", service.image,
                   now.broken or (RUNNING if now.settled else "not settled"))


def status(as_json: bool = False) -> None:
    """Print the release, the nodes, the services and their tasks; exit 1 unless all is well."""
    with report.printed("status", as_json, OUTCOMES):
        _status()


@in_one_line
def _status() -> None:
    target = Target.reach("./fab status")
    history = releases.history(target.engine)
    running = {service.short_name: service for service in services(target.engine)}
    names = sorted(running.keys() | (history[0].stack.services.keys() if history else set()))
    if not names:
        raise Refused("nothing is deployed here", "./fab deploy")
    found = [Row.of(now, running.get(now.name)) for now in progress(target.engine, names)]
    serving = versions_served(target, history)
    proven = history[0].version if history else "none proven yet"
    console.say(f"release  {proven}")
    console.say(f"serving  {', '.join(sorted(set(serving.values())))}")
    base, now = Base.read(target.engine), datetime.now(UTC)
    console.say(f"base     {describe(base, now)}")
    console.fact("version", history[0].version if history else None)
    console.fact("serving", serving)
    console.fact("base", facts(base, now))
    console.say(f"lock     {lock.describe(lock.holder(target.engine))}")
    if not target.fleet.local:
        console.table(node_table(target))
    console.table(service_table(found))
    complain(target, found, serving, proven)


def versions_served(target: Target, history: list[releases.Record]) -> dict[str, str]:
    """Return what each edge node serves."""
    port = history[0].stack.http_port if history else target.settings.http_port
    try:
        return {host: verdict.serving_version(host, port) for host in target.edges()}
    except Refused:
        return {NO_EDGE: "nothing"}


def describe(base: Base | None, now: datetime) -> str:
    """Say how old the base image is, and how to renew an old one."""
    if base is None:
        return "missing: ./fab bootstrap makes it"
    days = base.age(now).days
    said = f"{SYSTEM}, " + ("made today" if days == 0 else f"{days} day{'s' * (days > 1)} old")
    if base.age(now) > OLD:
        return f"{said}; to update it: ./fab bootstrap --renew-base deploy"
    return said


def facts(base: Base | None, now: datetime) -> Mapping[str, str | int] | None:
    """Return what a report says of the base image."""
    return None if base is None else {
        "system": SYSTEM, "renewal": base.renewal, "days": base.age(now).days}


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
    for node in sorted(all_nodes(target.engine), key=lambda each: hosts.get(each.id, "~")):
        table.add_row(node.hostname, hosts.get(node.id, "-"),
                      "leader" if node.leader else node.role, node.state, node.availability,
                      ", ".join(sorted(filter(node.has, node.labels))))
    return table


def complain(target: Target, rows: list[Row], serving: dict[str, str], proven: str) -> None:
    """Raise a line for everything that isn't as it should be."""
    errors: list[OperatorError] = list(target.fleet.missing.values())
    errors += [Refused(f"not as wanted: {row.name} ({row.state})",
                       f"docker service ps --no-trunc {names.STACK}_{row.name}")
               for row in rows if row.state != RUNNING]
    errors += [Refused(f"{host} serves {found} instead of the proven release", "./fab deploy")
               for host, found in serving.items() if found != proven and host != NO_EDGE]
    if NO_EDGE in serving:
        errors.append(Refused("no node with the label edge=true is ready", "docker node ls"))
    raise_all(errors)
