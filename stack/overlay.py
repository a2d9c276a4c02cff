"""Have each machine remove the network interfaces that Docker loses when it is restarted.

A lost one keeps its network's number: from then on no task of that network starts on the machine,
until somebody removes it (moby/libnetwork#1765).
"""

from stack.machine import Machine
from stack.settings import ROOT

NAME = "tally-overlay"
SERVICES = ROOT / "stack" / "services"
SCRIPT, UNIT = f"/usr/local/sbin/{NAME}", f"/etc/systemd/system/{NAME}.service"
# One question, as each costs a session and a sudo where the machine is behind SSH.
STATE = 'cat "$1" "$2"; systemctl is-enabled "$3"; systemctl is-active "$3"'


def ensure(machine: Machine) -> bool:
    """Install and start the service that does it, on a machine with systemd.

    Tells whether anything was changed.
    """
    script, unit = ((SERVICES / name).read_text() for name in (NAME, f"{NAME}.service"))
    state = machine.run(["sh", "-c", STATE, "state", SCRIPT, UNIT, NAME])
    if state.stdout == f"{script}{unit}enabled\nactive\n":
        return False
    # Off until all of it is there, so that the next run sees what was broken off in between.
    machine.run(["systemctl", "disable", "--now", NAME])
    machine.write(SCRIPT, script, "0755")
    machine.must(["chmod", "0755", SCRIPT])
    machine.write(UNIT, unit)
    machine.must(["systemctl", "daemon-reload"])
    machine.must(["systemctl", "enable", "--now", NAME])
    return True
