"""Boot a virtual machine, and deploy to it from a fresh clone on this host."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stack.cloud_init import render
from stack.images import BASE, LEAN
from stack.settings import ROOT
from tests.e2e.site import Site, bare_clone
from tests.lab import Result, host
from tests.lab.rootfs import bootstrap
from tests.vm.lab import VirtualLab
from tests.vm.machine import USER, VirtualMachine

# It takes long: pytest shows this while it runs.
LOG = logging.getLogger("vm")


@pytest.fixture(scope="session")
def lab() -> Iterator[VirtualLab]:
    """Hold one lab for the whole run, in place of the one without virtual machines."""
    with VirtualLab() as lab:
        yield lab


@pytest.fixture(scope="session")
def vm(lab: VirtualLab) -> Iterator[VirtualMachine]:
    """Boot a plain machine with the project's own user-data."""
    LOG.info("booting, with cloud-init installing Docker; about 4 minutes")
    with lab.virtual_machine("vm1", render(lab.public_key)) as vm:
        LOG.info("%s is ready at %s", vm.name, vm.address)
        bring_base_image(vm, lab.private_key.with_name("base"))
        yield vm


@pytest.fixture(scope="session")
def laptop(lab: VirtualLab, vm: VirtualMachine) -> Site:
    """An operator's fresh clone on this host, with an inventory of the one machine."""
    # Among the lab's files, so that it goes when they go.
    home = lab.private_key.parent / "laptop"
    home.mkdir()
    clone = home / "tally"
    host.call(["git", "clone", "--quiet", bare_clone(ROOT, home), clone])
    (clone / "inventory.yml").write_text(inventory(vm, lab.private_key), encoding="utf-8")
    # From the machine's console: nobody has to trust at first sight.
    (clone / "known_hosts").write_bytes(lab.known_hosts.read_bytes())
    host.call(["git", "-C", clone, "add", "inventory.yml", "known_hosts"])
    host.call(["git", "-C", clone, "-c", "user.name=Operator", "-c", "user.email=op@example.org",
               "commit", "--quiet", "--message", "The machine"])

    def shell(line: str, timeout: float) -> Result:
        return run_aloud(["timeout", "--foreground", f"{timeout:g}", "sh", "-c", line], home)
    return Site(vm.address, shell)


@pytest.fixture(scope="session")
def site(laptop: Site) -> Site:
    """Run the README's command once, against the inventory."""
    done = laptop.fab("bootstrap deploy", timeout=1500)
    assert done.code == 0
    return laptop


@pytest.fixture(scope="session")
def addresses(lab: VirtualLab) -> Iterator[str]:
    """Client addresses that no test has visited from yet."""
    return iter(lab.client_addresses)


@pytest.fixture
def take(addresses: Iterator[str]) -> partial[str]:
    """Take new client addresses, one a call."""
    return partial(next, addresses)


def bring_base_image(vm: VirtualMachine, directory: Path) -> None:
    """Build the base image here, as fast as a registry would have it there.

    That bootstrap itself can build it is proven on machines whose CPU isn't emulated.
    """
    LOG.info("making the base image")
    bootstrap(directory, *(f"--dpkgopt={option}" for option in LEAN))
    archive = directory.with_suffix(".tar")
    host.call(["tar", "--create", "--file", archive, "--directory", directory, "."])
    vm.ssh.copy_in(archive, "/var/tmp/base.tar", USER)
    vm.run(f"docker import /var/tmp/base.tar {BASE} && rm /var/tmp/base.tar")


def inventory(vm: VirtualMachine, key: Path) -> str:
    """Return an inventory of one machine; JSON is YAML, too."""
    return json.dumps({"name": "vm", "ssh": {"user": USER, "key": str(key)},
                       "nodes": [{"host": vm.address, "role": "manager"}]}, indent=2)


def run_aloud(command: list[str], home: Path) -> Result:
    """Run a command in a home directory, and log each line that it prints, as it comes."""
    said = []
    with subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command], cwd=home, text=True,
            # No emulated CPU keeps to times that are meant for real ones.
            env={**os.environ, "HOME": str(home), "DEPLOY_TIMEOUT": "900"},
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
