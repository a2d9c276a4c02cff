"""Show what runs, and its logs."""

import re
import subprocess
from dataclasses import dataclass

from invoke.exceptions import Exit
from rich.table import Table

from stack import console, engine, lock, records, rollout, swarm
from stack.errors import Refused
from stack.progress import progress
from stack.release import Target

RUNNING = "running"


@dataclass(frozen=True)
class Row:
    """One service, as a line of the table."""

    name: str
    tasks: str
    image: str
    state: str

    @classmethod
    def of(cls, target: Target, name: str, exists: bool) -> "Row":
        """Look at a service; the last release had it, even if it is gone now."""
        if not exists:
            return cls(name, "-", "-", "missing")
        now = progress(target.client, name)
        spec = target.client.api.inspect_service(f"{swarm.STACK}_{name}")["Spec"]
        return cls(name, f"{now.running}/{now.wanted}",
                   spec["TaskTemplate"]["ContainerSpec"]["Image"],
                   now.broken or (RUNNING if now.settled else "not settled"))


@engine.in_one_line
def status() -> None:
    """Print the release, the services and their tasks; exit 1 unless all is well."""
    target = Target.local("./fab status")
    swarm.require_manager(target.client)
    history = records.history(target.client)
    running = records.spec_hashes(target.client).keys()
    names = sorted(running | (history[0].stack.services.keys() if history else set()))
    if not names:
        raise Refused("nothing is deployed here", "./fab deploy")
    table = Table("service", "tasks", "image", "state", box=None, pad_edge=False)
    found = [Row.of(target, name, name in running) for name in names]
    for row in found:
        table.add_row(row.name, row.tasks, row.image, row.state)
    serving = rollout.serving_version(
        history[0].stack.http_port if history else target.settings.http_port)
    proven = history[0].version if history else "none proven yet"
    console.say(f"release  {proven}")
    console.say(f"serving  {serving}")
    console.say(f"lock     {lock.describe(lock.holder(target.client))}")
    console.table(table)
    if ailing := [row.name for row in found if row.state != RUNNING]:
        raise Refused(f"not as wanted: {', '.join(ailing)}",
                      f"docker service ps --no-trunc {swarm.STACK}_{ailing[0]}")
    if serving != proven:
        raise Refused(f"{serving} is served instead of the proven release", "./fab deploy")


@engine.in_one_line
def logs(service: str, follow: bool, lines: str) -> None:
    """Run `docker service logs` for one service of the stack."""
    target = Target.local("./fab logs")
    swarm.require_manager(target.client)
    names = sorted(records.spec_hashes(target.client))
    if service not in names:
        raise Refused(f"there is no service {service!r}",
                      f"choose one of: {', '.join(names) or 'none, ./fab deploy first'}")
    if not re.fullmatch("[0-9]{1,9}|all", lines):
        raise Refused(f"--lines={lines!r}", "it should be a number, or all")
    options = [f"--tail={lines}"] + (["--follow"] if follow else [])
    command = target.cli.service_logs(*options, f"{swarm.STACK}_{service}")
    if code := subprocess.run(command).returncode:
        raise Exit(code=code)
