"""An interrupted bootstrap, at any step, is completed by the next one."""

from collections.abc import Iterator

import pytest

from stack.swarm.secrets import SECRETS
from tests.e2e.cluster import entry, on_all
from tests.e2e.killing import killed_at_every_step
from tests.e2e.laptop import Laptop
from tests.e2e.site import Site
from tests.lab import Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

PACKAGES = "docker.io docker-cli docker-buildx containerd runc mmdebstrap"
# Resets a machine to its state before the first bootstrap, and removes Docker. Built images stay,
# so that a deploy is quick; the base image goes, so that it has to be built.
RESET = f"""
if command -v docker > /dev/null; then
    docker swarm leave --force 2> /dev/null
    docker network rm docker_gwbridge > /dev/null 2>&1
    docker volume rm --force tally_postgres-data > /dev/null
    docker tag localhost:1/tally/base:trixie localhost:1/kept 2> /dev/null
    docker image rm localhost:1/tally/base:trixie > /dev/null 2>&1
    docker images --quiet localhost:1/tally/registry | xargs --no-run-if-empty docker image rm
    systemctl stop docker.socket docker.service containerd.service
    # An overlay network's interface, if Docker had no time to remove it.
    ip -oneline link show type vxlan | cut --delimiter=: --fields=2 | xargs --no-run-if-empty \
        --max-args=1 ip link delete
    DEBIAN_FRONTEND=noninteractive apt-get remove --quiet=2 --yes {PACKAGES}
fi
systemctl disable --quiet --now tally-overlay
rm -rf /etc/docker/certs.d /etc/tally/docker /usr/local/sbin/tally-overlay \
    /etc/systemd/system/tally-overlay.service
systemctl daemon-reload
echo '# Nobody yet.' > /etc/tally/peers
/usr/local/sbin/tally-peers
"""
# A different group ID, as on machines that were installed at different times.
RENUMBER = "groupmod --gid 1234 docker"
MTU = '{{index .Options "com.docker.network.driver.mtu"}}'
NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.Availability}}'"


@pytest.fixture(scope="module")
def reset(laptop: Laptop, managers: list[Machine]) -> Iterator[list[Machine]]:
    """The three machines, without Docker, in no Swarm and on a network of 1400 bytes."""
    on_all(managers, RESET)
    on_all(managers, "ip link set eth0 mtu 1400")
    managers[0].console(RENUMBER)
    laptop.choose([entry(machine) for machine in managers])
    laptop.known_hosts.unlink(missing_ok=True)
    yield managers
    on_all(managers, "ip link set eth0 mtu 1500")


def cut_at(laptop: Laptop, machine: Machine, start: str) -> str:
    """Run a bootstrap and cut a machine's network at a line; return the error message."""
    with laptop.watching("bootstrap", "--accept-new-host-keys") as run:
        assert run.read_until(lambda line: line.startswith(start)), run.printed
        machine.cut_network()
        try:
            code = run.end(timeout=120)
        finally:
            machine.restore_network()
    assert code == 1
    assert not [line for line in run.printed if "Traceback" in line], run.printed
    return run.printed[-1]


def test_a_machine_lost_during_dockers_installation_is_named(
        laptop: Laptop, reset: list[Machine]) -> None:
    berta = reset[1]

    said = cut_at(laptop, berta, f"  docker         {berta.address}")

    assert said.startswith(f"lost contact with {berta.address} while running ")
    assert said.endswith(": when it is back, run the same command again")


def test_a_bootstrap_killed_at_every_step_converges(laptop: Laptop, reset: list[Machine]) -> None:
    assert killed_at_every_step(laptop, "bootstrap", "--accept-new-host-keys") == [
        "cloud-init", "preflight", "peers", "reachable", "host name", "docker …", "docker",
        "overlay", "swarm", "join", "roles", "labels", "secrets", "docker group", "base image …",
        "base image", "data volume", "registry …", "registry"]

    check_whole(reset)


def test_a_machine_lost_while_it_joins_is_named(
        laptop: Laptop, reset: list[Machine]) -> None:
    anna, _, carla = reset
    for line in (f"docker node demote {carla.name}", f"docker node rm --force {carla.name}"):
        anna.console(line)
    carla.console("docker swarm leave --force")

    said = cut_at(laptop, carla, "  swarm")

    assert said.startswith(f"lost contact with {carla.address} while running ")
    done = laptop.fab("bootstrap")
    assert done.code == 0, done.stdout + done.stderr
    check_whole(reset)


def test_a_deploy_succeeds_after_all_interruptions(
        laptop: Laptop, reset: list[Machine]) -> None:
    # With the base image of before, if there was one, the images needn't be built again.
    reset[0].console("docker tag localhost:1/kept localhost:1/tally/base:trixie", check=False)

    done = laptop.fab("bootstrap deploy")

    assert done.code == 0, done.stdout + done.stderr
    status = laptop.fab("status")
    assert status.code == 0, status.stdout + status.stderr


def test_whole_pages_arrive_over_a_network_of_small_packets(
        laptop: Laptop, reset: list[Machine]) -> None:
    sizes = on_all(reset, f"docker network inspect --format '{MTU}' tally_edge docker_gwbridge")
    assert sizes == ["1350\n1400\n"] * len(reset)
    for machine in reset:
        site = Site(machine.address, laptop.shell)
        for _ in range(30):
            assert site.ask(timeout=10).text.rstrip().endswith("</html>")


def check_whole(machines: list[Machine]) -> None:
    """Check that all machines form one Swarm, with everything there once and complete."""
    assert len(set(on_all(machines, "docker info --format {{.Swarm.Cluster.ID}}"))) == 1
    assert sorted(machines[0].console(NODES).stdout.splitlines()) == [
        f"{machine.name} Ready Active" for machine in machines]
    for machine in machines:
        others = [other.address for other in machines if other is not machine]
        peers = machine.console("grep --invert-match ^# /etc/tally/peers").stdout
        assert peers.split() == sorted(others)
    assert made(machines[0], "secret") == sorted(
        [f"tally-{name}" for name in SECRETS] + ["tally-registry-htpasswd", "tally-registry-key"])
    assert made(machines[0], "config") == ["tally-registry-certificate", "tally-registry-state"]
    assert on_all(machines, "systemctl is-enabled tally-overlay; systemctl is-active tally-overlay"
                  ) == ["enabled\nactive\n"] * len(machines)
    assert on_all(machines, "dpkg --audit; ls --directory /var/tmp/tally-base.* 2> /dev/null; "
                  "stat --format=%g /var/run/docker.sock") == ["1234\n"] * len(machines)


def made(machine: Machine, kind: str) -> list[str]:
    """Return the names of the Swarm's secrets or configs without the hash of their content."""
    names = machine.console(f"docker {kind} ls --format {{{{.Name}}}}").stdout.split()
    return sorted(name.rpartition("-")[0] for name in names)
