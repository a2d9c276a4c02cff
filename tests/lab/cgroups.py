"""Give each machine its own control groups.

systemd-nspawn makes a machine's groups below those of the process that starts it. Machines that
share them disturb each other: while two boot at once, one's systemd removes an empty group that the
other's is about to use, and a unit of that one fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.lab import host

MOUNTS = Path("/proc/self/mounts")


def create(name: str) -> list[Path]:
    """Make a machine's groups, unless its last boot has left them, and return them."""
    groups = [hierarchy / name for hierarchy in _hierarchies()]
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def remove(pattern: str) -> None:
    """Remove the groups of machines that are off; their names match the pattern."""
    for hierarchy in _hierarchies():
        for group in hierarchy.glob(pattern):
            # The kernel takes a moment to release the groups.
            host.wait_until(lambda: _removed(group), 30, f"removing {group}")


def _hierarchies() -> Iterator[Path]:
    """Yield the hierarchies that systemd uses: of cgroup v2, and its own of cgroup v1."""
    for line in MOUNTS.read_text(encoding="utf-8").splitlines():
        _, path, kind, options, *_ = line.split()
        if kind == "cgroup2" or kind == "cgroup" and "name=systemd" in options.split(","):
            yield Path(path)


def _removed(group: Path) -> bool:
    for inner in sorted(group.rglob("*/"), reverse=True):
        with suppress(OSError):
            inner.rmdir()
    with suppress(OSError):
        group.rmdir()
    return not group.exists()
