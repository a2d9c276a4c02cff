"""Install Docker from the distribution's packages and start it."""

import json
from collections.abc import Mapping

from stack import waiting
from stack.engine import connection
from stack.errors import Refused
from stack.machines import packages
from stack.machines.facts import System
from stack.machines.machine import Machine

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


def docker_is_installed(machine: Machine) -> bool:
    """Return whether there are an engine and a client."""
    return machine.run(["sh", "-c", f"{SBIN}; command -v dockerd && command -v docker"]).ok


def require_supported(machine: Machine, system: System) -> None:
    """Refuse a machine without Docker whose distribution's packages nobody has tried."""
    if not system.supported:
        raise Refused(f"Docker isn't installed on {machine.name}, and {system.name} isn't "
                      "Debian 12, Debian 13 or Ubuntu 24.04",
                      "install Docker 20.10 or newer, then ./fab bootstrap")


def install_docker(machine: Machine, system: System, more: Mapping[str, str] | None = None
                   ) -> None:
    """Install the distribution's Docker, with `more` settings of its daemon.

    Raises Refused where there is none to be had.
    """
    require_supported(machine, system)
    if machine.read(DAEMON_CONFIG) is None:
        settings = {**DAEMON_SETTINGS, **(more or {})}
        machine.write(DAEMON_CONFIG, json.dumps(settings, indent=2) + "\n")
    packages.install(machine, *WANTED)


def start_docker(machine: Machine, system: System, timeout: float = 60) -> None:
    """Start the engine and wait for it; raises Refused, with where to look, if it doesn't."""
    if system.systemd:
        machine.run(["systemctl", "enable", "--now", "docker"])
        place = "journalctl --unit=docker"
    else:
        _spawn_daemon(machine)
        place = f"tail {DAEMON_LOG}"
    if not waiting.until(lambda: connection.answers(machine), timeout):
        raise Refused(f"the Docker Engine didn't start within {timeout:.0f} s", place)


def _spawn_daemon(machine: Machine) -> None:
    """Run dockerd on its own, for machines whose init system isn't systemd."""
    machine.must(["sh", "-c", f"{SBIN} setsid --fork dockerd < /dev/null >> {DAEMON_LOG} 2>&1"])
