"""A machine whose own name doesn't resolve learns it once, and sudo no longer complains."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.bootstrap import own_name
from stack.machines.ssh import RemoteMachine
from tests.support.sshd import Sshd, away_from_home, prepared

pytestmark = pytest.mark.service

NAME = os.uname().nodename
LOCALHOST = "127.0.0.1 localhost"
MANAGED = "# Your system has configured 'manage_etc_hosts' as True.\n"
TEMPLATE = "/etc/cloud/templates/hosts.debian.tmpl"


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    """A machine that isn't started yet and asks no name server."""
    with away_from_home(), prepared() as sshd:
        (sshd.folder / "etc/nsswitch.conf").write_text("passwd: files\nhosts: files\n")
        (sshd.folder / "etc/cloud/templates").mkdir(parents=True)
        (sshd.folder / TEMPLATE[1:]).write_text(LOCALHOST)
        yield sshd


def started(sshd: Sshd, tmp_path: Path, hosts: str) -> RemoteMachine:
    (sshd.folder / "etc/hosts").write_text(hosts)
    sshd.start()
    machine = sshd.machine(tmp_path / "known_hosts")
    machine.connect()
    return machine


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_name_that_doesnt_resolve_is_added_once(sshd: Sshd, tmp_path: Path, end: str) -> None:
    machine = started(sshd, tmp_path, f"{LOCALHOST}{end}")
    assert "unable to resolve host" in machine.run(["true"]).stderr
    assert own_name.ensure(machine) == NAME
    assert machine.read("/etc/hosts") == f"{LOCALHOST}\n127.0.1.1 {NAME}\n"
    assert machine.run(["true"]).stderr == ""
    assert own_name.ensure(machine) == ""
    assert machine.read("/etc/hosts") == f"{LOCALHOST}\n127.0.1.1 {NAME}\n"
    assert machine.read(TEMPLATE) == LOCALHOST
    machine.close()


def test_cloud_inits_template_learns_it_where_it_makes_the_file(
        sshd: Sshd, tmp_path: Path) -> None:
    machine = started(sshd, tmp_path, f"{MANAGED}{LOCALHOST}\n")
    assert own_name.ensure(machine) == NAME
    assert machine.read(TEMPLATE) == f"{LOCALHOST}\n127.0.1.1 {NAME}\n"
    machine.close()


def test_a_name_that_resolves_is_left_alone(sshd: Sshd, tmp_path: Path) -> None:
    machine = started(sshd, tmp_path, f"192.0.2.1 {NAME}\n")
    assert own_name.ensure(machine) == ""
    assert machine.read("/etc/hosts") == f"192.0.2.1 {NAME}\n"
    machine.close()
