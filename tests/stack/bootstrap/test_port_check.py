"""The ports between machines are tested, and failures are reported in few lines."""

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import pytest

from stack.bootstrap import port_check, port_listener
from stack.bootstrap.port_check import Peer, Start, check, described, wanted
from stack.inventory import Role
from stack.machines.local import LocalMachine
from stack.machines.machine import Completed, Input
from tests.stack.conftest import AddCommand
from tests.support.executables import answering

pytestmark = pytest.mark.unit

TOKEN = "0123456789abcdef"
ALL = ("tcp/7946", "udp/4789", "udp/7946")
# ip(8) prints an empty mapping for a link without addresses.
SHOWN = """[{}, {"ifname": "eth1", "addr_info": [{"local": "10.0.0.7"}]},
 {"ifname": "docker0", "addr_info": [{"local": "172.17.0.1"}]}]"""


class Named(LocalMachine):
    """This machine under another name."""

    def __init__(self, name: str) -> None:
        self.name = name


def peer(number: int, role: Role = "manager", joined: bool = False,
         registry: bool = False) -> Peer:
    return Peer(Named(f"203.0.113.{number}"), f"10.0.0.{number}", role, joined, registry)


def trio() -> list[Peer]:
    return [peer(11, registry=True), peer(12), peer(13)]


def shown(peers: Sequence[Peer]) -> set[tuple[str, str, str]]:
    """Return the probes as (source, target, port), with the last parts of the addresses."""
    return {(probe.source.private[-2:], probe.target.private[-2:], probe.port)
            for probe in wanted(peers)}


def told(peers: Sequence[Peer], *broken: tuple[int, int, str]) -> list[str]:
    """Describe failures (source, target, port); 0 is any machine, and * any port."""
    tried = wanted(peers)
    return described(tried, [probe for probe in tried for source, target, port in broken
                             if probe.source.private.endswith(str(source or ""))
                             and probe.target.private.endswith(str(target or ""))
                             and port in (probe.port, "*")])


def listening(peers: Sequence[Peer]) -> list[str]:
    """Return the listeners on these machines' addresses."""
    lines = LocalMachine().must(["ss", "-Hlntu"]).splitlines()
    return [line for line in lines if any(f"{peer.private}:" in line for peer in peers)]


@pytest.fixture
def loopback() -> list[Peer]:
    """Three machines that are all this one, each with a loopback address of its own."""
    network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
    return [replace(peer, private=f"{network}.{number}", machine=Named(name))
            for number, name, peer in zip((11, 12, 13), "abc", trio())]


@pytest.fixture
def address() -> Iterator[str]:
    """A loopback address; its listener ends with the test."""
    address = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}.9"
    yield address
    port_listener.end(TOKEN, address)


def listen(address: str, *ports: str, seconds: float = 20) -> str:
    """Start the program as on a machine; return its output once the ports are bound."""
    return LocalMachine().must([sys.executable, "-I", "-", "listen", TOKEN, str(seconds), address,
                                *ports], stdin=port_check.PROGRAM.read_text(), timeout=10)


def test_a_single_machine_needs_no_port() -> None:
    assert wanted([peer(11)]) == []


def test_managers_and_the_registry_need_more_ports_than_workers() -> None:
    peers = [peer(11, registry=True), peer(12, "worker")]

    assert shown(peers) == {
        *(("11", "12", port) for port in ALL),
        *(("12", "11", port) for port in (*ALL, "tcp/2377", "tcp/5000"))}


def test_joined_nodes_are_only_tested_with_new_ones() -> None:
    peers = [peer(11, joined=True), peer(12, "worker", joined=True), peer(13, "worker")]

    assert shown(peers) == {
        ("13", "11", "tcp/2377"), ("13", "11", "tcp/7946"), ("13", "12", "tcp/7946"),
        *(("11", "13", port) for port in ALL), *(("12", "13", port) for port in ALL)}


def test_the_registry_is_tested_on_a_joined_node() -> None:
    assert ("12", "11", "tcp/5000") in shown([peer(11, joined=True, registry=True), peer(12)])


def test_a_joined_node_may_need_a_listener_for_the_registry() -> None:
    assert peer(11, joined=True, registry=True).own == ("tcp/5000",)
    assert peer(11, joined=True).own == ()


