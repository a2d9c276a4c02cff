"""Make a virtual machine's disk, and the QEMU process that runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.lab import host
from tests.lab.errors import LabError
from tests.lab.power import DISK_BYTES, Hardware
from tests.lab.rootfs import INCLUDE

# What Debian's cloud images have, but not the lab's other machines, which share the host's kernel:
# a kernel, file system tools, time synchronization, AppArmor and security upgrades.
ROOT_PACKAGES = (*INCLUDE, "apparmor", "e2fsprogs", "initramfs-tools", "linux-image-cloud-amd64",
                 "systemd-timesyncd", "unattended-upgrades")
# With several emulated CPUs, one may run code that another is patching, and the kernel crashes.
# It also shows that one CPU is enough.
CPUS = 1
MEMORY_MIB = 4096

# Runs in its own mount namespace, so that the mount ends with this shell.
FILL = """
set -eu
cd "$1"
mkdir root
mount -t overlay vm-root root -o "lowerdir=layer:$2"
mke2fs -q -t ext4 -m 0 -O ^has_journal -d root disk.img
"""
# The kernel's safety measures are slow on an emulated CPU: mitigations of flaws that this CPU
# doesn't have, clearing pages, watchdogs, audit.
KERNEL_OPTIONS = (
    "root=/dev/vda", "rw", "rootflags=noatime", "net.ifnames=0", "console=ttyS0", "loglevel=4",
    "mitigations=off", "init_on_alloc=0", "nowatchdog", "audit=0")


def require() -> None:
    """Raise LabError, with the remedy, if this host can't run the machine."""
    if shutil.which("qemu-system-x86_64") is None:
        raise LabError("the virtual machine lacks QEMU: apt-get install qemu-system-x86")


class VirtualHardware(Hardware):
    """A QEMU machine, connected to a lab's bridge like the others."""

    @property
    def console(self) -> Path:
        """The file with the output of the machine's serial port."""
        return self.directory / "console"

    def create_disk(self) -> None:
        """Write the root file system and the machine's own layer to a disk."""
        self.disk.touch()
        os.truncate(self.disk, DISK_BYTES)
        host.call(["unshare", "--mount", "sh", "-c", FILL, "fill", self.directory, self.rootfs])

    def start(self) -> subprocess.Popen[bytes]:
        """Start QEMU with a port on the bridge."""
        self._plug()
        with self.console.open("ab") as console:
            return subprocess.Popen(
                self._argv(), stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                # Otherwise Ctrl-C would reach the machine before the lab.
                start_new_session=True)

    def _plug(self) -> None:
        self.network.unplug(self.cable)
        host.call(["ip", "tuntap", "add", "dev", self.cable.port, "mode", "tap"])
        host.call(["ip", "link", "set", self.cable.port, "master", self.network.bridge, "up"])

    def _argv(self) -> list[str]:
        port, mac = self.cable.port, self.cable.mac
        return [
            # When the lab is killed, the kernel kills the machine.
            "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
            "-no-user-config", "-nodefaults", "-display", "none", "-machine", "q35",
            # Five-level paging would make each page walk longer.
            "-accel", "tcg", "-cpu", "max,la57=off",
            "-smp", str(CPUS), "-m", str(MEMORY_MIB),
            "-kernel", str(self._boot_file("vmlinuz")),
            "-initrd", str(self._boot_file("initrd.img")),
            "-append", " ".join(KERNEL_OPTIONS),
            # The disk's content need not survive the host.
            "-drive", f"file={self.disk},format=raw,if=virtio,cache=unsafe,discard=unmap",
            "-netdev", f"tap,id=eth0,ifname={port},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=eth0,mac={mac},romfile=",
            "-device", "virtio-rng-pci", "-serial", "stdio",
        ]

    def _boot_file(self, name: str) -> Path:
        return next((self.rootfs / "boot").glob(f"{name}-*"))
