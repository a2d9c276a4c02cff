"""Find the project's files, and run the tools that check them."""

import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A shebang line, with or without env(1).
SHEBANG = re.compile(rb"#!\s*(?:/usr/bin/env\s+)?(?:/\S*/)?([a-z]+)[0-9.]*\s")
SHELLS = {"sh", "bash", "dash"}


def files() -> list[str]:
    """Return every tracked or new file, so that a new one is checked before its commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True)
    names = {name for name in listed.stdout.split("\0") if name}
    return sorted(name for name in names if (ROOT / name).is_file())


def interpreter(name: str) -> str:
    """Return a script's interpreter without its version; "" if it isn't a script."""
    found = SHEBANG.match((ROOT / name).read_bytes())
    return found[1].decode() if found else ""


def python_files() -> list[str]:
    return [name for name in files() if name.endswith(".py") or interpreter(name) == "python"]


def shell_files() -> list[str]:
    return [name for name in files() if name.endswith(".sh") or interpreter(name) in SHELLS]


def yaml_files() -> list[str]:
    return [name for name in files() if name.endswith((".yml", ".yaml", ".yamllint"))]


def dockerfiles() -> list[str]:
    return [name for name in files() if Path(name).name.startswith("Dockerfile")]


def installed(tool: str) -> str:
    """Return the path of a program from a locked requirement."""
    return str(Path(sysconfig.get_path("scripts"), tool))


def must_pass(*command: str, about: Sequence[str] = ()) -> None:
    """Run a checker in the checkout, on these files if any; fail with its output."""
    done = subprocess.run([*command, *about], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip() or f"it ended with {done.returncode}"
        pytest.fail(f"{' '.join(command)}:\n{said}", pytrace=False)


def must_suit(schema: str, path: Path, *options: str) -> None:
    """Validate a file with one of check-jsonschema's built-in schemas."""
    must_pass(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}",
              *options, str(path))
