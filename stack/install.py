"""Install Docker from the distribution's packages and start it."""

import json
import time

from stack import engine
from stack.errors import Refused
from stack.facts import System
from stack.machine import Completed, Machine

DAEMON_CONFIG = "/etc/docker/daemon.json"
DAEMON_LOG = "/var/log/dockerd.log"
# Not on every user's PATH, but where daemons are.
SBIN = "PATH=$PATH:/usr/sbin:/sbin"
# A stack file can't ask for this, so the daemon gives it to every container.
DAEMON_SETTINGS = {
    "no-new-privileges": True,
    # What builds keep to be quicker next time would grow without end.
    "builder": {"gc": {"enabled": True, "defaultKeepStorage": "2GB"}}}
# Debian 13 and Ubuntu package the client or its builder apart from the engine.
WANTED = ("docker.io", "docker-cli", "docker-buildx")
APT = ("apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=300")
NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}


def docker_is_installed(machine: Machine) -> bool:
    """Tell whether there are an engine and a client."""
    return machine.run(["sh", "-c", f"{SBIN}; command -v dockerd && command -v docker"]).ok


def require_supported(machine: Machine, system: System) -> None:
    """Refuse a machine without Docker whose distribution's packages nobody has tried."""
    if not system.supported:
        raise Refused(f"Docker isn't installed on {machine.name}, and {system.name} isn't "
                      "Debian 12, Debian 13 or Ubuntu 24.04",
                      "install Docker 20.10 or newer, then ./fab bootstrap")


def install_docker(machine: Machine, system: System) -> None:
    """Install the distribution's Docker; raises Refused where there is none to be had."""
    require_supported(machine, system)
    if machine.read(DAEMON_CONFIG) is None:
        machine.write(DAEMON_CONFIG, json.dumps(DAEMON_SETTINGS, indent=2) + "\n")
    packages(machine, *WANTED)


def packages(machine: Machine, *names: str) -> None:
    """Install those packages that the distribution has, and their needs only.

    A source that fails doesn't matter as long as the others have what is needed.
    Raises Refused if no package source answers or the first name isn't to be had.
    """
    # A command that was killed may have left packages half installed.
    machine.run(["dpkg", "--configure", "--pending"], env=NONINTERACTIVE)
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


def _update_lists(machine: Machine, patience: float = 300) -> Completed:
    """Run apt-get update, which unlike install doesn't wait for another apt by itself."""
    deadline = time.monotonic() + patience
    while True:
        done = machine.run([*APT, "update", "--error-on=any"], env=NONINTERACTIVE)
        if done.ok or "Could not get lock" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(2)


def start_docker(machine: Machine, system: System, timeout: float = 60) -> None:
    """Start the engine and wait for it; raises Refused, with where to look, if it doesn't."""
    if system.systemd:
        machine.run(["systemctl", "enable", "--now", "docker"])
        place = "journalctl --unit=docker"
    else:
        _spawn_daemon(machine)
        place = f"tail {DAEMON_LOG}"
    deadline = time.monotonic() + timeout
    while not engine.answers(machine):
        if time.monotonic() > deadline:
            raise Refused(f"the Docker Engine didn't start within {timeout:.0f} s", place)
        time.sleep(0.3)


def _spawn_daemon(machine: Machine) -> None:
    """Run dockerd on its own, for machines whose init system isn't systemd."""
    machine.must(["sh", "-c", f"{SBIN} setsid --fork dockerd < /dev/null >> {DAEMON_LOG} 2>&1"])
