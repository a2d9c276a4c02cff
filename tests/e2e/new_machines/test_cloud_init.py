"""A machine with the project's user-data admits the operator, visitors and peers, nobody else."""

import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stack.commands.cloud_init import render
from tests.e2e import ports
from tests.e2e.ports import answering
from tests.lab import Lab, Machine, host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

PUBLIC = {"tcp/22", "tcp/80", "tcp/443"}
CLUSTER = {"tcp/2377", "tcp/5000", "tcp/7946", "udp/4789", "udp/7946"}
# Half of the ports that must stay closed are the machine's own; containers publish the others.
OWN = {"tcp/80", "tcp/2377", "tcp/7946", "tcp/9100", "udp/4789", "udp/7946", "udp/9100"}
PUBLISHED = {"tcp/443", "tcp/5000", "tcp/8080", "udp/5000", "udp/8053"}
# What a scanner tries first: well-known ports, Docker's, databases' and monitoring's.
KNOWN = {f"{kind}/{number}" for kind in ("tcp", "udp") for number in (
    20, 21, 22, 23, 25, 53, 67, 68, 69, 80, 81, 110, 111, 123, 135, 137, 139, 143, 161, 179, 389,
    443, 445, 465, 500, 514, 546, 587, 631, 636, 853, 873, 990, 993, 995, 1433, 1900, 2049, 2375,
    2376, 3000, 3306, 3389, 4243, 5353, 5355, 5432, 5601, 6379, 6443, 8000, 8008, 8443, 8888, 9000,
    9090, 9093, 9443, 10250, 11211, 15672, 27017, 50000)}
SCANNED = KNOWN | OWN | PUBLISHED | CLUSTER
# A network for containers, behind a bridge that Docker names.
CONTAINERS = "192.0.2.0/24"
CONTAINER = "192.0.2.80"
SCRIPT = "/srv/ports.py"
# No registry is reachable here, so containers use the machine's own programs.
BORROWED = f"--volume=/usr:/usr:ro --volume={SCRIPT}:{SCRIPT}:ro borrowed python3 -u {SCRIPT}"
# Restarts after a reboot. KILL, because Python as PID 1 would ignore the default signal for 10 s.
LASTING = "--restart always --stop-signal KILL"
# A security archive on this machine only, with one of Docker's packages and another package.
ARCHIVE = """
set -eu
mkdir -p /srv/archive && cd /srv/archive
for package in docker.io procps; do
    mkdir -p $package/DEBIAN
    printf '%s\\n' "Package: $package" 'Version: 9:1' 'Architecture: all' \\
        'Maintainer: Nobody <nobody@example.org>' 'Description: newer' > $package/DEBIAN/control
    dpkg-deb --build $package $package.deb
    { cat $package/DEBIAN/control
      printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' $package.deb \\
          "$(stat --format=%s $package.deb)" "$(sha256sum $package.deb | cut -d' ' -f1)"
    } >> Packages
done
. /etc/os-release
printf '%s\\n' 'Origin: Debian' 'Label: Debian-Security' "Codename: $VERSION_CODENAME-security" \\
    > Release
echo 'deb [trusted=yes] file:/srv/archive ./' > /etc/apt/sources.list.d/archive.list
apt-get update --quiet=2 --option Dir::Etc::SourceList=sources.list.d/archive.list \\
    --option Dir::Etc::SourceParts=- --option APT::Get::List-Cleanup=0
"""


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[tuple[Machine, Machine]]:
    """Boot two nodes with only the user-data; neither knows the other."""
    node, other = lab.boot(user_data=render(lab.public_key), names=["node", "other"])
    yield node, other
    lab.discard(node)
    lab.discard(other)


