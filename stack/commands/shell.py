"""Get to a machine, or into a service's container, with a terminal."""

import os
import shlex
import sys
from typing import NoReturn

from stack import console
from stack.commands.one_line import in_one_line
from stack.errors import Refused
from stack.machines import docker_command
from stack.machines.ssh import RemoteMachine
from stack.release.target import Target
from stack.swarm import fleet, services
from stack.swarm.fleet import Member
from stack.swarm.names import STACK
from stack.swarm.tasks import find_tasks


@in_one_line
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


@in_one_line
def execute(service: str, command: str) -> None:
    """Run a command in a container of a service, on whichever node it is."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if not terminal:
        # It belongs to the command.
        console.leave_stdout()
    target = Target.reach("./fab exec")
    services.require_service(target.engine, service)
    enter(*container_of(target, service), command, terminal)


def enter(member: Member, container: str, command: str, terminal: bool) -> NoReturn:
    """Run a command in a container there, and end with its exit code."""
    options = ["--interactive", "--tty"] if terminal else ["--interactive"]
    words = docker_command.words(member.machine, "exec", *options, container)
    line = f"{shlex.join(words)} {command}"
    if isinstance(member.machine, RemoteMachine) and not terminal:
        # The output is the command's alone, whatever the login there prints before it.
        with open(0, "rb", buffering=0, closefd=False) as stdin, \
                open(1, "wb", closefd=False) as stdout, open(2, "wb", closefd=False) as stderr:
            sys.exit(member.machine.pass_through(["sh", "-c", line], stdin, stdout, stderr))
    become(member, f"{sudo(member)}{line}", terminal)


def container_of(target: Target, service: str) -> tuple[Member, str]:
    """Return a running container of a service, and the machine that it is on."""
    members = target.members()
    for task in find_tasks(target.engine, {"service": f"{STACK}_{service}"}):
        if task.runs and task.node in members:
            return members[task.node], task.container
    raise Refused(f"no task of {service} runs on a machine that can be reached", "./fab status")


def sudo(member: Member) -> str:
    """Return what a command needs before it to be root's there."""
    machine = member.machine
    return "sudo -n " if isinstance(machine, RemoteMachine) and machine.user != "root" else ""


def become(member: Member, command: str, terminal: bool) -> NoReturn:
    """Replace this program by the command, there; an empty one is a login."""
    line = ["sh", "-c", command]
    if isinstance(member.machine, RemoteMachine):
        line = [*member.machine.ssh_command(terminal), *([command] if command else [])]
        member.machine.close()
    sys.stdout.flush()
    os.execvp(line[0], line)
