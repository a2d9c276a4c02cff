"""A bootstrap that is broken off, wherever that is, is made good by the next one."""

import pytest

from stack.swarm import SECRETS
from tests.e2e.cluster import entry, on_all
from tests.e2e.killing import killed_at_every_step
from tests.e2e.laptop import Laptop
from tests.lab import Machine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]

PACKAGES = "docker.io docker-cli docker-buildx containerd runc mmdebstrap"
# As a machine was before its first bootstrap, but without Docker. The images that were built stay,
# so that a deploy is quick; the base image goes, so that it has to be built.
RESET = f"""
if command -v docker > /dev/null; then
    docker swarm leave --force 2> /dev/null
    docker volume rm --force tally_postgres-data > /dev/null
    docker tag localhost:1/tally/base:trixie localhost:1/kept 2> /dev/null
    docker image rm localhost:1/tally/base:trixie > /dev/null 2>&1
    docker images --quiet localhost:1/tally/registry | xargs --no-run-if-empty docker image rm
    systemctl stop docker.socket docker.service containerd.service
    # An overlay network's, if Docker had no time to take it along.
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
# A group number of its own, as on machines that were installed at different times.
RENUMBER = "groupmod --gid 1234 docker"
NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.Availability}}'"


@pytest.fixture(scope="module")
def reset(laptop: Laptop, managers: list[Machine]) -> list[Machine]:
    """The three machines, none of them in a Swarm and all without Docker."""
    on_all(managers, RESET)
    managers[0].console(RENUMBER)
    laptop.choose([entry(machine) for machine in managers])
    laptop.known_hosts.unlink(missing_ok=True)
    return managers


def cut_at(laptop: Laptop, machine: Machine, start: str) -> str:
    """Run a bootstrap and pull a machine's cable at a line; return the one line of its end."""
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


def test_a_machine_that_is_lost_while_docker_is_installed_is_named(
        laptop: Laptop, reset: list[Machine]) -> None:
    berta = reset[1]

    said = cut_at(laptop, berta, f"  docker         {berta.address}")

    assert said.startswith(f"{berta.address} went away in the middle of ")
    assert said.endswith(": when it is back, the same command again")


def test_killed_at_every_step_it_converges(laptop: Laptop, reset: list[Machine]) -> None:
    assert killed_at_every_step(laptop, "bootstrap", "--accept-new-host-keys") == [
        "cloud-init", "preflight", "peers", "reachable", "docker …", "docker", "overlay",
        "swarm", "join", "roles", "labels", "secrets", "docker group", "base image …",
        "base image", "data volume", "registry …", "registry"]

    check_whole(reset)


def test_a_machine_that_is_lost_while_it_joins_is_named(
        laptop: Laptop, reset: list[Machine]) -> None:
    anna, _, carla = reset
    for line in (f"docker node demote {carla.name}", f"docker node rm --force {carla.name}"):
        anna.console(line)
    carla.console("docker swarm leave --force")

    said = cut_at(laptop, carla, "  swarm")

    assert said.startswith(f"{carla.address} went away in the middle of ")
    done = laptop.fab("bootstrap")
    assert done.code == 0, done.stdout + done.stderr
    check_whole(reset)


def test_what_was_broken_off_so_often_takes_a_deploy(
        laptop: Laptop, reset: list[Machine]) -> None:
    reset[0].console("docker tag localhost:1/kept localhost:1/tally/base:trixie")

    done = laptop.fab("bootstrap deploy")

    assert done.code == 0, done.stdout + done.stderr
    status = laptop.fab("status")
    assert status.code == 0, status.stdout + status.stderr


def check_whole(machines: list[Machine]) -> None:
    """See that there is one Swarm of all machines, everything once, and nothing half done."""
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
