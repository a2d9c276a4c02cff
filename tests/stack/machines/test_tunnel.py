"""A tunnel's socket leads to the remote Engine, and only its owner may connect."""

import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from paramiko import Channel

from stack.machines.ssh import Gone, RemoteMachine
from stack.machines.tunnel import Tunnel
from tests.support.sshd import Sshd, away_from_home, running

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with away_from_home(), running() as sshd:
        yield sshd


@pytest.fixture
def machine(sshd: Sshd, tmp_path: Path) -> Iterator[RemoteMachine]:
    """A machine whose engine echoes its input."""
    sshd.add_command("docker", '[ "$*" = "system dial-stdio" ] && exec cat')
    machine = sshd.machine(tmp_path / "known_hosts")
    machine.connect()
    yield machine
    machine.close()


def place(host: str) -> Path:
    return Path(host.removeprefix("unix://"))


def client(host: str) -> socket.socket:
    near = socket.socket(socket.AF_UNIX)
    near.settimeout(20)
    near.connect(str(place(host)))
    return near


def everything(near: socket.socket) -> bytes:
    return b"".join(iter(lambda: near.recv(65536), b""))


def said_back(host: str, data: bytes) -> bytes:
    """Send all of this while receiving, and return what was received."""
    with client(host) as near, ThreadPoolExecutor(1) as pool:
        heard = pool.submit(everything, near)
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        return heard.result()


def test_both_directions_are_complete(machine: RemoteMachine) -> None:
    data = bytes(range(256)) * 8000
    assert said_back(machine.docker_host, data) == data


def test_many_clients_at_once_are_all_answered(machine: RemoteMachine) -> None:
    host = machine.docker_host
    said = [f"request {number}\n".encode() * 1000 for number in range(25)]
    with ThreadPoolExecutor(25) as pool:
        assert list(pool.map(lambda data: said_back(host, data), said)) == said


def test_a_machine_has_one_tunnel(machine: RemoteMachine) -> None:
    assert machine.docker_host == machine.docker_host


def test_an_answer_that_ends_early_ends_the_connection(
        sshd: Sshd, machine: RemoteMachine) -> None:
    sshd.add_command("docker", "exec head -c 5")
    with client(machine.docker_host) as near:
        near.sendall(b"hello and more")
        assert everything(near) == b"hello"


def test_a_client_that_hangs_up_frees_its_session(
        sshd: Sshd, machine: RemoteMachine, tmp_path: Path) -> None:
    sshd.add_command("docker", "cat", f"touch {tmp_path}/over")
    client(machine.docker_host).close()
    deadline = time.monotonic() + 5
    while not (tmp_path / "over").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lost_connection_ends_the_clients(
        tmp_path: Path, sshd: Sshd) -> None:
    with running() as fragile:
        fragile.add_command("docker", "exec cat")
        machine = fragile.machine(tmp_path / "known_hosts")
        machine.connect()
        with client(machine.docker_host) as near:
            near.sendall(b"hello")
            assert near.recv(5) == b"hello"
            fragile.cut()
            assert everything(near) == b""
        with client(machine.docker_host) as near:
            assert everything(near) == b""
        machine.close()


def test_a_connection_lost_under_load_raises_in_no_thread(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda told: raised.append(told.exc_value))
    with running() as fragile:
        fragile.add_command("docker", "exec cat")
        machine = fragile.machine(tmp_path / "known_hosts")
        machine.connect()
        everybody = threading.Barrier(9)
        with ThreadPoolExecutor(8) as pool:
            talking = [pool.submit(talk, machine.docker_host, everybody) for _ in range(8)]
            everybody.wait(20)
            fragile.cut()
        machine.close()

    assert [each.result() for each in talking] == [None] * 8
    assert raised == []


def talk(host: str, everybody: threading.Barrier) -> None:
    """When all are connected, send more than the other end reads, until the connection ends."""
    with client(host) as near, suppress(OSError):
        near.sendall(b"hello")
        assert near.recv(5) == b"hello"
        everybody.wait(20)
        near.sendall(b"x" * 200_000)
        while near.recv(100_000):
            near.sendall(b"x" * 200_000)


def test_a_client_that_cant_be_connected_is_disconnected() -> None:
    def dial() -> Channel:
        raise Gone("nobody is there")
    tunnel = Tunnel(dial)
    with client(tunnel.host) as near:
        assert everything(near) == b""
    tunnel.close()


def test_only_its_owner_may_use_it(machine: RemoteMachine) -> None:
    folder = place(machine.docker_host).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_closed_tunnel_leaves_nothing_behind(machine: RemoteMachine) -> None:
    host = machine.docker_host
    machine.close()
    assert not place(host).parent.exists()
    with pytest.raises(FileNotFoundError):
        client(host)
