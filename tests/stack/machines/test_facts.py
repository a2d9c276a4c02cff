"""A machine's system, memory, disk and listeners are read from the machine."""

import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.machines import facts
from stack.machines.facts import Listener, System
from stack.machines.local import LocalMachine
from stack.machines.machine import CommandFailed
from tests.stack.conftest import AddCommand
from tests.support.executables import answering
from tests.support.failing import error_of
from tests.support.ports import free_port

pytestmark = pytest.mark.unit

UBUNTU = '''PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.1 LTS (Noble Numbat)"
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://example.org/?a=b"'''


@pytest.fixture(params=[("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def listening(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that this process listens on."""
    host, family = request.param
    with socket.socket(family) as opened:
        opened.bind((host, 0))
        opened.listen()
        yield int(opened.getsockname()[1])


def test_a_listener_is_found_with_its_process(machine: LocalMachine, listening: int) -> None:
    name = Path("/proc/self/comm").read_text().strip()
    assert Listener(listening, name, os.getpid()) in facts.listeners(machine)


def test_a_free_port_has_no_listener(machine: LocalMachine) -> None:
    assert free_port() not in {listener.port for listener in facts.listeners(machine)}


def test_a_connection_is_not_a_listener(machine: LocalMachine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as connection:
            ports = {listener.port for listener in facts.listeners(machine)}
            assert connection.getsockname()[1] not in ports


def test_another_users_process_is_unknown(machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("ss", *answering(
        "LISTEN 0 128 0.0.0.0:22 0.0.0.0:*\n"
        'LISTEN 0 511 [::]:80 [::]:* users:(("nginx: master",pid=7,fd=6),("nginx",pid=8,fd=6))\n'
        'LISTEN 0 128 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=9,fd=1))'))
    assert facts.listeners(machine) == [
        Listener(22, "unknown", 0), Listener(80, "nginx: master", 7),
        Listener(53, "systemd-resolve", 9)]


def test_a_machine_without_ss_is_an_error(machine: LocalMachine, no_commands: Path) -> None:
    assert error_of(lambda: facts.listeners(machine), CommandFailed) \
        == "ss -H -l … ended with 127: ss: not found"


def test_memory_is_the_kernels_total(machine: LocalMachine) -> None:
    kernels = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert facts.room(machine, "/").memory == pytest.approx(kernels, rel=0.01)


def test_a_kernel_without_a_memory_total_is_refused(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("cat", *answering("MemFree: 12 kB"))
    assert error_of(lambda: facts.room(machine, "/")) == "/proc/meminfo has no MemTotal line"


def test_memory_is_in_bytes(machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("cat", *answering("MemTotal:        1000204 kB\nMemFree:  1 kB"))
    assert facts.room(machine, "/").memory == 1000204 * 1024


def test_free_disk_is_the_space_for_unprivileged_users(
        machine: LocalMachine, tmp_path: Path) -> None:
    system = os.statvfs(tmp_path)
    found = facts.room(machine, str(tmp_path)).disk
    # Other processes write at the same time.
    assert found == pytest.approx(system.f_bavail * system.f_frsize, rel=0.05)


def test_a_missing_folder_is_measured_at_its_parent(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("df", f'[ "$3" = {tmp_path} ] && echo Avail && echo 4096')
    assert facts.room(machine, str(tmp_path / "lib" / "docker")).disk == 4096


def test_this_machines_system_is_read(machine: LocalMachine) -> None:
    release = platform.freedesktop_os_release()
    assert facts.system(machine) == System(
        release["ID"], release.get("VERSION_ID", ""), release["PRETTY_NAME"],
        Path("/run/systemd/system").is_dir())


def test_quotes_are_removed_from_a_systems_name(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("cat", *answering(UBUNTU))
    found = facts.system(machine)
    assert (found.id, found.version, found.name) == ("ubuntu", "24.04", "Ubuntu 24.04.1 LTS")


def test_a_system_without_a_name_is_unknown(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("cat", *answering("# empty"))
    found = facts.system(machine)
    assert (found.id, found.version, found.name) == ("unknown", "", "an unknown system")


@pytest.mark.parametrize("booted", [True, False])
def test_systemd_is_the_init_system_where_its_folder_is(
        machine: LocalMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
        booted: bool) -> None:
    monkeypatch.setattr(facts, "SYSTEM", facts.SYSTEM.replace("/run/systemd/system",
                                                              f"{tmp_path}/system"))
    if booted:
        (tmp_path / "system").mkdir()
    assert facts.system(machine).systemd is booted


@pytest.mark.parametrize(("name", "version", "supported"), [
    ("debian", "12", True), ("debian", "13", True), ("ubuntu", "24.04", True),
    ("debian", "11", False), ("ubuntu", "22.04", False), ("ubuntu", "12", False),
    ("fedora", "41", False), ("debian", "", False)])
def test_three_systems_are_supported(name: str, version: str, supported: bool) -> None:
    assert System(name, version, name, True).supported is supported


def test_a_sockets_group_is_found(machine: LocalMachine, tmp_path: Path) -> None:
    (tmp_path / "socket").touch()
    assert facts.socket_group(machine, tmp_path / "socket") == (tmp_path / "socket").stat().st_gid


def test_a_link_to_a_socket_is_followed_for_its_group(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("stat", 'case " $* " in *" --dereference "*) echo 998;; *) echo 0;; esac')
    assert facts.socket_group(machine, Path("/var/run/docker.sock")) == 998


def test_many_listeners_are_all_found(machine: LocalMachine) -> None:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(20)]
    try:
        ports = {listener.port for listener in facts.listeners(machine)
                 if listener.pid == os.getpid()}
        assert {server.getsockname()[1] for server in servers} <= ports
    finally:
        for server in servers:
            server.close()
