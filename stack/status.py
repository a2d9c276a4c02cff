"""Show what runs, and its logs."""

import os

from rich.table import Table

from stack import console, engine, lock, records, rollout, swarm
from stack.errors import Refused
from stack.release import Target


@engine.in_one_line
def status() -> None:
    """Print the release, the services and their tasks; exit 1 unless all is well."""
    target = Target.local("./fab status")
    swarm.require_manager(target.client)
    history = records.history(target.client)
    names = sorted(records.spec_hashes(target.client))
    if not names:
        raise Refused("nothing is deployed here", "./fab deploy")
    table = Table("service", "tasks", "image", "state", box=None, pad_edge=False)
    ailing = []
    for name in names:
        now = rollout.progress(target.client, name)
        image = target.client.api.inspect_service(f"{swarm.STACK}_{name}")[
            "Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        state = now.broken or ("running" if now.settled else "not settled")
        table.add_row(name, f"{now.running}/{now.wanted}", image, state)
        if not now.settled:
            ailing.append(name)
    port = target.settings.http_port
    console.say(f"release  {history[0].version if history else 'none proven yet'}")
    console.say(f"serving  {rollout.serving_version(port)}")
    console.say(f"lock     {lock.holder(target.client) or 'free'}")
    console.OUT.print(table)
    if ailing:
        raise Refused(f"not as wanted: {', '.join(ailing)}", f"./fab logs {ailing[0]}")


@engine.in_one_line
def logs(service: str, follow: bool, lines: int) -> None:
    """Become `docker service logs` for one service of the stack."""
    target = Target.local("./fab logs")
    swarm.require_manager(target.client)
    names = sorted(records.spec_hashes(target.client))
    if service not in names:
        raise Refused(f"there is no service {service!r}",
                      f"choose one of: {', '.join(names) or 'none, ./fab deploy first'}")
    options = [f"--tail={lines}"] + (["--follow"] if follow else [])
    command = target.cli.service_logs(*options, f"{swarm.STACK}_{service}")
    os.execvp(command[0], command)
