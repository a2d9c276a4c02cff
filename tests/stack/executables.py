"""Write real commands for a test: what they answer is chosen, that they run isn't."""

import os
import shutil
from pathlib import Path


def executable(path: Path, *lines: str) -> Path:
    """Write an executable shell script and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return path


def answering(text: str) -> list[str]:
    """Return the lines of a script that prints a text as it is."""
    return ["/bin/cat <<'END'", text, "END"]


def borrow(folder: Path, *names: str) -> None:
    """Put this machine's own commands into a folder."""
    for name in names:
        found = shutil.which(name, path=os.defpath)
        assert found, f"this machine has no {name}"
        (folder / name).symlink_to(found)
