"""Get to a machine, or into a service's container, with a terminal."""

import os
import shutil
import sys
from typing import NoReturn

from stack import engine, fleet, records
from stack.errors import Refused
from stack.fleet import Member
from stack.remote import RemoteMachine
from stack.swarm import STACK
from stack.target import Target


@engine.in_one_line
def ssh(name: str, command: str) -> None:
    """Log in to a machine, or run a command there, by the ssh that is installed here."""
    # Neither Docker nor the Swarm has to work for this.
    machines = fleet.reach(partly=True)
    if machines.local:
        raise Refused("there is no inventory, so this machine is the only one",
                      "open a terminal on it")
    for member in machines.members:
        if name in {member.name, member.private}:
            become(member, command, terminal=not command)
    names = ", ".join(member.name for member in machines.members)
    raise Refused(f"{name} isn't a machine that can be reached", f"choose one of: {names}")


@engine.in_one_line
def execute(service: str, command: str) -> None:
    """Run a command in a container of a service, on whichever node it is."""
    target = Target.reach("./fab exec")
    records.require_service(target.client, service)
    member, container = container_of(target, service)
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    options = "--interactive --tty" if terminal else "--interactive"
    become(member, f"{sudo(member)}docker exec {options} {container} {command}", terminal)


def container_of(target: Target, service: str) -> tuple[Member, str]:
    """Return a running container of a service, and the machine that it is on."""
    members = target.members()
    for task in target.client.api.tasks(filters={
            "service": f"{STACK}_{service}", "desired-state": "running"}):
        if task["Status"]["State"] == "running" and task.get("NodeID") in members:
            container: str = task["Status"]["ContainerStatus"]["ContainerID"]
            return members[task["NodeID"]], container
    raise Refused(f"no task of {service} runs on a machine that can be reached", "./fab status")


def sudo(member: Member) -> str:
    """Return what a command needs before it to be root's there."""
    machine = member.machine
    return "sudo -n " if isinstance(machine, RemoteMachine) and machine.user != "root" else ""


def become(member: Member, command: str, terminal: bool) -> NoReturn:
    """Replace this program by the command, there; an empty one is a login."""
    line = ["sh", "-c", command]
    if isinstance(member.machine, RemoteMachine):
        if not shutil.which("ssh"):
            raise Refused("there is no ssh command here", "install OpenSSH's client")
        line = [*member.machine.ssh_command(terminal), *([command] if command else [])]
        member.machine.close()
    sys.stdout.flush()
    os.execvp(line[0], line)
