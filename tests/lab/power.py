"""Switch a machine on and off: the process that runs it, its disk and its namespaces."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.lab import host
from tests.lab.errors import LabError
from tests.lab.network import Cable, Network

# The image is sparse: it takes of the host's disk only what the machine writes.
DISK_BYTES = 20 * 1024**3
# systemd-nspawn's exit code, with --keep-unit, when the machine asked for a reboot.
REBOOT = 133

# Runs in mount and process namespaces of its own, so that mounts and processes end with this shell,
# their process 1: systemd-nspawn, when killed, leaves its machine running. The root is an overlay,
# made in no time; Docker's overlay2 needs a real file system below it, and gets one.
START = """
set -eu
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
    """Say what a machine is made of: a directory with its disk, the shared root, a cable."""

    name: str
    directory: Path
    rootfs: Path
    cable: Cable
    network: Network

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    def create_disk(self) -> None:
        """Make an empty disk; without a journal, as what it holds need not outlive the host."""
        self.disk.touch()
        os.truncate(self.disk, DISK_BYTES)
        host.call(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", self.disk])

    def start(self) -> subprocess.Popen[bytes]:
        """Start systemd-nspawn with a fresh network; its console goes to the file `console`."""
        self.network.plug(self.cable)
        if not self.cut_marker.exists():
            self.network.carry(self.cable, on=True)
        with (self.directory / "console").open("ab") as console:
            return subprocess.Popen(
                self._argv(), stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                # Else Docker 26 can't start a container that has a network.
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
                # Else Ctrl-C would reach the machine before the lab hears of it.
                start_new_session=True)

    @property
    def cut_marker(self) -> Path:
        """The file that stands for a cut cable: the cut lasts over reboots."""
        return self.directory / "cut"

    def _argv(self) -> list[str]:
        return [
            # When the lab is killed, the kernel kills the machine.
            "setpriv", "--pdeathsig", "KILL",
            # Slave: so that a namespace that another machine's end removes goes from here, too.
            "unshare", "--mount", "--propagation", "slave",
            "--pid", "--fork", "--kill-child", "--mount-proc",
            "sh", "-c", START, "start", str(self.directory), str(self.rootfs),
            f"--machine={self.cable.namespace}", f"--hostname={self.name}",
            "--boot", "--register=no", "--keep-unit",
            f"--network-namespace-path={self.cable.namespace_path}",
            "--capability=all", "--system-call-filter=add_key keyctl bpf @privileged @keyring",
            "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe",
            # For the machine's systemd, on hosts that still have the first cgroup hierarchy.
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        ]


class Power:
    """Keep a machine's process running over its reboots until it is switched off."""

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
        # The machine dies with the thread that started it (see --pdeathsig), so the thread that
        # starts it stays with it.
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def cut(self) -> None:
        """Kill the machine's process, and let it stay off afterwards."""
        with self._lock:
            self._on = False
            if self._process is not None:
                self._process.kill()

    def is_off(self) -> bool:
        """Tell whether the machine has ended, by itself or by us."""
        return self._keeper is None or not self._keeper.is_alive()

    def wait_off(self, timeout: float) -> None:
        """Wait until the process has ended and the kernel has let go of the disk."""
        if self._keeper is not None:
            self._keeper.join(timeout)
            if self._keeper.is_alive():
                raise LabError(f"{self._hardware.name} is still on after {timeout:g} s")
        wait_disk_free(self._hardware.disk, timeout)

    def leader(self) -> int | None:
        """Return the host's process id of the machine's init, or None while there is none."""
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
    """Wait until no loop device holds the disk: only then are the machine's mounts gone."""
    host.wait_until(lambda: not host.call(["losetup", "--associated", disk]),
                    timeout, f"unmounting {disk}")


def _init_below(pid: int) -> int | None:
    """Find the machine's init: the descendant that is process 1, two process namespaces down."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in map(int, children):
            ids = _namespace_ids(child)
            found = child if len(ids) == 3 and ids[-1] == "1" else _init_below(child)
            if found is not None:
                return found
    except (FileNotFoundError, ProcessLookupError):
        # It ended while we looked.
        return None
    return None


def _namespace_ids(pid: int) -> list[str]:
    """Return a process's ids in each process namespace, from the host's inwards (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
