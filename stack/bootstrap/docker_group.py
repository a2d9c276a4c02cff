"""Give Docker's socket the same group ID on every manager: socket-proxy runs with it."""

from collections.abc import Sequence

from stack.errors import Refused
from stack.machines import facts
from stack.machines.docker_command import SOCKET
from stack.swarm.fleet import Member

GROUP = "docker"
# Takes the ID. Docker sets the socket's group by itself only when it restarts.
RENUMBER = f"""
set -eu
groupmod --gid "$1" {GROUP}
chgrp {GROUP} {SOCKET}
"""


def align(managers: Sequence[Member]) -> str:
    """Give the group the same ID on all managers; say where it differed, or return "".

    Raises Refused if another group has that ID on a manager.
    """
    wanted = facts.socket_group(managers[0].machine, SOCKET)
    different = [member for member in managers[1:]
                 if facts.socket_group(member.machine, SOCKET) != wanted]
    for member in different:
        taken = member.machine.run(["getent", "group", str(wanted)])
        if taken.ok:
            raise Refused(f"the group {GROUP} has the ID {wanted} on {managers[0].name}, but on "
                          f"{member.name} that is the ID of {taken.stdout.split(':')[0]}",
                          f"give {GROUP} an ID that is free on all managers, with groupmod")
        member.machine.must(["sh", "-c", RENUMBER, "renumber", str(wanted)])
    names = ", ".join(member.name for member in different)
    return f"GID now {wanted} on {names}, as on the other managers" if names else ""
