"""Install Docker from the distribution's packages and start it."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from stack import engine
from stack.errors import Refused
from stack.facts import System
from stack.machine import Completed, LocalMachine

DAEMON_CONFIG = Path("/etc/docker/daemon.json")
DAEMON_LOG = Path("/var/log/dockerd.log")
# A stack file can't ask for this, so the daemon gives it to every container.
DAEMON_SETTINGS = {
    "no-new-privileges": True,
    # What builds keep to be quicker next time would grow without end.
    "builder": {"gc": {"enabled": True, "defaultKeepStorage": "2GB"}}}
# Debian 13 and Ubuntu package the client or its builder apart from the engine.
WANTED = ("docker.io", "docker-cli", "docker-buildx")
APT = ("apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=300")
NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}


def docker_is_installed() -> bool:
    """Tell whether there are an engine and a client."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return all(shutil.which(name, path=path) for name in ("dockerd", "docker"))


def install_docker(machine: LocalMachine, system: System) -> None:
    """Install the distribution's Docker; raises Refused where there is none to be had."""
    if not system.supported:
        raise Refused(f"Docker isn't installed, and {system.name} isn't Debian 12, Debian 13 "
                      "or Ubuntu 24.04", "install Docker 20.10 or newer, then ./fab bootstrap")
    if not DAEMON_CONFIG.exists():
        DAEMON_CONFIG.parent.mkdir(parents=True, exist_ok=True)
        whole = DAEMON_CONFIG.with_suffix(".new")
        whole.write_text(json.dumps(DAEMON_SETTINGS, indent=2) + "\n")
        whole.replace(DAEMON_CONFIG)
    packages(machine, *WANTED)


def packages(machine: LocalMachine, *names: str) -> None:
    """Install those packages that the distribution has, and their needs only.

    A source that fails doesn't matter as long as the others have what is needed.
    Raises Refused if no package source answers or the first name isn't to be had.
    """
    updated = _update_lists(machine)
    known = [name for name in names
             if machine.run(["apt-cache", "show", "--quiet=2", name]).ok]
    done = machine.run([*APT, "install", "--yes", "--no-install-recommends", *known],
                       env=NONINTERACTIVE)
    if not updated.ok and (names[0] not in known or not done.ok):
        raise Refused(f"no package source answers ({updated.last_line})",
                      "check the network and the sources with: apt-get update")
    if names[0] not in known:
        raise Refused(f"the package sources have no {names[0]}", "check them: apt-get update")
    if not done.ok:
        raise Refused(f"{', '.join(known)} could not be installed ({done.last_line})",
                      "apt-get install " + " ".join(known))


def _update_lists(machine: LocalMachine, patience: float = 300) -> Completed:
    """Run apt-get update, which unlike install doesn't wait for another apt by itself."""
    deadline = time.monotonic() + patience
    while True:
        done = machine.run([*APT, "update", "--error-on=any"], env=NONINTERACTIVE)
        if done.ok or "Could not get lock" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def start_docker(machine: LocalMachine, system: System, timeout: float = 60) -> None:
    """Start the engine and wait for it; raises Refused, with where to look, if it doesn't."""
    if system.systemd:
        machine.run(["systemctl", "enable", "--now", "docker"])
        place = "journalctl --unit=docker"
    else:
        _spawn_daemon()
        place = f"tail {DAEMON_LOG}"
    deadline = time.monotonic() + timeout
    while not engine.answers():
        if time.monotonic() > deadline:
            raise Refused(f"the Docker Engine didn't start within {timeout:.0f} s", place)
        time.sleep(0.3)


def _spawn_daemon() -> None:
    """Run dockerd on its own, for machines whose init system isn't systemd."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    with DAEMON_LOG.open("ab") as log:
        subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                         start_new_session=True, env={**os.environ, "PATH": path})
