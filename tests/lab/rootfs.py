"""Build the Debian 13 root file system that every machine starts from, once a recipe."""

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
# What a cloud image has, so that cloud-init and SSH work, and the git and curl that a person
# needs to clone and to look. No Docker, pip or venv: bringing those is the product's work.
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
# What must differ between machines, and mmdebstrap's own preferences: no plain machine has them.
REMOVE = ("etc/hostname", "etc/apt/apt.conf.d/00mmdebstrap", "etc/ssh/ssh_host_*")


def cache_directory() -> Path:
    """Return where root file systems and running labs live: a real disk, not a tmpfs."""
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
    # Own mount and process namespaces: if we are killed, so are apt and dpkg, and the mounts
    # that they made inside the half-built tree go with them.
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
