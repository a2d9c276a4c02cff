"""A machine that can't run the stack is refused before anything is changed."""

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stack.inventory.settings import ROOT, Settings
from stack.machines import checks
from stack.machines.checks import GIB
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand
from tests.support import ports
from tests.support.executables import answering, borrow
from tests.support.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture
def port() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    return ports.free_port()


def refusal(port: int, choice: str) -> str:
    process = Path("/proc/self/comm").read_text().strip()
    return (f"port {port} of this machine is taken by {process} (pid {os.getpid()}): "
            f"stop it, or choose another: echo {choice} >> .env")


def room(add_command: AddCommand, memory: float, disk: float) -> None:
    """Let the machine have this many GiB of each."""
    add_command("cat", *answering(f"MemTotal: {int(memory * GIB / 1024)} kB"))
    add_command("df", *answering(f"Avail\n{int(disk * GIB)}"))


def test_a_taken_http_port_is_refused_with_its_holder(
        machine: LocalMachine, port: int, free_port: int) -> None:
    settings = Settings(http_port=port, https_port=free_port)
    assert error_of(lambda: checks.check_ports(machine, settings)) \
        == refusal(port, "HTTP_PORT=8080")


def test_a_taken_https_port_is_refused_with_its_holder(
        machine: LocalMachine, port: int, free_port: int) -> None:
    settings = Settings(http_port=free_port, https_port=port)
    assert error_of(lambda: checks.check_ports(machine, settings)) \
        == refusal(port, "HTTPS_PORT=8443")


