"""A registry's images are told from those that are missing, and from a registry in trouble."""

import base64
import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import docker
import pytest

from stack.engine import DockerCli
from stack.fleet import Fleet, Member
from stack.images import Build
from stack.inventory import Inventory, Node
from stack.inventory import Registry as Named
from stack.machine import LocalMachine
from stack.registry import Registry
from stack.store import LocalStore, RegistryStore, Store, of, own_address, uses_registry
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

HOST = "192.0.2.1:5000"
TAG = f"{HOST}/tally/app:1.4.0-57"
DIGEST = f"sha256:{'a' * 64}"


class Distribution(Engine):
    """An engine that answers for a registry, and notes who asks."""

    said: tuple[int, Any] = (200, {"Descriptor": {"digest": DIGEST}, "Platforms": []})
    asked: list[str]

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if path[0] != "distribution":
            return super().answer(method, path, query, body)
        self.asked = path[1:]
        return self.said


@pytest.fixture
def engine() -> Distribution:
    return Distribution()


@pytest.fixture
def client(engine: Distribution) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


def store(client: docker.DockerClient, add_command: AddCommand, *lines: str) -> RegistryStore:
    """Return a store whose docker command does what the lines say."""
    add_command("docker", *lines)
    return RegistryStore(client, DockerCli(LocalMachine()), Registry(HOST, "", ""))


def build(tag: str) -> Build:
    return Build("app", tag, ".", {}, {})


def test_an_image_is_named_by_tag_and_digest(
        engine: Distribution, client: docker.DockerClient, add_command: AddCommand) -> None:
    kept = store(client, add_command)
    assert kept.reference(TAG) == f"{TAG}@{DIGEST}"
    assert "/".join(engine.asked) == f"{TAG}/json"
    assert kept.prefix == f"{HOST}/tally"


@pytest.mark.parametrize("said", [
    "manifest unknown: manifest unknown", "errors:\nname unknown: repository name not known",
    f"docker.io/{TAG}: not found"])
@pytest.mark.parametrize("code", [404, 500])
def test_an_image_that_the_registry_lacks_is_missing(
        engine: Distribution, client: docker.DockerClient, add_command: AddCommand, code: int,
        said: str) -> None:
    engine.said = (code, {"message": said})
    kept = store(client, add_command)
    assert not kept.has(TAG)
    assert kept.missing([build(TAG)]) == [build(TAG)]


def test_an_image_that_is_there_isnt_missing(
        client: docker.DockerClient, add_command: AddCommand) -> None:
    assert store(client, add_command).missing([build(TAG)]) == []


@pytest.mark.parametrize(("said", "cause"), [
    ("dial tcp 192.0.2.1:5000: connect: connection refused", "nothing listens there"),
    ("unauthorized: authentication required", "it refuses the password"),
    ("x509: certificate signed by unknown authority", "its certificate isn't trusted"),
    ("something new", "something new")])
def test_a_registry_in_trouble_isnt_one_without_the_image(
        engine: Distribution, client: docker.DockerClient, add_command: AddCommand, said: str,
        cause: str) -> None:
    engine.said = (500, {"message": said})
    kept = store(client, add_command)
    assert error_of(lambda: kept.has(TAG)) == (
        f"the registry {HOST}: {cause}: ./fab bootstrap, then the same command again")


@pytest.mark.parametrize("image", ["registry.example.org/traefik:3.7", f"{HOST}/tally/traefik:9"])
def test_an_image_of_somebody_elses_is_named_by_its_digest_too(
        engine: Distribution, client: docker.DockerClient, add_command: AddCommand,
        image: str) -> None:
    kept = store(client, add_command)
    assert kept.pinned(image) == f"{image}@{DIGEST}"
    assert "/".join(engine.asked) == f"{image}/json"
    assert kept.pinned(f"{image}@{DIGEST}") == f"{image}@{DIGEST}"


