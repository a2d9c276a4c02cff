"""The main job on the tests' own machine, which may lack systemd and IPVS."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from stack.bootstrap import stale_interfaces
from stack.engine.connection import answers
from stack.machines.local import LocalMachine
from stack.swarm.volume import VOLUME
from tests.e2e.site import Page, Site, changes
from tests.lab import Result

pytestmark = pytest.mark.lab

PID_FILE = Path("/var/run/docker.pid")


@pytest.fixture
def here(repository: Path, tmp_path: Path) -> Iterator[Site]:
    """A fresh clone on this machine; Docker and tally-overlay are as before afterwards."""
    was_running, was_watched = answers(LocalMachine()), Path(stale_interfaces.UNIT).exists()
    if was_running:
        client = docker.from_env()
        state = client.info()["Swarm"]["LocalNodeState"]
        assert state == "inactive", "this machine is in a Swarm already, which the test would use"
        assert VOLUME not in [volume.name for volume in client.volumes.list()], \
            f"this machine has a volume {VOLUME}, whose data the test would use"
    subprocess.run(["git", "clone", "--quiet", str(repository), str(tmp_path / "tally")],
                   check=True)

    def shell(line: str, timeout: float) -> Result:
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, timeout=timeout, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL)
        return Result(done.stdout, done.stderr, done.returncode)

    site = Site("127.0.0.1", shell)
    try:
        yield site
    finally:
        try:
            tidy(site, was_running)
            if not was_running:
                remove_traces()
        finally:
            if not was_watched:
                end_watch()


def end_watch() -> None:
    """Remove the service that bootstrap installed, if systemd runs here."""
    if not Path(stale_interfaces.UNIT).exists():
        return
    subprocess.run(["systemctl", "disable", "--now", stale_interfaces.NAME], check=True)
    for path in (stale_interfaces.UNIT, stale_interfaces.SCRIPT):
        Path(path).unlink(missing_ok=True)
    subprocess.run(["systemctl", "daemon-reload"], check=True)


def tidy(site: Site, was_running: bool) -> None:
    """Remove what the test made: the stack, the Swarm, the images, the engine."""
    if not answers(LocalMachine()):
        return
    removed = site.fab("destroy --data --yes")
    client = docker.from_env()
    client.swarm.leave(force=True)
    for image in client.images.list():
        for tag in image.tags:
            if tag.startswith("localhost:1/tally/"):
                client.images.remove(tag)
    if not was_running:
        stop_engine()
    assert removed.code == 0, removed.stdout + removed.stderr


def stop_engine() -> None:
    """Stop the engine that bootstrap started here."""
    if shutil.which("systemctl") and Path("/run/systemd/system").exists():
        subprocess.run(["systemctl", "stop", "docker.socket", "docker.service"], check=True)
        return
    pid = int(PID_FILE.read_text())
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists(), f"dockerd, pid {pid}, didn't end"


def remove_traces() -> None:
    """Remove the bridges and the firewall rules that the engine leaves when it ends.

    Rule by rule: other tests change the firewall at the same time.
    """
    for table in ("filter", "nat"):
        rules = iptables(table, "--list-rules")
        for rule in rules:
            if rule.startswith("-A ") and re.search("DOCKER|docker0|docker_gwbridge", rule):
                iptables(table, "--delete", *shlex.split(rule)[1:])
        for rule in rules:
            if rule.startswith("-N DOCKER"):
                iptables(table, "--delete-chain", rule.split()[1])
    for bridge in ("docker0", "docker_gwbridge"):
        if Path(f"/sys/class/net/{bridge}").exists():
            subprocess.run(["ip", "link", "delete", bridge], check=True)


def iptables(table: str, *arguments: str) -> list[str]:
    """Run iptables, which waits for others, and return the lines that it prints."""
    done = subprocess.run(["iptables", "--wait", "--table", table, *arguments],
                          capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_main_job_works_on_this_machine(here: Site) -> None:
    done = here.fab("bootstrap deploy")
    assert done.code == 0, done.stdout + done.stderr
    assert here.visit() == Page(1, 1)
    assert here.visit() == Page(2, 1)
    assert here.version() == done.stdout.split("verdict")[1].split()[0]
    began = time.monotonic()
    again = here.fab("bootstrap deploy")
    assert time.monotonic() - began < 15
    assert (again.code, changes(again)) == (0, [])
