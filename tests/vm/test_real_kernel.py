"""The main job on a machine with Debian's own kernel, deployed over SSH."""

from __future__ import annotations

import json
from functools import partial

import pytest

from stack.images.version import read_base
from stack.inventory.settings import ROOT
from tests.e2e.ports import answering
from tests.e2e.site import Page, Site, changes
from tests.vm.machine import VirtualMachine

# The first test's time includes booting and the first deploy.
pytestmark = [pytest.mark.vm, pytest.mark.timeout(1500)]

SYSCTL = "/etc/sysctl.d/60-tally.conf"
PUBLIC = {"tcp/22", "tcp/80", "tcp/443"}
# The other ports on which a node and its containers listen.
CLOSED = {"tcp/2375", "tcp/2377", "tcp/5000", "tcp/5432", "tcp/7946", "tcp/8000", "udp/4789",
          "udp/7946"}
RUNNING = "docker stack ps tally --quiet --no-trunc --filter desired-state=running"
CONFINEMENT = "docker ps --quiet | xargs docker inspect --format '{{.State.Pid}}' | " \
    "while read pid; do sudo cat /proc/$pid/attr/current; done"


def test_the_kernel_is_debians_own_and_has_ipvs(vm: VirtualMachine) -> None:
    assert vm.run("uname --kernel-release").stdout.endswith("+deb13-cloud-amd64\n")

    vm.run("sudo modprobe ip_vs")

    assert vm.run("cat /proc/net/ip_vs").stdout.startswith("IP Virtual Server version")


def test_cloud_init_left_no_failure_and_every_kernel_setting_applies(
        vm: VirtualMachine) -> None:
    wanted = [line for line in vm.run(["cat", SYSCTL]).stdout.splitlines()
              if not line.startswith("#")]

    assert vm.run(["sudo", "sysctl", *(line.split(" = ")[0] for line in wanted)]).stdout \
        .splitlines() == wanted
    assert vm.run("systemctl is-system-running --wait").stdout == "running\n"
    assert vm.run("systemctl is-active systemd-timesyncd").stdout == "active\n"


def test_visitors_are_counted_by_their_own_addresses(
        site: Site, take: partial[str]) -> None:
    one, other = take(), take()

    pages = [site.visit(one), site.visit(one), site.visit(other)]

    assert pages == [Page(1, 1), Page(2, 1), Page(1, 2)]


def test_the_version_is_the_clones(site: Site) -> None:
    commits = site.sh("git rev-list --count HEAD").strip()
    commit = site.sh("git rev-parse HEAD").strip()

    assert json.loads(site.ask("/version").text) == {
        "version": f"{read_base(ROOT / 'version.txt')}+{commits}", "commit": commit}


def test_the_firewall_opens_only_ssh_and_the_web(site: Site, vm: VirtualMachine) -> None:
    assert answering(vm.address, PUBLIC | CLOSED, patience=5) == PUBLIC


def test_apparmor_confines_every_container(site: Site, vm: VirtualMachine) -> None:
    confined = vm.run(CONFINEMENT).stdout.splitlines()

    assert confined == ["docker-default (enforce)"] * 4


def test_a_second_run_changes_nothing(site: Site, vm: VirtualMachine) -> None:
    before = vm.run(RUNNING).stdout

    again = site.fab("bootstrap deploy")

    assert (again.code, changes(again)) == (0, [])
    assert sorted(vm.run(RUNNING).stdout.split()) == sorted(before.split())


def test_the_site_is_back_after_a_reboot(
        site: Site, vm: VirtualMachine, take: partial[str]) -> None:
    address = take()
    before = site.visit(address)

    vm.reboot()

    assert site.visit_when_up(address, seconds=600) == Page(2, before.visitors)
    assert answering(vm.address, PUBLIC | CLOSED, patience=5) == PUBLIC
