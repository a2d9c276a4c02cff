"""Build the Debian 13 root file system of all machines, once per recipe."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab import host

SUITE = "trixie"
# The packages of a cloud image, for cloud-init and SSH, with git and curl for a person. No Docker,
# pip or venv: installing those is ./fab's work.
INCLUDE = (
    "ca-certificates",
    "cloud-init",
    "curl",
    "dbus",
    "git",
    "init",
    "iproute2",
    "kmod",
    "locales",
    "netplan.io",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd-resolved",
    "systemd-sysv",
    "udev",
)
# Files that must differ between machines, and mmdebstrap's own, which no plain machine has.
REMOVE = ("etc/hostname", "etc/apt/apt.conf.d/00mmdebstrap", "etc/ssh/ssh_host_*")


def cache_directory() -> Path:
    """Return the directory of root file systems and running labs: on a disk, not a tmpfs."""
    return Path(os.environ.get("TALLY_LAB_CACHE", "/var/cache/tally-lab"))


def rootfs(include: Sequence[str] = INCLUDE) -> Path:
    """Return the root file system's directory, building it first if this recipe is new.

    A build takes about 45 s. Machines use the result as a read-only layer and never change it.
    """
    wanted = cache_directory() / f"rootfs-{_recipe_hash(include)}"
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(wanted.parent / "rootfs.lock"):
        if not wanted.exists():
            _build(wanted, include)
    return wanted


def _recipe_hash(include: Sequence[str]) -> str:
    recipe = json.dumps([SUITE, list(include), REMOVE])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _build(wanted: Path, include: Sequence[str]) -> None:
    partial = wanted.with_name("rootfs.partial")
    shutil.rmtree(partial, ignore_errors=True)
    bootstrap(partial, f"--include={','.join(include)}")
    for pattern in REMOVE:
        for path in partial.glob(pattern):
            path.unlink()
    partial.rename(wanted)


def bootstrap(target: Path, *options: str) -> None:
    """Unpack and configure the smallest Debian in a directory, with mmdebstrap's options."""
    # In separate mount and PID namespaces: if we are killed, apt, dpkg and their mounts inside the
    # unfinished tree end too.
    host.call([
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
        "mmdebstrap", "--quiet", "--variant=minbase", *options, SUITE, target,
    ])


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
