"""The Swarm's own registry serves its nodes, but only with the password."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from stack.commands.cloud_init import render
from stack.engine.cli import DockerCli
from stack.engine.connection import connect
from stack.engine.engine import Engine
from stack.images import own_registry, registry_access
from stack.images.registry_access import RegistryAccess, check
from stack.inventory import Host, Ssh
from stack.inventory.settings import ROOT
from stack.machines.host_keys import Pinned
from stack.machines.ssh import RemoteMachine
from stack.swarm.membership import membership
from tests.lab import Lab, Machine, host
from tests.support.failing import error_of

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

# No registry is reachable here: the base image is made of the machine's own files.
BASE = "tar --create --one-file-system --directory=/ --exclude=./var/lib/docker " \
    "--exclude='*.deb' . | docker import - localhost:1/base"
IMAGE = "localhost:1/tally/registry:test"
BUILD = "cd /srv/registry && DOCKER_BUILDKIT=1 docker build --quiet " \
    f"--build-arg=BASE=localhost:1/base --tag={IMAGE} ."
# An image with one program and its libraries: small, but it runs.
SLEEP = """
tar --create --dereference --directory=/ usr/bin/sleep \\
    $(ldd /usr/bin/sleep | grep --only-matching '/[^ ]*' | cut --characters=2-) |
docker import --change 'CMD ["/usr/bin/sleep", "600"]' - "$1"
"""
CREDENTIALS = "docker --config=/etc/tally/docker"


@dataclass
class Swarm:
    """A manager, a worker and their registry."""

    manager: Machine
    worker: Machine
    holder: RemoteMachine
    other: RemoteMachine
    changes: list[str]
    registry: RegistryAccess

    @property
    def engine(self) -> Engine:
        return connect(self.holder)

    @property
    def tasks(self) -> list[str]:
        """All of the registry's tasks, past ones included."""
        return self.manager.console(
            "docker service ps --quiet tally-registry_registry").stdout.split()

    def ensure(self) -> list[str]:
        self.registry, changes = own_registry.ensure(
            self.engine, DockerCli(self.holder), membership(self.engine).node_id,
            [self.holder, self.other], [self.holder], f"{self.manager.address}:5000", IMAGE)
        return changes


@pytest.fixture(scope="module")
def swarm(lab: Lab) -> Iterator[Swarm]:
    """Two nodes with the project's firewall; the manager has the registry."""
    manager, worker = lab.boot(user_data=render(lab.public_key), names=["holder", "puller"])
    for machine, peer in ((manager, worker), (worker, manager)):
        machine.console(f"echo {peer.address} > /etc/tally/peers; "
                        "/usr/local/sbin/tally-peers")
    manager.console(f"docker swarm init --advertise-addr={manager.address}")
    token = manager.console("docker swarm join-token --quiet worker").stdout.strip()
    worker.console(f"docker swarm join --token={token} {manager.address}:2377")
    manager.copy_in(ROOT / "stack/images/registry", "/tmp/registry", user="deploy")
    for line in ("mv /tmp/registry /srv/registry", BASE, BUILD):
        manager.console(line)
    holder, other = (reached(lab, machine) for machine in (manager, worker))
    made = Swarm(manager, worker, holder, other, [], RegistryAccess("", "", ""))
    made.changes = made.ensure()
    yield made
    for remote in (holder, other):
        remote.close()
    for machine in (manager, worker):
        lab.discard(machine)


def reached(lab: Lab, machine: Machine) -> RemoteMachine:
    node = Host(machine.address, "manager")
    remote = RemoteMachine(node, Ssh("deploy", 22, lab.private_key), Pinned(lab.known_hosts))
    remote.connect()
    return remote


def refusal(swarm: Swarm, machine: RemoteMachine, asked: RegistryAccess) -> str:
    """Return the error of a machine's engine that can't use a registry."""
    line = error_of(lambda: check(connect(machine), asked))
    start, end = f"the registry {asked.host}: ", ": ./fab bootstrap repairs the Swarm's own; " \
        "for another, correct the inventory"
    assert line.startswith(start) and line.endswith(end)
    return line.removeprefix(start).removesuffix(end)