def test_a_port_is_free_again_when_its_holder_has_ended(
        machine: LocalMachine, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = Settings(http_port=free_port, https_port=server.getsockname()[1])
        assert error_of(lambda: checks.check_ports(machine, settings))
    checks.check_ports(machine, settings)


@pytest.fixture
def firewall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the rules of cloud-init's firewall, if there is one."""
    path = tmp_path / "firewall.nft"
    monkeypatch.setattr(checks, "FIREWALL", str(path))
    return path


def test_ports_that_this_stack_publishes_are_its_own(
        machine: LocalMachine, add_command: AddCommand, port: int, free_port: int) -> None:
    add_command("docker", *answering(
        f"0.0.0.0:{port}->8000/tcp, [::]:{port}->8000/tcp, 0.0.0.0:{free_port}->8443/tcp"))
    checks.check_ports(machine, Settings(http_port=port, https_port=free_port))


def test_only_the_stacks_traefik_may_hold_its_ports(
        machine: LocalMachine, add_command: AddCommand, port: int, free_port: int) -> None:
    add_command("docker", 'case "$*" in "ps "*label=com.docker.swarm.service.name=tally_traefik)',
                *answering(f"0.0.0.0:{port}->8000/tcp"), ";; esac")
    checks.check_ports(machine, Settings(http_port=port, https_port=free_port))
    add_command("docker", 'case "$*" in *tally_traefik*) ;; *)',
                *answering(f"0.0.0.0:{port}->8000/tcp"), ";; esac")
    assert error_of(lambda: checks.check_ports(
        machine, Settings(http_port=port, https_port=free_port))) == refusal(port, "HTTP_PORT=8080")


@pytest.mark.parametrize(("http", "https", "which"), [
    (8080, 443, "HTTP_PORT=8080"), (80, 8443, "HTTPS_PORT=8443")])
def test_a_port_that_the_firewall_closes_is_refused(
        machine: LocalMachine, add_command: AddCommand, firewall: Path, http: int, https: int,
        which: str) -> None:
    add_command("ss", "exit 0")
    settings = Settings(http_port=http, https_port=https)
    checks.check_ports(machine, settings)
    firewall.touch()
    assert error_of(lambda: checks.check_ports(machine, settings)) == (
        f"{which}: the firewall of this machine lets visitors reach 80 and 443 only: "
        "keep to those, in the inventory's ports or in .env")


def test_the_firewall_opens_the_default_ports(
        machine: LocalMachine, add_command: AddCommand, firewall: Path) -> None:
    add_command("ss", "exit 0")
    firewall.touch()
    checks.check_ports(machine, Settings(http_port=80, https_port=443))


def test_the_checks_match_cloud_inits_firewall() -> None:
    user_data = yaml.safe_load((ROOT / "cloud-init/user-data.yml").read_text())
    rules = {file["path"]: file["content"] for file in user_data["write_files"]}
    arriving = rules[checks.FIREWALL].split("chain arriving {")[1].split("chain ")[0]
    open_to_all = re.findall(r"^ *tcp dport (.*) accept$", arriving, re.MULTILINE)
    assert open_to_all == ["{ 22, 80, 443 }"]
    assert checks.OPEN == {80, 443}


@pytest.mark.parametrize(("memory", "disk"), [(0.901, 3), (64, 2000)])
def test_a_machine_with_room_is_accepted(
        machine: LocalMachine, add_command: AddCommand, memory: float, disk: float) -> None:
    room(add_command, memory, disk)
    checks.check_room(machine, 3 * GIB)


def test_a_first_deploy_needs_more_room_than_the_next() -> None:
    assert checks.LEAST_DISK_AT_FIRST > checks.LEAST_DISK > 0


def test_too_little_memory_is_refused(machine: LocalMachine, add_command: AddCommand) -> None:
    room(add_command, 0.5, 100)
    assert error_of(lambda: checks.check_room(machine, GIB)) == (
        "this machine has 0.5 GiB of memory, at least 1 is needed: use a larger machine")


def test_too_little_disk_is_refused(machine: LocalMachine, add_command: AddCommand) -> None:
    room(add_command, 2, 2.9)
    assert error_of(lambda: checks.check_room(machine, 3 * GIB)) == (
        "/var/lib/docker on this machine has 2.9 GiB free, at least 3 GiB are needed: "
        "make room, with docker system prune for example")


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which cloud-init writes its result."""
    path = tmp_path / "result.json"
    monkeypatch.setattr(checks, "CLOUD_INIT_RESULT", str(path))
    monkeypatch.setattr(checks, "CLOUD_INIT_OFF", str(tmp_path / "disabled"))
    return path


def ended(*errors: str) -> str:
    return json.dumps({"v1": {"datasource": "DataSourceNoCloud", "errors": errors}})


def test_a_machine_without_cloud_init_is_not_waited_for(
        machine: LocalMachine, no_commands: Path, result: Path) -> None:
    borrow(no_commands, "sh", "cat")
    checks.wait_for_cloud_init(machine)


def test_a_machine_with_cloud_init_disabled_is_not_waited_for(
        machine: LocalMachine, add_command: AddCommand, result: Path, tmp_path: Path) -> None:
    add_command("cloud-init", f"touch {tmp_path}/asked; exit 1")
    (tmp_path / "disabled").touch()
    checks.wait_for_cloud_init(machine)
    assert not (tmp_path / "asked").exists()


def test_a_successful_first_boot_is_not_checked_again(
        machine: LocalMachine, add_command: AddCommand, result: Path, tmp_path: Path) -> None:
    add_command("cloud-init", f"touch {tmp_path}/asked")
    result.write_text(ended())
    checks.wait_for_cloud_init(machine)
    assert not (tmp_path / "asked").exists()


def test_a_first_boot_is_waited_for(
        machine: LocalMachine, add_command: AddCommand, result: Path) -> None:
    add_command("cloud-init", f"[ \"$*\" = 'status --wait' ] && echo '{ended()}' > {result}")
    checks.wait_for_cloud_init(machine)
    assert result.exists()


def test_a_failed_first_boot_is_refused_with_every_error(
        machine: LocalMachine, add_command: AddCommand, result: Path) -> None:
    errors = ended("no package docker.io", "no network")
    add_command("cloud-init", f"echo '{errors}' > {result}; exit 1")
    for _ in range(2):
        assert error_of(lambda: checks.wait_for_cloud_init(machine)) == (
            "cloud-init on this machine failed: no package docker.io; no network: "
            "see /var/log/cloud-init-output.log on it")


def test_an_endless_first_boot_is_refused(
        machine: LocalMachine, add_command: AddCommand, result: Path) -> None:
    add_command("cloud-init", "echo 'status: error'; exit 1")
    assert error_of(lambda: checks.wait_for_cloud_init(machine)) == (
        "cloud-init on this machine did not finish cleanly (status: error): "
        "run cloud-init status --long on it")
