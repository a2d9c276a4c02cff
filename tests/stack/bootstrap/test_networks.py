"""Docker's own networks are chosen where no machine has another one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePath
from typing import Any

import pytest

from stack.bootstrap import networks
from stack.bootstrap.networks import POOLS, free_pool
from stack.inventory import Host
from stack.machines import routes
from stack.machines.local import LocalMachine
from stack.machines.machine import Completed, Input
from stack.machines.routes import Route
from stack.swarm.fleet import Member
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.executables import answering
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

ROUTES = """\
default via 192.168.1.1 dev eth0 proto dhcp src 192.168.1.20 metric 100
0.0.0.0/1 via 10.8.0.1 dev tun0
128.0.0.0/1 via 10.8.0.1 dev tun0
10.8.0.0/24 dev tun0 proto kernel scope link src 10.8.0.2
169.254.169.254 via 192.168.1.1 dev eth0 proto dhcp src 192.168.1.20 metric 100
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
unreachable 10.9.0.0/16 proto static
192.168.1.0/24 dev eth0 proto kernel scope link src 192.168.1.20 metric 100"""


# A machine with a private network behind a router, and Docker's bridges of the default subnets.
NETWORK = """
set -eu
ip link set lo up
ip link add eth1 type veth peer name switch
ip link set switch up
ip link set eth1 up mtu 1450
ip addr add 192.0.2.1/24 dev eth1
ip route add default via 192.0.2.254
ip route add 198.51.100.0/24 via 192.0.2.254 mtu 1300
ip route add unreachable 203.0.113.0/24
for bridge in "docker0 172.17.0.1" "docker_gwbridge 172.18.0.1" "br-0123456789ab 172.19.0.1"; do
    set_up=${bridge% *}
    ip link add "$set_up" type bridge
    ip addr add "${bridge#* }/16" dev "$set_up"
    ip link set "$set_up" up