def pull(machine: Machine, command: str, image: str) -> str:
    """Try to pull; return the last line of the output.

    By tag: for a digest that it already has, an engine doesn't ask the registry.
    """
    done = machine.console(f"{command} pull --quiet {image}", check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.fixture(scope="module")
def tag(swarm: Swarm) -> str:
    """The tag of a small image that the manager has pushed."""
    tag = f"{swarm.registry.prefix}/sleep:1"
    swarm.manager.console(["sh", "-c", SLEEP, "sleep", tag])
    swarm.manager.console(f"{CREDENTIALS} push --quiet {tag}")
    return tag


def test_everything_is_made_on_a_new_swarm(swarm: Swarm) -> None:
    holder, other = swarm.holder.name, swarm.other.name

    assert swarm.changes == [
        "label registry=true", "certificate", f"trust on {holder}, {other}",
        f"credentials on {holder}", "password", "service"]


def test_a_second_run_is_quick_changes_nothing_and_restarts_nothing(swarm: Swarm) -> None:
    before, began = swarm.tasks, time.monotonic()

    changes = swarm.ensure()

    assert (changes, swarm.tasks) == ([], before)
    assert time.monotonic() - began < 15


def test_only_root_can_read_the_credentials(swarm: Swarm) -> None:
    seen = swarm.manager.console("stat --format '%a %U' /etc/tally/docker "
                                 "/etc/tally/docker/config.json").stdout

    assert seen == "700 root\n600 root\n"
    assert swarm.worker.console("ls /etc/tally").stdout == "firewall.nft\npeers\n"


def test_a_node_runs_the_digest_that_another_pushed(swarm: Swarm, tag: str) -> None:
    image, = swarm.manager.console(
        f"docker image inspect --format '{{{{join .RepoDigests \" \"}}}}' {tag}").stdout.split()
    swarm.manager.console(
        f"{CREDENTIALS} service create --detach --with-registry-auth --name sleeper "
        f"--constraint node.hostname==puller {image}")
    running = "docker ps --filter name=sleeper --format {{.Image}}"

    host.wait_until(lambda: image.partition("@")[2] in swarm.worker.console(
        "docker images --digests").stdout, 30, "the image on the other node")
    host.wait_until(lambda: swarm.worker.console(running).stdout != "", 30, "its task")

    swarm.manager.console("docker service rm sleeper")
    assert swarm.worker.console(running).stdout.startswith(swarm.registry.prefix)


def test_nobody_pulls_without_the_password(swarm: Swarm, tag: str) -> None:
    assert pull(swarm.worker, "docker", tag).endswith(": no basic auth credentials")
    assert pull(swarm.manager, "docker", tag).endswith(": no basic auth credentials")


def test_a_wrong_password_is_refused(swarm: Swarm) -> None:
    right = swarm.registry
    wrong = RegistryAccess(right.address, right.user, "wrong", right.ca)

    assert refusal(swarm, swarm.other, wrong) == "it rejects the password"
    check(connect(swarm.other), right)


def test_an_engine_without_the_ca_refuses_the_registry(
        swarm: Swarm) -> None:
    swarm.worker.console("rm -r /etc/docker/certs.d")

    assert refusal(swarm, swarm.other, swarm.registry) == "its certificate isn't trusted"

    assert swarm.ensure() == [f"trust on {swarm.other.name}"]
    check(connect(swarm.other), swarm.registry)


def test_without_tls_nothing_is_revealed(swarm: Swarm) -> None:
    ask = "import urllib.request as r, urllib.error as e\n" \
        f"try: print(r.urlopen('http://{swarm.registry.host}/v2/').read())\n" \
        "except e.HTTPError as error: print(error.code, error.read().decode())"

    assert swarm.worker.console(["python3", "-c", ask]).stdout \
        == "400 Client sent an HTTP request to an HTTPS server.\n\n"


def test_a_missing_registry_is_not_mistaken_for_one_that_refuses(swarm: Swarm) -> None:
    nowhere = RegistryAccess(f"{swarm.worker.address}:5999", "tally", "secret")

    assert refusal(swarm, swarm.other, nowhere) == "nothing is listening there"


def test_lost_credentials_are_replaced_and_the_old_password_fails(
        swarm: Swarm, tag: str) -> None:
    old = swarm.registry
    swarm.manager.console("rm /etc/tally/docker/config.json")

    changes = swarm.ensure()

    assert changes == [f"credentials on {swarm.holder.name}", "password", "service"]
    assert refusal(swarm, swarm.other, old) == "it rejects the password"
    assert registry_access.read_credentials(swarm.holder, swarm.registry.host) \
        == (swarm.registry.user, swarm.registry.password)
    # The image that was pushed earlier is still there.
    assert pull(swarm.manager, CREDENTIALS, tag) == tag


def test_unused_secrets_and_configs_are_removed(swarm: Swarm) -> None:
    kinds = [name.rsplit("-", 1)[0] for what in ("secret", "config") for name in
             swarm.manager.console(f"docker {what} ls --format {{{{.Name}}}}").stdout.split()]

    assert sorted(kinds) == ["tally-registry-certificate", "tally-registry-htpasswd",
                             "tally-registry-key", "tally-registry-state"]
