"""Boot a virtual machine, and deploy to it from a fresh clone on this host."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from stack.commands.cloud_init import render
from stack.images.base import PREFIX
from stack.inventory.settings import ROOT
from tests.e2e.site import Site, bare_clone, newcomer
from tests.lab import Result, host
from tests.vm.lab import VirtualLab
from tests.vm.machine import USER, VirtualMachine

# The tests take long, so pytest shows this log while they run.
LOG = logging.getLogger("vm")
# Each health check starts processes, which takes seconds on an emulated CPU. As frequent as on a
# real machine, the checks would starve the services.
SELDOM = (("docker-stack.yml", r"interval: \d+s", "interval: 40s"),
          ("docker-stack.yml", r"timeout: \d+s", "timeout: 60s"),
          ("Dockerfile", r"--interval=\d+s --timeout=\d+s", "--interval=40s --timeout=60s"))
COMMIT = ["-c", "user.name=tests", "-c", "user.email=tests@example.org",
          "-c", "commit.gpgsign=false",
          "commit", "--quiet", "--all", "--message=Check health less often"]
LIST = f"docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' '{PREFIX}/*'"
SAVE = f"docker image save $({LIST})"


@pytest.fixture(scope="session")
def lab() -> Iterator[VirtualLab]:
    """One lab for the whole run, instead of the lab without virtual machines."""
    with VirtualLab() as lab:
        yield lab


@pytest.fixture(scope="session")
def home(lab: VirtualLab) -> Path:
    """A directory among the lab's files, so that it is removed with them."""
    home = lab.private_key.parent / "laptop"
    home.mkdir()
    return home


@pytest.fixture(scope="session")
def repository(home: Path) -> Path:
    """The checkout's commits, and one that slows health checks down for an emulated CPU."""
    scratch = home / "scratch"
    host.call(["git", "clone", "--quiet", ROOT, scratch])
    for name, often, seldom in SELDOM:
        text, found = re.subn(often, seldom, (scratch / name).read_text(encoding="utf-8"))
        assert found, f"{name} no longer has {often}"
        (scratch / name).write_text(text, encoding="utf-8")
    host.call(["git", "-C", scratch, *COMMIT])
    return bare_clone(scratch, home)


@pytest.fixture(scope="session")
def images(lab: VirtualLab, repository: Path, home: Path) -> Path:
    """Build the images on a machine with a real CPU; return an archive of them."""
    LOG.info("building the images on a machine of their own; about 2 minutes")
    builder, = lab.boot(names=["builder"])
    done = newcomer(builder, repository, "root").fab("bootstrap build")
    assert done.code == 0, done.stdout + done.stderr
    archive = home / "images.tar"
    with archive.open("wb") as file:
        subprocess.run(builder.ssh.argv("root", SAVE), stdout=file, check=True)
    # Its address stays in use: known_hosts has its key.
    builder.lose_power()
    return archive


@pytest.fixture(scope="session")
def vm(lab: VirtualLab, images: Path) -> Iterator[VirtualMachine]:
    """Boot a plain machine with the project's user-data, and load the images."""
    LOG.info("booting, with cloud-init installing Docker; about 4 minutes")
    with lab.virtual_machine("vm1", render(lab.public_key)) as vm:
        LOG.info("%s is ready at %s; loading the images", vm.name, vm.address)
        with images.open("rb") as file:
            subprocess.run(vm.ssh.argv(USER, "docker image load"), stdin=file, check=True)
        yield vm


@pytest.fixture(scope="session")
def laptop(lab: VirtualLab, vm: VirtualMachine, repository: Path, home: Path) -> Site:
    """An operator's fresh clone on this host, with the machine in its inventory."""
    clone = home / "tally"
    host.call(["git", "clone", "--quiet", repository, clone])
    chosen = home / "inventory.yml"
    chosen.write_text(inventory(vm, lab.private_key), encoding="utf-8")
    # From the machine's console, so nobody has to trust a key on first contact.
    (home / "known_hosts").write_bytes(lab.known_hosts.read_bytes())

    def shell(line: str, timeout: float) -> Result:
        return run_aloud(["timeout", "--foreground", f"{timeout:g}", "sh", "-c", line], home,
                         {"INVENTORY": str(chosen)})
    return Site(vm.address, shell)


@pytest.fixture(scope="session")
def site(laptop: Site) -> Site:
    """Run the README's command once, with the inventory."""
    done = laptop.fab("bootstrap deploy", timeout=1500)
    assert done.code == 0
    return laptop


@pytest.fixture(scope="session")
def addresses(lab: VirtualLab) -> Iterator[str]:
    """Unused client addresses."""
    return iter(lab.client_addresses)


@pytest.fixture
def take(addresses: Iterator[str]) -> partial[str]:
    """Take an unused client address with each call."""
    return partial(next, addresses)


def inventory(vm: VirtualMachine, key: Path) -> str:
    """Return an inventory of one machine; JSON is also YAML."""
    return json.dumps({"name": "vm", "ssh": {"user": USER, "key": str(key)},
                       "nodes": [{"host": vm.address, "role": "manager"}],
                       # Two that start at the same time take longer than a health check waits.
                       "replicas": {"app": 1}}, indent=2)


def run_aloud(command: list[str], home: Path, env: Mapping[str, str]) -> Result:
    """Run a command in a home directory, and log each line as it is printed."""
    said = []
    with subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], cwd=home, text=True,
            # An emulated CPU needs longer than the default.
            env={**os.environ, "HOME": str(home), "DEPLOY_TIMEOUT": "900", **env},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                LOG.info(line.rstrip())
                said.append(line)
        except BaseException:
            process.terminate()
            raise
    return Result("".join(said), "", process.returncode)