def test_joined_nodes_run_nothing(no_commands: Path) -> None:
    assert check([peer(11, joined=True), peer(12, joined=True)]) == []


def test_nothing_is_reported_without_a_failure() -> None:
    assert told(trio()) == []


def test_the_ports_between_two_machines_take_one_line() -> None:
    assert told(trio(), (12, 11, "tcp/2377"), (12, 11, "udp/4789")) == [
        "203.0.113.12 can't reach 10.0.0.11 on tcp/2377 and udp/4789"]


def test_a_machine_that_reaches_no_port_of_another_takes_one_line() -> None:
    assert told(trio(), (12, 11, "*")) == ["203.0.113.12 can't reach 10.0.0.11 on any port"]


def test_a_machine_that_reaches_nobody_takes_one_line() -> None:
    assert told(trio(), (12, 0, "*")) == [
        "203.0.113.12 can't reach 10.0.0.11 and 10.0.0.13 on any port"]


def test_a_machine_that_nobody_reaches_takes_one_line() -> None:
    assert told(trio(), (0, 12, "*")) == [
        "no other machine can reach 10.0.0.12, the private address of 203.0.113.12, on any port"]


def test_an_isolated_machine_takes_one_line_beside_other_failures() -> None:
    assert told(trio(), (0, 12, "*"), (12, 0, "*"), (11, 13, "udp/4789")) == [
        "no other machine can reach 10.0.0.12, the private address of 203.0.113.12, on any "
        "port, nor it any other", "203.0.113.11 can't reach 10.0.0.13 on udp/4789"]


def test_a_port_closed_everywhere_takes_one_line() -> None:
    assert told(trio(), (0, 0, "udp/4789"), (0, 0, "udp/7946"), (13, 11, "tcp/5000")) == [
        "no machine can reach another on udp/4789 and udp/7946",
        "203.0.113.13 can't reach 10.0.0.11 on tcp/5000"]


def test_a_port_of_only_one_machine_is_not_closed_everywhere() -> None:
    assert told(trio(), (0, 0, "tcp/5000")) == [
        "no other machine can reach 10.0.0.11 on tcp/5000"]


def test_machines_that_cant_reach_each_other_take_one_line() -> None:
    assert told(trio(), (0, 0, "*")) == [
        "no machine can reach another at its private address, on any port: 10.0.0.11, 10.0.0.12 "
        "and 10.0.0.13"]


def test_an_isolated_new_machine_doesnt_blame_joined_nodes() -> None:
    peers = [peer(11, joined=True), peer(12, joined=True), peer(13)]

    assert told(peers, (0, 0, "*")) == [
        "no other machine can reach 10.0.0.13, the private address of 203.0.113.13, on any "
        "port, nor it any other"]


def test_a_new_machines_failures_with_several_nodes_take_one_line() -> None:
    peers = [peer(11, joined=True), peer(12, joined=True), peer(13)]

    assert told(peers, (13, 0, "tcp/2377")) == [
        "203.0.113.13 can't reach 10.0.0.11 and 10.0.0.12 on tcp/2377"]


def test_reachable_machines_have_no_complaints_and_no_listeners_left(
        loopback: list[Peer]) -> None:
    assert check(loopback) == []

    assert listening(loopback) == []


