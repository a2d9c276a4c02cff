"""Ask a machine what it is and what it has, as typed values."""

import re
from dataclasses import dataclass
from pathlib import PurePath

from stack.errors import Refused
from stack.machines.machine import Machine

# A question to a machine behind SSH costs a session and a sudo, so each of these is one.
# sd_booted(3): this directory exists where systemd is the init system.
SYSTEM = "cat /etc/os-release; [ ! -d /run/systemd/system ] || echo systemd"
ROOM = """
set -eu
cat /proc/meminfo
folder=$1
until [ -e "$folder" ]; do folder=$(dirname "$folder"); done
df --output=avail --block-size=1 "$folder"
"""
SUPPORTED = {("debian", "12"), ("debian", "13"), ("ubuntu", "24.04")}


@dataclass(frozen=True)
class System:
    """The distribution, and whether systemd runs it."""

    id: str
    version: str
    name: str
    systemd: bool

    @property
    def supported(self) -> bool:
        return (self.id, self.version) in SUPPORTED


@dataclass(frozen=True)
class Capacity:
    """The memory that a machine has and the disk that is free, in bytes."""

    memory: int
    disk: int


@dataclass(frozen=True)
class Listener:
    """A process that holds a TCP port."""

    port: int
    process: str
    pid: int


def system(machine: Machine) -> System:
    """Read /etc/os-release (os-release(5)) and find the init system."""
    text = machine.must(["sh", "-c", SYSTEM])
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    return System(release.get("ID", "unknown"), release.get("VERSION_ID", ""),
                  release.get("PRETTY_NAME", "an unknown system"),
                  text.splitlines()[-1:] == ["systemd"])


def room(machine: Machine, folder: str) -> Capacity:
    """Measure the memory, and the file system that holds, or would hold, a folder."""
    text = machine.must(["sh", "-c", ROOM, "room", folder])
    found = re.search(r"^MemTotal:\s+(\d+) kB$", text, re.MULTILINE)
    if not found:
        raise Refused("/proc/meminfo has no MemTotal line")
    return Capacity(int(found[1]) * 1024, int(text.split()[-1]))


def listeners(machine: Machine) -> list[Listener]:
    """Return who listens on which TCP port; other users' processes need root to be named."""
    found = []
    for line in machine.must(["ss", "-H", "-l", "-t", "-n", "-p"]).splitlines():
        port = line.split()[3].rsplit(":", 1)[1]
        process = re.search(r'users:\(\("([^"]*)",pid=(\d+)', line)
        name, pid = (process[1], int(process[2])) if process else ("unknown", 0)
        found.append(Listener(int(port), name, pid))
    return found


def socket_group(machine: Machine, socket: PurePath) -> int:
    """Return the id of the group that may open a socket."""
    return int(machine.must(["stat", "--dereference", "--format=%g", str(socket)]))
