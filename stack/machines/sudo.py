"""Become root, through sudo, for what needs it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from stack import progress
from stack.errors import Refused
from stack.inventory.settings import NAMES

# What sudo would drop and the command still needs: choices, and proxies.
CHOICES = frozenset(NAMES) | {"CI", "CI_JOB_URL", "NO_COLOR", "TERM"}
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
                     "http_proxy", "https_proxy", "no_proxy"})


def require_root(why: str) -> None:
    """Go on as root: at once if this is root, else by running all of it again under sudo.

    Called before anything was changed. Raises Refused without sudo, or if sudo
    would need a password and there is no terminal to ask on.
    """
    if os.geteuid() == 0:
        return
    if not shutil.which("sudo"):
        raise Refused(f"{why} needs root, and there is no sudo", "run the same command as root")
    if not sys.stdin.isatty() and not _sudo_is_silent():
        raise Refused(f"{why} needs root, and sudo asks for a password",
                      "run it on a terminal, or let this user run sudo without one")
    progress.line(f"{why} needs root: continuing with sudo")
    sys.stdout.flush()
    os.execvp("sudo", under_sudo(sys.argv, os.environ))


def under_sudo(argv: list[str], environ: Mapping[str, str]) -> list[str]:
    """Return the command that runs this program again as root.

    Root compiles nothing into the checkout, so its owner can still remove it. A proxy's URL may
    contain a password, and all users see command lines: sudo gets only its variable's name.
    """
    proxies = sorted(PROXIES & environ.keys())
    preserved = [f"--preserve-env={','.join(proxies)}"] if proxies else []
    chosen = [f"{name}={value}" for name, value in sorted(environ.items()) if name in CHOICES]
    return ["sudo", *preserved, "env", *chosen, "PYTHONDONTWRITEBYTECODE=1", sys.executable, *argv]


def _sudo_is_silent() -> bool:
    done = subprocess.run(["sudo", "--non-interactive", "true"], capture_output=True)
    return done.returncode == 0


def may_use_docker(socket: os.PathLike[str]) -> bool:
    """Return whether this user may talk to the engine without root."""
    return os.access(socket, os.R_OK | os.W_OK)