done
"""


class Elsewhere(LocalMachine):
    """This machine with a network of its own, which the kernel makes anew for each command."""

    name = "one"

    def run(self, command: Sequence[str], *, stdin: Input = None,
            env: Mapping[str, str] | None = None, cwd: PurePath | None = None,
            timeout: float | None = None) -> Completed:
        return super().run(["unshare", "--net", "sh", "-c", f'{NETWORK} exec "$@"', "in", *command],
                           stdin=stdin, env=env, cwd=cwd, timeout=timeout)


def fleet(*private: str) -> list[Member]:
    """Return machines with these private addresses, the first one elsewhere."""
    members = [Member(Host(f"m{number}", "manager", IPv4Address(address)), LocalMachine())
               for number, address in enumerate(private, 1)]
    return [replace(members[0], machine=Elsewhere()), *members[1:]]


def test_routes_are_read_without_the_default_route(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("ip", '[ "$*" = "-4 route show" ] || exit 1', *answering(ROUTES))
    assert routes.networks(machine) == [IPv4Network(text) for text in (
        "10.8.0.0/24", "169.254.169.254/32", "172.17.0.0/16", "192.168.1.0/24")]


@pytest.mark.parametrize(("taken", "pool"), [
    ([], "10.201.0.0/16"),
    (["10.200.0.0/16", "192.168.0.0/24"], "10.201.0.0/16"),
    (["10.201.7.0/24"], "172.29.0.0/16"),
    (["10.0.0.0/8"], "172.29.0.0/16"),
    (["10.201.0.0/16", "172.16.0.0/12"], "10.77.0.0/16"),
    (["10.0.0.0/8", "172.16.0.0/12"], "192.168.192.0/18")])
def test_the_first_free_network_is_chosen(taken: list[str], pool: str) -> None:
    assert free_pool(map(IPv4Network, taken)) == IPv4Network(pool)


def test_without_a_free_network_it_is_refused() -> None:
    assert error_of(lambda: free_pool(POOLS)) == (
        "no network is left for the Swarm's own: every one of 10.201.0.0/16, 172.29.0.0/16, "
        "10.77.0.0/16, 192.168.192.0/18 is in use: docker swarm init by hand")


def test_the_kernel_says_how_packets_reach_a_peer() -> None:
    assert routes.to_peers(Elsewhere(), [
        "192.0.2.2", "198.51.100.7", "203.0.113.1", "172.18.6.12"]) == [
        Route("192.0.2.2", "eth1", 1450), Route("198.51.100.7", "eth1", 1300),
        Route("172.18.6.12", "docker_gwbridge", 1500)]


def test_private_addresses_that_docker_leaves_alone_are_accepted() -> None:
    assert networks.complaints(fleet("192.0.2.1", "192.0.2.2")[:1]) == []
    members = fleet("192.0.2.1", "192.0.2.2")
    assert networks.complaints([members[0], replace(members[1], machine=Elsewhere())]) == []


@pytest.mark.parametrize(("private", "link", "remedy"), [
    ("172.17.6.12", "docker0", 'there: add "bip": "172.31.0.1/16" to /etc/docker/daemon.json and '
     "restart Docker, then ./fab bootstrap"),
    ("172.18.6.12", "docker_gwbridge", "there: docker network rm docker_gwbridge, then ./fab "
     "bootstrap, which chooses another; on a node of the Swarm, first ./fab node.drain it, and "
     "docker network disconnect --force docker_gwbridge gateway_ingress-sbox"),
    ("172.19.6.12", "br-0123456789ab", "there: docker network rm 0123456789ab")])
def test_a_private_address_in_a_network_of_dockers_is_refused(
        add_command: AddCommand, private: str, link: str, remedy: str) -> None:
    add_command("ip", 'case "$*" in *"route show") exit 0;; esac', 'exec /sbin/ip "$@"')
    members = fleet("192.0.2.1", private)
    assert [str(line) for line in networks.complaints(members)] == [
        f"one: its packets to {private}, the private address of this machine, end in Docker's "
        f"own network {link}: {remedy}"]


def test_what_is_taken_are_all_machines_routes_and_private_addresses() -> None:
    members = fleet("192.0.2.1", "10.201.6.12")
    found = networks.taken([members[0], replace(members[1], machine=Elsewhere())])
    assert {IPv4Network("172.18.0.0/16"), IPv4Network("198.51.100.0/24"),
            IPv4Network("10.201.6.12/32")} <= set(found)
    assert free_pool(found) == IPv4Network("172.29.0.0/16")


@pytest.mark.parametrize(("private", "settings"), [
    ("10.0.0.2", {}), ("172.17.6.12", {"bip": "172.31.0.1/16"}),
    ("172.31.6.12", {})])
def test_dockers_default_bridge_avoids_private_addresses(
        private: str, settings: dict[str, str]) -> None:
    assert networks.bridge_settings(fleet("10.0.0.1", private)) == settings


@pytest.mark.parametrize(("private", "subnet"), [
    ("10.0.0.2", "172.30.0.0/16"), ("172.30.6.12", "10.202.0.0/16")])
def test_the_gateway_is_made_where_nothing_overlaps_it(
        add_command: AddCommand, tmp_path: Path, private: str, subnet: str) -> None:
    # On this machine, docker_gwbridge's usual subnet is somebody else's.
    add_command("docker", f'echo "$*" >> {tmp_path}/said; [ "$2" != inspect ]')
    members = fleet("10.0.0.1", private)
    assert networks.ensure_gateway(members[0], members) == f"docker_gwbridge takes {subnet}"
    assert (tmp_path / "said").read_text().splitlines() == [
        "network inspect docker_gwbridge", f"network create --subnet={subnet} "
        "--opt=com.docker.network.bridge.name=docker_gwbridge "
        "--opt=com.docker.network.bridge.enable_icc=false "
        "--opt=com.docker.network.bridge.enable_ip_masquerade=true "
        "--opt=com.docker.network.driver.mtu=1450 docker_gwbridge"]


def test_the_gateways_packets_are_of_the_usual_size_on_ethernet(
        add_command: AddCommand, tmp_path: Path) -> None:
    add_command("docker", f'echo "$*" >> {tmp_path}/said; [ "$2" != inspect ]')
    alone = fleet("192.0.2.1")
    networks.ensure_gateway(alone[0], alone)
    assert "network create " in (tmp_path / "said").read_text()
    assert "driver.mtu" not in (tmp_path / "said").read_text()


def test_a_gateway_that_exists_is_left_alone(add_command: AddCommand) -> None:
    add_command("docker", '[ "$*" = "network inspect docker_gwbridge" ]')
    members = fleet("10.0.0.1", "10.0.0.2")
    assert networks.ensure_gateway(members[0], members) == ""


def test_an_existing_swarms_networks_that_take_private_addresses_are_named() -> None:
    def network(name: str, subnet: str, driver: str = "overlay") -> dict[str, Any]:
        return {"Id": name, "Name": name, "Driver": driver,
                "IPAM": {"Config": [{"Subnet": subnet}]}}
    fake = FakeEngine()
    fake.kinds["networks"] = {"a": network("tally_edge", "10.0.1.0/24"),
                              "b": network("tally_data", "10.0.2.0/24"),
                              "c": network("bridge", "10.0.1.0/24", "bridge"),
                              "d": {"Id": "d", "Name": "host", "Driver": "host", "IPAM": {}}}
    with reached(fake) as engine:
        found = networks.overlaps(engine, fleet("10.0.1.11", "192.0.2.2"))
    assert [str(line) for line in found] == [
        "tally_edge takes 10.0.1.0/24, and with it 10.0.1.11, the private address of one: its "
        "containers can't reach that machine: a Swarm keeps its address pool; docs/scaling.md says "
        "what another one takes"]