@pytest.fixture(scope="module")
def node(pair: tuple[Machine, Machine]) -> Machine:
    """Make services and containers of a node answer on many ports, also after a reboot."""
    node, _ = pair
    install_script(node)
    node.console("tar -cC / bin lib lib64 | docker import - borrowed")
    node.console(f"docker network create --subnet {CONTAINERS} web")
    node.console(f"docker run --detach --name own {LASTING} --network host "
                 f"{BORROWED} listen {' '.join(OWN)}")
    published = " ".join(f"--publish={port.split('/')[1]}:{port.split('/')[1]}/{port.split('/')[0]}"
                         for port in PUBLISHED)
    node.console(f"docker run --detach --name published {LASTING} --network web "
                 f"--ip {CONTAINER} {published} {BORROWED} listen {' '.join(PUBLISHED)}")
    return node


@pytest.fixture(scope="module")
def other(pair: tuple[Machine, Machine]) -> Machine:
    """Make the other node's Swarm port answer, to show that containers can't reach it."""
    _, other = pair
    install_script(other)
    other.console(f"systemd-run --unit=listen python3 {SCRIPT} listen tcp/2377")
    return other


@pytest.fixture
def peers(node: Machine, other: Machine) -> None:
    """Make the two nodes peers."""
    set_peers(node, other.address)
    set_peers(other, node.address)


def carry_out(machine: Machine, change: str) -> None:
    """Reboot or restart a unit, and wait until it is done."""
    if change == "reboot":
        machine.reboot()
    else:
        machine.console(["systemctl", "restart", change])


def install_script(machine: Machine) -> None:
    machine.copy_in(ports.__file__, "/tmp/ports.py", user="deploy")
    machine.console(f"cp /tmp/ports.py {SCRIPT}")


def set_peers(machine: Machine, *addresses: str) -> None:
    """Write the peers and apply them, as bootstrap does over SSH."""
    machine.run(f"printf '%s\\n' {shlex.join(addresses)} | sudo tee /etc/tally/peers && "
                "sudo /usr/local/sbin/tally-peers", user="deploy")


def seen_from(machine: Machine, address: str, scanned: set[str] = SCANNED) -> set[str]:
    """Return the ports of an address that answer to a machine."""
    return set(machine.console(["python3", SCRIPT, "find", address, *scanned]).stdout.split())


def seen_from_container(machine: Machine, address: str, scanned: set[str]) -> set[str]:
    line = f"docker run --rm {BORROWED} find {address} {' '.join(scanned)}"
    return set(machine.console(line).stdout.split())


def link_local(machine: Machine) -> str:
    """Return the machine's link-local IPv6 address, with the host's interface."""
    route = json.loads(host.call(["ip", "-json", "route", "get", machine.address]))
    shown = json.loads(machine.console("ip -json -6 address show eth0 scope link").stdout)
    return f"{shown[0]['addr_info'][0]['local']}%{route[0]['dev']}"


