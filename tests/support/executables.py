"""Write real commands for a test, whose output the test chooses."""

import os
import shutil
from pathlib import Path

# A docker command sees what follows these options, and the engine as $host. A call without them,
# or with a person's environment, is recorded beside it and fails.
PINNED = """\
case "$1 $3 $4${HOME+, with HOME}${DOCKER_HOST+, with DOCKER_HOST}" in
    "--config --host unix:///var/run/docker.sock" | "--config --host unix:///nonexistent") ;;
    *) echo "docker $*" >> "$0.unpinned"; exit 97;;
esac
host=$4
shift 4"""


def executable(path: Path, *lines: str) -> Path:
    """Write an executable shell script and return it; every docker command has to be pinned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "docker":
        lines = (PINNED, *lines)
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return path


def require_pinned(folder: Path) -> None:
    """Fail if a docker command in a folder was called without its engine."""
    calls = [path.read_text() for path in folder.rglob("docker.unpinned")]
    assert not calls, f"not made by stack/machines/docker_command.py: {calls}"


def answering(text: str) -> list[str]:
    """Return the lines of a script that prints a text unchanged."""
    return ["/bin/cat <<'END'", text, "END"]


def borrow(folder: Path, *names: str) -> None:
    """Make commands of this machine available in a folder."""
    for name in names:
        found = shutil.which(name, path=os.defpath)
        assert found, f"this machine has no {name}"
        (folder / name).symlink_to(found)
