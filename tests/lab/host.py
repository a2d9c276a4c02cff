"""Run commands on the host, and report early what the host lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab.errors import CommandFailed, LabError

# Each tool that the lab calls, with its Debian package.
TOOLS = {
    "ip": "iproute2",
    "iptables": "iptables",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "nsenter": "util-linux",
    "scp": "openssh-client",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}


def require() -> None:
    """Raise LabError, with the remedy, if this host can't run the lab."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts: run it as root (sudo)")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        raise LabError(f"the lab lacks tools: apt-get install {' '.join(missing)}")


def call(argv: Sequence[str | Path], stdin: str | None = None) -> str:
    """Run a command and return its standard output; raise CommandFailed if it fails."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(" ".join(words), done.returncode, done.stdout + done.stderr)
    return done.stdout


def succeeds(argv: Sequence[str | Path]) -> bool:
    """Run a command; return whether it succeeds."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def wait_until(true: Callable[[], bool], timeout: float, what: str) -> None:
    """Poll until the answer is true; raise LabError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout:g} s")
        time.sleep(0.05)