def log_in(machine: Machine, user: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Try to log in over a new connection."""
    argv = ["ssh", "-oControlPath=none", *options, *machine.ssh.options(),
            f"{user}@{machine.address}", "true"]
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_cloud_init_finishes_without_errors(pair: tuple[Machine, Machine]) -> None:
    for machine in pair:
        status = json.loads(machine.console("cloud-init status --format json").stdout)
        valid = machine.console("cloud-init schema --system", check=False)

        assert (status["status"], status["errors"]) == ("done", [])
        assert status["recoverable_errors"] == {}
        assert valid.code == 0, valid.stdout + valid.stderr
        machine.console("systemctl is-system-running --wait", check=False)
        assert machine.console("systemctl list-units --failed --plain --no-legend").stdout == ""


def test_the_operator_logs_in_with_the_key_and_becomes_root(node: Machine) -> None:
    assert node.run("id -un; sudo id -un; docker info --format {{.LoggingDriver}}",
                    user="deploy").stdout == "deploy\nroot\nlocal\n"


def test_root_is_refused_even_with_an_authorized_key(lab: Lab, node: Machine) -> None:
    assert lab.public_key in node.console("cat /root/.ssh/authorized_keys").stdout

    refused = log_in(node, "root")

    assert (refused.returncode, refused.stderr) == (
        255, f"root@{node.address}: Permission denied (publickey).\n")


def test_a_password_is_refused_even_if_it_is_right(
        node: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node.console("echo deploy:correct-horse | chpasswd")
    answer = tmp_path / "answer"
    answer.write_text("#!/bin/sh\necho correct-horse\n")
    answer.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(answer))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")

    refused = log_in(node, "deploy", "-oBatchMode=no", "-oPubkeyAuthentication=no")

    node.console("passwd --lock deploy")
    assert (refused.returncode, refused.stderr) == (
        255, f"deploy@{node.address}: Permission denied (publickey).\n")


def test_containers_have_the_daemons_settings(node: Machine) -> None:
    inside = node.console("docker exec published sh -c "
                          "'ulimit -Sn; ulimit -Hn; grep NoNewPrivs /proc/self/status'").stdout
    logs = node.console("docker inspect --format '{{json .HostConfig.LogConfig}}' published").stdout

    assert inside == "16384\n16384\nNoNewPrivs:\t1\n"
    assert json.loads(logs) == {"Type": "local", "Config": {"max-file": "3", "max-size": "10m"}}


def test_images_can_be_built_with_buildkit(node: Machine) -> None:
    node.console("echo 'FROM borrowed' | DOCKER_BUILDKIT=1 docker build --tag built -")

    assert node.console("docker image inspect --format {{.Os}} built").stdout == "linux\n"


def test_a_new_machine_has_no_peers(lab: Lab, node: Machine, other: Machine) -> None:
    for line in node.console("cat /etc/tally/peers").stdout.splitlines():
        assert line.startswith("#")

    assert answering(node.address, SCANNED) == PUBLIC
    assert seen_from(other, node.address) == PUBLIC


def test_only_the_public_ports_answer_over_ipv6(node: Machine) -> None:
    assert answering(link_local(node), SCANNED) == PUBLIC


def test_the_cluster_ports_answer_only_to_peers(
        node: Machine, other: Machine, peers: None) -> None:
    assert seen_from(other, node.address) == PUBLIC | CLUSTER
    assert answering(node.address, SCANNED) == PUBLIC


def test_everything_answers_without_the_firewall(node: Machine) -> None:
    node.console("nft delete table inet tally")

    found = answering(node.address, OWN | PUBLISHED | {"tcp/22"})

    node.console("systemctl restart tally-firewall")
    assert found == OWN | PUBLISHED | {"tcp/22"}
    assert answering(node.address, OWN | PUBLISHED | {"tcp/22"}) == PUBLIC


def test_docker_does_not_start_without_the_firewall(node: Machine) -> None:
    node.console("nft delete table inet tally")

    refused = node.console("systemctl restart docker.service", check=False)

    node.console("systemctl restart tally-firewall; systemctl reset-failed docker.service; "
                 "systemctl start docker.service")
    assert refused.code != 0


@pytest.mark.parametrize("change", ["docker.service", "tally-firewall.service", "reboot"])
def test_no_port_opens_during_or_after_a_change(
        node: Machine, other: Machine, peers: None, change: str) -> None:
    answered = set()
    with ThreadPoolExecutor() as pool:
        changing = pool.submit(carry_out, node, change)
        while not changing.done():
            answered |= answering(node.address, OWN | PUBLISHED, patience=0.2)
        changing.result()
    host.wait_until(lambda: seen_from(other, node.address, CLUSTER) == CLUSTER, 30, "its services")

    assert answered <= PUBLIC
    assert answering(node.address, SCANNED) == PUBLIC
    assert seen_from(other, node.address) == PUBLIC | CLUSTER


def test_a_container_is_never_a_peer(
        node: Machine, other: Machine, peers: None) -> None:
    assert seen_from(node, other.address, {"tcp/22", "tcp/2377"}) == {"tcp/22", "tcp/2377"}
    assert seen_from_container(node, other.address, {"tcp/22", "tcp/2377"}) == {"tcp/22"}

    assert seen_from_container(node, node.address, {"tcp/22", "tcp/9100", *CLUSTER}) \
        == {"tcp/22", "tcp/9100"}


def test_a_containers_own_address_cannot_be_reached(
        node: Machine, other: Machine, peers: None) -> None:
    other.console(f"ip route add {CONTAINERS} via {node.address}")

    found = seen_from(other, CONTAINER, PUBLISHED)

    other.console(f"ip route del {CONTAINERS}")
    assert found == set()
    assert seen_from(node, CONTAINER, PUBLISHED) == PUBLISHED


def test_a_peers_address_counts_only_on_the_peers_interface(
        lab: Lab, node: Machine, peers: None) -> None:
    peer, impostor = lab.client_addresses[:2]
    set_peers(node, peer, impostor)
    node.console(f"ip link add elsewhere type bridge && ip link set elsewhere up && "
                 f"ip route add {impostor} dev elsewhere")

    for address in (impostor, peer):
        send(address, node.address, 4789)

    host.wait_until(lambda: f"udp/4789 {peer}\n" in heard(node), 5, "the peer's datagram")
    node.console("ip link del elsewhere")
    assert f"udp/4789 {impostor}\n" not in heard(node)


def test_networks_and_ipv6_addresses_can_be_peers(
        lab: Lab, node: Machine, other: Machine) -> None:
    set_peers(node, f"{lab.client_addresses[0]}/32", "2001:db8::/32", "fe80::/10", "fe80::1",
              "# a comment", "")

    assert answering(link_local(node), CLUSTER) == CLUSTER
    assert seen_from(other, node.address, CLUSTER) == set()


def test_a_bad_address_is_named_and_the_peers_stay(
        node: Machine, other: Machine, peers: None) -> None:
    node.console("echo 198.51.100.300 >> /etc/tally/peers")

    refused = node.console("systemctl reload tally-firewall", check=False)

    assert refused.code != 0
    assert "'198.51.100.300' does not appear to be an IPv4 or IPv6 network" in node.console(
        "journalctl --unit=tally-firewall --lines=5 --output=cat").stdout
    assert seen_from(other, node.address, CLUSTER) == CLUSTER


def test_security_upgrades_are_automatic_but_never_include_docker(node: Machine) -> None:
    node.console(ARCHIVE)

    plan = node.console("unattended-upgrade --dry-run --debug 2>&1").stdout

    assert "pkg docker.io package has been blacklisted\n" in plan
    assert "pkgs that look like they should be upgraded: procps\n" in plan
    assert node.console("systemctl is-enabled apt-daily-upgrade.timer").stdout == "enabled\n"
    shown = node.console("apt-config shell every APT::Periodic::Unattended-Upgrade").stdout
    assert shown == "every='1'\n"


def test_the_clock_is_synchronized_outside_containers(node: Machine) -> None:
    """In a container, systemd doesn't set the clock, which is the host's; in a VM it does."""
    assert node.console("systemctl is-enabled systemd-timesyncd").stdout == "enabled\n"
    assert node.console("systemctl show --property=ConditionResult systemd-timesyncd").stdout \
        == "ConditionResult=no\n"
    assert "ConditionVirtualization=!container" in node.console(
        "systemctl cat systemd-timesyncd").stdout


def test_the_kernels_network_settings_apply(node: Machine) -> None:
    """Not the other settings: a container shares them with its host and can't change them."""
    wanted = [line for line in node.console("cat /etc/sysctl.d/60-tally.conf").stdout.splitlines()
              if line.startswith("net.")]

    assert node.console(["sysctl", *(line.split(" = ")[0] for line in wanted)]).stdout \
        .splitlines() == wanted


def send(source: str, target: str, port: int) -> None:
    """Send one datagram from one of the host's addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        sender.sendto(b"?", (target, port))


def heard(machine: Machine) -> str:
    """Return the senders of the datagrams that the machine's own service received."""
    return machine.console("docker logs own").stdout
