"""Ask a machine what it is and what it has, as typed values."""

import re
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath

from stack.errors import Refused
from stack.machine import Machine

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
class Listener:
    """A process that holds a TCP port."""

    port: int
    process: str
    pid: int


def system(machine: Machine) -> System:
    """Read /etc/os-release (os-release(5)) and find the init system."""
    text = machine.must(["cat", "/etc/os-release"])
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    # sd_booted(3): this directory exists where systemd is the init system.
    booted = machine.run(["test", "-d", "/run/systemd/system"]).ok
    return System(release.get("ID", "unknown"), release.get("VERSION_ID", ""),
                  release.get("PRETTY_NAME", "an unknown system"), booted)


def memory(machine: Machine) -> int:
    """Return the machine's memory in bytes."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", machine.must(["cat", "/proc/meminfo"]),
                      re.MULTILINE)
    if not found:
        raise Refused("/proc/meminfo names no MemTotal")
    return int(found[1]) * 1024


def free_disk(machine: Machine, folder: str) -> int:
    """Return the free bytes of the file system that holds, or would hold, a folder."""
    path = PurePosixPath(folder)
    while not machine.run(["test", "-e", str(path)]).ok:
        path = path.parent
    return int(machine.must(["df", "--output=avail", "--block-size=1", str(path)]).split()[-1])


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
