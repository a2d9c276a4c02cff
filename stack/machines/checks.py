"""Check, before anything is changed, that a machine can run the stack."""

import json
import re

from stack.errors import Refused
from stack.inventory.settings import Settings
from stack.machines import docker_command, facts
from stack.machines.machine import Machine

GIB = 1024 ** 3
# Measured: Docker, the images and the build cache take 1.6 GiB.
LEAST_DISK_AT_FIRST = 3 * GIB
LEAST_DISK = 1 * GIB
# The reservations in docker-stack.yml, two app tasks during an update, and
# the engine itself.
LEAST_MEMORY = 1 * GIB
DOCKER_ROOT = "/var/lib/docker"
# What cloud-init/user-data.yml's firewall lets everybody reach, besides SSH.
FIREWALL = "/etc/tally/firewall.nft"
OPEN = {80, 443}
# cloud-init writes it at the end of the first boot, with any errors.
CLOUD_INIT_RESULT = "/run/cloud-init/result.json"
CLOUD_INIT_OFF = "/run/cloud-init/disabled"
CLOUD_INIT_TIMEOUT = 900


def check_room(machine: Machine, least_disk: int) -> None:
    """Refuse a machine with too little memory, or less free disk than these bytes."""
    room = facts.room(machine, DOCKER_ROOT)
    # A machine sold as 1 GiB shows a little less: its kernel reserves some.
    if room.memory < 0.9 * LEAST_MEMORY:
        raise Refused(f"{machine.name} has {room.memory / GIB:.1f} GiB of memory, "
                      f"at least {LEAST_MEMORY // GIB} is needed", "use a larger machine")
    if room.disk < least_disk:
        raise Refused(f"{DOCKER_ROOT} on {machine.name} has {room.disk / GIB:.1f} GiB free, "
                      f"at least {least_disk // GIB} GiB are needed",
                      "make room, with docker system prune for example")


def check_ports(machine: Machine, settings: Settings) -> None:
    """Refuse ports that another program listens on, or that the firewall closes to visitors."""
    ours = _published(machine)
    taken = {listener.port: listener for listener in facts.listeners(machine)}
    for name, port, other in (("HTTP_PORT", settings.http_port, 8080),
                              ("HTTPS_PORT", settings.https_port, 8443)):
        if port in taken and port not in ours:
            who = taken[port]
            # Only root is told which program it is.
            raise Refused(f"port {port} of {machine.name} is taken"
                          + (f" by {who.process} (pid {who.pid})" if who.pid else ""),
                          f"stop it, or choose another: echo {name}={other} >> .env")
        if port not in OPEN and machine.run(["test", "-e", FIREWALL]).ok:
            raise Refused(f"{name}={port}: the firewall of {machine.name} lets visitors reach "
                          "80 and 443 only", "keep to those, in the inventory's ports or in .env")


def _published(machine: Machine) -> set[int]:
    """Return the ports that this stack's Traefik publishes there, if it runs."""
    said = docker_command.run(machine, "ps", "--format={{.Ports}}",
                              "--filter=label=com.docker.swarm.service.name=tally_traefik")
    return {int(port) for port in re.findall(r":(\d+)->", said.stdout)}


def wait_for_cloud_init(machine: Machine) -> None:
    """Wait until cloud-init has finished the first boot; raises Refused with its errors."""
    result = machine.read(CLOUD_INIT_RESULT)
    if result is None:
        if not machine.run(["sh", "-c", 'command -v cloud-init && test ! -e "$1"', "find",
                            CLOUD_INIT_OFF]).ok:
            return
        done = machine.run(["cloud-init", "status", "--wait"], timeout=CLOUD_INIT_TIMEOUT)
        result = machine.read(CLOUD_INIT_RESULT)
        if result is None:
            raise Refused(f"cloud-init on {machine.name} did not finish cleanly ({done.last_line})",
                          "run cloud-init status --long on it")
    if errors := json.loads(result)["v1"]["errors"]:
        raise Refused(f"cloud-init on {machine.name} failed: {'; '.join(map(str, errors))}",
                      "see /var/log/cloud-init-output.log on it")