def test_an_image_of_somebody_elses_that_cant_be_found_is_refused(
        engine: Distribution, client: docker.DockerClient, add_command: AddCommand) -> None:
    engine.said = (404, {"message": "manifest unknown: manifest unknown"})
    kept = store(client, add_command)
    assert error_of(lambda: kept.pinned("registry.example.org/traefik:9.9")) == (
        "the image registry.example.org/traefik:9.9 can't be found (manifest unknown: manifest "
        "unknown): correct images in the inventory")


def test_an_image_that_was_loaded_on_the_one_machine_is_in_no_registry(
        engine: Distribution, client: docker.DockerClient) -> None:
    engine.kinds["images"] = {"traefik:mine": {"Id": DIGEST}}
    engine.said = (404, {"message": "not found"})
    assert LocalStore(client).pinned("traefik:mine") == "traefik:mine"


def test_every_image_is_pushed(client: docker.DockerClient, add_command: AddCommand,
                               tmp_path: Path) -> None:
    kept = store(client, add_command, f'echo "$*" >> {tmp_path}/pushed')
    kept.keep([build(TAG), build(f"{TAG}-b")])
    kept.keep([])
    assert sorted(line.split()[-1] for line in (tmp_path / "pushed").read_text().splitlines()) \
        == [TAG, f"{TAG}-b"]


def test_a_push_that_fails_is_told(client: docker.DockerClient, add_command: AddCommand) -> None:
    kept = store(client, add_command, 'case "$*" in *push*) echo no space left >&2; exit 1; esac')
    assert error_of(lambda: kept.keep([build(TAG)])) == (
        f"{TAG} could not be pushed (no space left): "
        "nothing was changed; mend the registry, then ./fab deploy")


NODES = tuple(Node(f"192.0.2.{number}", "manager", labels=labels) for number, labels in (
    (1, {"registry": "false"}), (2, {"registry": "true"})))
ALONE, SEVERAL = Inventory("production", NODES[:1]), Inventory("production", NODES)
NAMED = Inventory("production", NODES[:1], registry=Named("registry.example.org/team"))


@pytest.mark.parametrize(("chosen", "uses"), [(ALONE, False), (SEVERAL, True), (NAMED, True)])
def test_several_nodes_and_a_named_registry_make_images_go_through_one(
        chosen: Inventory, uses: bool) -> None:
    assert uses_registry(chosen) is uses


def kept_for(chosen: Inventory | None, client: docker.DockerClient) -> Store:
    machine = LocalMachine()
    return of(Fleet([Member(NODES[0], machine)], chosen), client, machine)


@pytest.mark.parametrize("chosen", [None, ALONE])
def test_one_machine_keeps_its_images_itself(
        chosen: Inventory | None, client: docker.DockerClient) -> None:
    kept = kept_for(chosen, client)
    assert isinstance(kept, LocalStore)
    assert kept.reference("tally/app:1") == "tally/app:1"


def test_a_named_registry_keeps_them(
        client: docker.DockerClient, add_command: AddCommand) -> None:
    add_command("docker")
    kept = kept_for(NAMED, client)
    assert isinstance(kept, RegistryStore)
    assert kept.registry == Registry("registry.example.org/team", "", "")


def test_the_swarms_own_registry_is_on_the_node_with_its_label() -> None:
    holder = Node("203.0.113.2", "manager", IPv4Address("192.0.2.2"), {"registry": "true"})
    assert own_address(Inventory("production", (NODES[0], holder))) == "192.0.2.2:5000"


def test_a_registrys_credentials_go_with_the_question(
        client: docker.DockerClient, add_command: AddCommand) -> None:
    add_command("docker")
    sent: list[str] = []
    client.api.hooks["response"].append(
        lambda response, **kwargs: sent.append(response.request.headers["X-Registry-Auth"]))
    kept = RegistryStore(client, DockerCli(LocalMachine()), Registry(HOST, "tally", "secret"))
    assert kept.has(TAG)
    assert json.loads(base64.urlsafe_b64decode(sent[0])) \
        == {"username": "tally", "password": "secret"}
