"""A machine that can't carry the stack is refused before anything is changed."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import preflight
from stack.machine import LocalMachine
from stack.preflight import GIB
from stack.settings import Settings
from tests.stack.conftest import AddCommand
from tests.stack.executables import answering
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture
def port() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def refusal(port: int, choice: str) -> str:
    process = Path("/proc/self/comm").read_text().strip()
    return (f"port {port} is taken by {process} (pid {os.getpid()}): "
            f"stop it, or choose another: echo {choice} >> .env")


def room(add_command: AddCommand, memory: float, disk: float) -> None:
    """Let the machine have so many GiB of each."""
    add_command("cat", *answering(f"MemTotal: {int(memory * GIB / 1024)} kB"))
    add_command("df", *answering(f"Avail\n{int(disk * GIB)}"))


def test_a_taken_http_port_is_refused_with_its_holder(
        machine: LocalMachine, port: int, free_port: int) -> None:
    settings = Settings(http_port=port, https_port=free_port)
    assert error_of(lambda: preflight.check_ports(machine, settings)) \
        == refusal(port, "HTTP_PORT=8080")


def test_a_taken_https_port_is_refused_with_its_holder(
        machine: LocalMachine, port: int, free_port: int) -> None:
    settings = Settings(http_port=free_port, https_port=port)
    assert error_of(lambda: preflight.check_ports(machine, settings)) \
        == refusal(port, "HTTPS_PORT=8443")


def test_a_port_is_free_again_when_its_holder_has_gone(
        machine: LocalMachine, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = Settings(http_port=free_port, https_port=server.getsockname()[1])
        assert error_of(lambda: preflight.check_ports(machine, settings))
    preflight.check_ports(machine, settings)


@pytest.mark.parametrize(("memory", "disk"), [(0.901, 3), (64, 2000)])
def test_a_machine_with_room_is_taken(
        machine: LocalMachine, add_command: AddCommand, memory: float, disk: float) -> None:
    room(add_command, memory, disk)
    preflight.check_room(machine, 3 * GIB)


def test_a_first_deploy_needs_more_room_than_the_next() -> None:
    assert preflight.LEAST_DISK_AT_FIRST > preflight.LEAST_DISK > 0


def test_too_little_memory_is_refused(machine: LocalMachine, add_command: AddCommand) -> None:
    room(add_command, 0.5, 100)
    assert error_of(lambda: preflight.check_room(machine, GIB)) == (
        "this machine has 0.5 GiB of memory, at least 1 is needed: use a larger machine")


def test_too_little_disk_is_refused(machine: LocalMachine, add_command: AddCommand) -> None:
    room(add_command, 2, 2.9)
    assert error_of(lambda: preflight.check_room(machine, 3 * GIB)) == (
        "/var/lib/docker has 2.9 GiB free, at least 3 GiB are needed: "
        "make room, with docker system prune for example")