def test_a_listener_ends_even_if_asking_is_interrupted(
        loopback: list[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    class BreaksOff(Named):
        def run(self, command: Sequence[str], *, stdin: Input = None,
                env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
                timeout: float | None = None) -> Completed:
            if "ask" in command:
                raise ConnectionAbortedError
            return super().run(command, stdin=stdin, timeout=timeout)

    loopback[1] = replace(loopback[1], machine=BreaksOff("b"))
    with pytest.raises(ConnectionAbortedError):
        check(loopback)

    assert listening(loopback) == []


def test_a_program_in_the_way_is_named_and_its_port_not_tried() -> None:
    start = Start(peer(11, registry=True), taken={"tcp/5000": frozenset({"nginx", "python3"})})

    assert start.complaints == ["203.0.113.11: tcp/5000 is taken by nginx and python3, and the "
                                "registry needs it: stop that program"]
    assert start.target("tcp/5000") is None
    assert start.target("tcp/7946") == "tcp/10.0.0.11:7946"


@pytest.mark.parametrize("holders", [frozenset({"dockerd", "docker-proxy"}), frozenset()])
def test_docker_and_the_kernel_may_hold_ports(holders: frozenset[str]) -> None:
    start = Start(peer(11), taken={"tcp/7946": holders, "udp/4789": holders})

    assert start.complaints == []
    assert start.target("tcp/7946") == "connect/10.0.0.11:7946"
    assert start.target("udp/4789") is None


def test_a_wrong_address_is_refused_with_the_real_ones(
        loopback: list[Peer], add_command: AddCommand) -> None:
    add_command("ip", *answering(SHOWN))
    loopback[2] = replace(loopback[2], private="192.0.2.77")

    assert check(loopback) == ["c: 192.0.2.77 isn't its address, it has 10.0.0.7"]


def test_a_machine_without_python_is_named(no_commands: Path) -> None:
    assert check([peer(11), peer(12)]) == [
        "203.0.113.11 has no python3: apt-get install python3",
        "203.0.113.12 has no python3: apt-get install python3"]


def test_a_failing_python_is_reported_with_its_error(
        loopback: list[Peer], add_command: AddCommand) -> None:
    add_command("python3", "echo no space left on device >&2", "exit 1")

    assert check(loopback)[0] == "the port test could not start on a: no space left on device"


def test_a_listener_answers_until_it_is_told_to_end(address: str) -> None:
    targets = [f"tcp/{address}:7801", f"udp/{address}:7801"]

    assert listen(address, "tcp/7801", "udp/7801") == ""
    assert port_listener.ask(TOKEN, targets) == []
    port_listener.end(TOKEN, address)
    assert port_listener.ask(TOKEN, targets) == targets


def test_a_listener_ends_by_itself_when_nobody_tells_it_to(address: str) -> None:
    listen(address, "tcp/7801", seconds=2)
    assert port_listener.ask(TOKEN, [f"tcp/{address}:7801"]) == []

    time.sleep(2.5)

    assert port_listener.ask(TOKEN, [f"tcp/{address}:7801"]) == [f"tcp/{address}:7801"]


def test_only_the_right_token_is_answered_over_udp_and_trusted(address: str) -> None:
    listen(address, "tcp/7801", "udp/7801")
    targets = [f"connect/{address}:7801", f"tcp/{address}:7801", f"udp/{address}:7801"]

    assert port_listener.ask("another", targets) == targets[1:]


def test_a_datagram_without_the_token_gets_no_answer(address: str) -> None:
    listen(address, "udp/7801")

    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(0.5)
        stranger.sendto(b"hello", (address, 7801))
        with pytest.raises(TimeoutError):
            stranger.recv(100)


def test_a_lost_datagram_is_sent_again(address: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.bind((address, 7801))
        asking = subprocess.Popen([sys.executable, port_listener.__file__, "ask", TOKEN,
                                   f"udp/{address}:7801"], stdout=subprocess.PIPE, text=True)
        opened.settimeout(5)
        opened.recvfrom(100)
        again, sender = opened.recvfrom(100)
        opened.sendto(again, sender)

    assert asking.communicate(timeout=5)[0].split() == []


def test_a_taken_port_is_reported_with_its_holder(address: str) -> None:
    own = Path("/proc/self/comm").read_text().strip()
    with socket.create_server((address, 7801)), \
            socket.socket(type=socket.SOCK_DGRAM) as opened:
        opened.bind((address, 7802))

        said = listen(address, "tcp/7801", "udp/7801", "udp/7802")

    assert said == f"taken tcp/7801 {own}\ntaken udp/7802 {own}\n"
    assert port_listener.ask(TOKEN, [f"udp/{address}:7801"]) == []


def test_a_port_is_free_as_soon_as_its_listener_has_ended(address: str) -> None:
    for _ in range(3):
        listen(address, "udp/7801")
        port_listener.end(TOKEN, address)
        with socket.socket(type=socket.SOCK_DGRAM) as opened:
            opened.bind((address, 7801))


def test_ports_can_be_bound_again_right_after_use(address: str) -> None:
    for _ in range(2):
        assert listen(address, "tcp/7801") == ""
        assert port_listener.ask(TOKEN, [f"tcp/{address}:7801"]) == []
        port_listener.end(TOKEN, address)
