"""Switch a machine on and off: the process that runs it, its disk and its namespaces."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.lab import cgroups, host
from tests.lab.errors import LabError
from tests.lab.network import Cable, Network

# The image is sparse: it uses only as much of the host's disk as the machine writes.
DISK_BYTES = 20 * 1024**3
# The exit code of systemd-nspawn --keep-unit after the machine has requested a reboot.
REBOOT = 133

# Runs in its own mount and PID namespaces, so that mounts and processes end with this shell,
# which is their PID 1: systemd-nspawn leaves its machine running when it is killed. The root is an
# overlay, so it is ready at once; Docker's overlay2 needs a real file system, so it gets one.
START = """
set -eu
for group in $GROUPS_OF_ITS_OWN; do echo 0 > "$group/cgroup.procs"; done
cd "$1"
mkdir -p disk root
mount -o loop disk.img disk
mkdir -p disk/upper disk/work disk/docker disk/containerd
mount -t overlay lab-root root -o "lowerdir=layer:$2,upperdir=disk/upper,workdir=disk/work"
shift 2
systemd-nspawn --directory=root \
    --bind="$PWD/disk/docker:/var/lib/docker" \
    --bind="$PWD/disk/containerd:/var/lib/containerd" "$@"
"""


@dataclass(frozen=True)
class Hardware:
    """What a machine consists of: a directory with its disk, the shared root and a cable."""

    name: str
    directory: Path
    rootfs: Path
    cable: Cable
    network: Network

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def cgroup(self) -> str:
        """The name of its control groups."""
        return self.cable.namespace

    def create_disk(self) -> None:
        """Make an empty disk, without a journal: its content need not survive the host."""
        self.disk.touch()
        os.truncate(self.disk, DISK_BYTES)
        host.call(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", self.disk])

    def start(self) -> subprocess.Popen[bytes]:
        """Start systemd-nspawn with a new network; its console goes to the file `console`."""
        self.network.plug(self.cable)
        if not self.cut_marker.exists():
            self.network.carry(self.cable, on=True)
        with (self.directory / "console").open("ab") as console:
            return subprocess.Popen(
                self._argv(), stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                # Without it, Docker 26 can't start a container with a network.
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
                     "GROUPS_OF_ITS_OWN": " ".join(map(str, cgroups.create(self.cgroup)))},
                # Otherwise Ctrl-C would reach the machine before the lab.
                start_new_session=True)

    @property
    def cut_marker(self) -> Path:
        """The file that marks a cut cable, so that the cut survives reboots."""
        return self.directory / "cut"

    def _argv(self) -> list[str]:
        return [
            # When the lab is killed, the kernel kills the machine.
            "setpriv", "--pdeathsig", "KILL",
            # Slave, so that a namespace that is removed with another machine disappears here too.
            "unshare", "--mount", "--propagation", "slave",
            "--pid", "--fork", "--kill-child", "--mount-proc",
            "sh", "-c", START, "start", str(self.directory), str(self.rootfs),
            f"--machine={self.cable.namespace}", f"--hostname={self.name}",
            "--boot", "--register=no", "--keep-unit",
            f"--network-namespace-path={self.cable.namespace_path}",
            "--capability=all", "--system-call-filter=add_key keyctl bpf @privileged @keyring",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe",
            # For the machine's systemd, on hosts with cgroup v1.
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        ]


class Power:
    """Keeps a machine's process running over reboots until it is switched off."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._lock = threading.Lock()
        self._on = False
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    def switch_on(self) -> None:
        """Start the machine; return before it has booted."""
        self.wait_off(timeout=120)
        self._on = True
        # The machine dies with the thread that started it (see --pdeathsig), so that thread
        # keeps running.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def cut(self) -> None:
        """Kill the machine's process, and don't start it again."""
        with self._lock:
            self._on = False
            if self._process is not None:
                self._process.kill()

    def is_off(self) -> bool:
        """Return whether the machine is off, by itself or through us."""
        return self._keeper is None or not self._keeper.is_alive()

    def wait_off(self, timeout: float) -> None:
        """Wait until the process has ended and the kernel has released the disk."""
        if self._keeper is not None:
            self._keeper.join(timeout)
            if self._keeper.is_alive():
                raise LabError(f"{self._hardware.name} is still on after {timeout:g} s")
        wait_disk_free(self._hardware.disk, timeout)

    def leader(self) -> int | None:
        """Return the PID, on the host, of the machine's init; None while there is none."""
        with self._lock:
            process = self._process
        return None if process is None else _init_below(process.pid)

    def _keep(self) -> None:
        while (process := self._start()) is not None:
            code = process.wait()
            wait_disk_free(self._hardware.disk, timeout=120)
            if code != REBOOT:
                return

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            self._process = self._hardware.start() if self._on else None
            return self._process


def wait_disk_free(disk: Path, timeout: float) -> None:
    """Wait until no loop device uses the disk: only then are the machine's mounts gone."""
    host.wait_until(lambda: not host.call(["losetup", "--associated", disk]),
                    timeout, f"unmounting {disk}")


def _init_below(pid: int) -> int | None:
    """Find the machine's init: the descendant that is PID 1, two PID namespaces down."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in map(int, children):
            ids = _namespace_ids(child)
            found = child if len(ids) == 3 and ids[-1] == "1" else _init_below(child)
            if found is not None:
                return found
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended.
        return None
    return None


def _namespace_ids(pid: int) -> list[str]:
    """Return a process's ID in each PID namespace, from the host's inwards (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
