"""Install a service that removes the network interfaces which Docker loses on restart.

A stale interface keeps its network's number. No task of that network starts on the machine until
the interface is removed (moby/libnetwork#1765).
"""

from stack.inventory.settings import ROOT
from stack.machines.machine import Machine

NAME = "tally-overlay"
SERVICES = ROOT / "stack/bootstrap/systemd"
SCRIPT, UNIT = f"/usr/local/sbin/{NAME}", f"/etc/systemd/system/{NAME}.service"
# One command, since each costs a session and a sudo over SSH.
STATE = 'cat "$1" "$2"; systemctl is-enabled "$3"; systemctl is-active "$3"'


def ensure(machine: Machine) -> bool:
    """Install and start the service that does it, on a machine with systemd.

    Returns whether anything was changed.
    """
    script, unit = ((SERVICES / name).read_text() for name in (NAME, f"{NAME}.service"))
    state = machine.run(["sh", "-c", STATE, "state", SCRIPT, UNIT, NAME])
    if state.stdout == f"{script}{unit}enabled\nactive\n":
        return False
    # Disabled until it is complete, so that the next run notices an interruption.
    machine.run(["systemctl", "disable", "--now", NAME])
    machine.write(SCRIPT, script, "0755")
    machine.must(["chmod", "0755", SCRIPT])
    machine.write(UNIT, unit)
    machine.must(["systemctl", "daemon-reload"])
    machine.must(["systemctl", "enable", "--now", NAME])
    return True
