"""Give Docker's socket the same group on every manager: socket-proxy runs with its number."""

from collections.abc import Sequence

from stack import facts
from stack.engine import SOCKET
from stack.errors import Refused
from stack.fleet import Member

GROUP = "docker"
# Given the number; the socket's group follows at once, and by itself after a restart.
RENUMBER = f"""
set -eu
groupmod --gid "$1" {GROUP}
chgrp {GROUP} {SOCKET}
"""


def align(managers: Sequence[Member]) -> str:
    """Number the group on all managers as on the first; return in words where it differed.

    Raises Refused if the number belongs to another group there.
    """
    wanted = facts.socket_group(managers[0].machine, SOCKET)
    different = [member for member in managers[1:]
                 if facts.socket_group(member.machine, SOCKET) != wanted]
    for member in different:
        taken = member.machine.run(["getent", "group", str(wanted)])
        if taken.ok:
            raise Refused(f"the group {GROUP} is {wanted} on {managers[0].name}, and on "
                          f"{member.name} that is {taken.stdout.split(':')[0]}",
                          f"give {GROUP} a number there that is free on all managers: groupmod")
        member.machine.must(["sh", "-c", RENUMBER, "renumber", str(wanted)])
    names = ", ".join(member.name for member in different)
    return f"now number {wanted} on {names}, as on the other managers" if names else ""
