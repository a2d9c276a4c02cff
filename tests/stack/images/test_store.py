"""A present image, a missing image and a failing registry are told apart."""

import base64
import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from stack.engine.cli import DockerCli
from stack.engine.engine import Engine
from stack.images.builds import Build
from stack.images.registry_access import RegistryAccess
from stack.images.store import LocalStore, RegistryStore, Store, of, own_address
from stack.inventory import Host, Inventory
from stack.inventory import Registry as Named
from stack.machines.local import LocalMachine
from stack.swarm.fleet import Fleet, Member
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, listening
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

HOST = "192.0.2.1:5000"
TAG = f"{HOST}/tally/app:1.4.0-57"
DIGEST = f"sha256:{'a' * 64}"


class Distribution(FakeEngine):
    """An engine that answers for a registry, and records who asks."""

    said: tuple[int, Any] = (200, {"Descriptor": {"digest": DIGEST}, "Platforms": []})
    asked: list[str]

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if path[0] != "distribution":
            return super().answer(method, path, query, body)
        self.asked = path[1:]
        return self.said


@pytest.fixture
def fake() -> Distribution:
    return Distribution()


def store(engine: Engine, add_command: AddCommand, *lines: str) -> RegistryStore:
    """Return a store whose docker command runs these lines."""
    add_command("docker", *lines)
    return RegistryStore(engine, DockerCli(LocalMachine()), RegistryAccess(HOST, "", ""))


def build(tag: str) -> Build:
    return Build("app", tag, ".", {}, {})


def test_an_image_is_named_by_tag_and_digest(
        fake: Distribution, engine: Engine, add_command: AddCommand) -> None:
    kept = store(engine, add_command)
    assert kept.reference(TAG) == f"{TAG}@{DIGEST}"
    assert "/".join(fake.asked) == f"{TAG}/json"
    assert kept.prefix == f"{HOST}/tally"


@pytest.mark.parametrize("said", [
    "manifest unknown: manifest unknown", "errors:\nname unknown: repository name not known",
    f"docker.io/{TAG}: not found"])
@pytest.mark.parametrize("code", [404, 500])
def test_an_image_that_the_registry_lacks_is_missing(
        fake: Distribution, engine: Engine, add_command: AddCommand, code: int,
        said: str) -> None:
    fake.said = (code, {"message": said})
    kept = store(engine, add_command)
    assert not kept.has(TAG)
    assert kept.missing([build(TAG)]) == [build(TAG)]


def test_an_existing_image_isnt_missing(
        engine: Engine, add_command: AddCommand) -> None:
    assert store(engine, add_command).missing([build(TAG)]) == []


@pytest.mark.parametrize(("said", "cause"), [
    ("dial tcp 192.0.2.1:5000: connect: connection refused", "nothing is listening there"),
    ("unauthorized: authentication required", "it rejects the password"),
    ("x509: certificate signed by unknown authority", "its certificate isn't trusted"),
    ("something new", "something new")])
def test_a_failing_registry_doesnt_mean_a_missing_image(
        fake: Distribution, engine: Engine, add_command: AddCommand, said: str,
        cause: str) -> None:
    fake.said = (500, {"message": said})
    kept = store(engine, add_command)
    assert error_of(lambda: kept.has(TAG)) == (
        f"the registry {HOST}: {cause}: ./fab bootstrap, then the same command again")


@pytest.mark.parametrize("image", ["registry.example.org/traefik:3.7", f"{HOST}/tally/traefik:9"])
def test_a_third_party_image_is_named_by_its_digest_too(
        fake: Distribution, engine: Engine, add_command: AddCommand,
        image: str) -> None:
    kept = store(engine, add_command)
    assert kept.pinned(image) == f"{image}@{DIGEST}"
    assert "/".join(fake.asked) == f"{image}/json"
    assert kept.pinned(f"{image}@{DIGEST}") == f"{image}@{DIGEST}"


def test_a_third_party_image_that_cant_be_found_is_refused(
        fake: Distribution, engine: Engine, add_command: AddCommand) -> None:
    fake.said = (404, {"message": "manifest unknown: manifest unknown"})
    kept = store(engine, add_command)
    assert error_of(lambda: kept.pinned("registry.example.org/traefik:9.9")) == (
        "the image registry.example.org/traefik:9.9 can't be found (manifest unknown: manifest "
        "unknown): correct images in the inventory")


def test_an_image_loaded_on_a_single_machine_needs_no_registry(
        fake: Distribution, engine: Engine) -> None:
    fake.kinds["images"] = {"traefik:mine": {"Id": DIGEST}}
    fake.said = (404, {"message": "not found"})
    assert LocalStore(engine).pinned("traefik:mine") == "traefik:mine"


def test_every_image_is_pushed(engine: Engine, add_command: AddCommand,
                               tmp_path: Path) -> None:
    kept = store(engine, add_command, f'echo "$*" >> {tmp_path}/pushed')
    kept.keep([build(TAG), build(f"{TAG}-b")])
    kept.keep([])
    assert sorted(line.split()[-1] for line in (tmp_path / "pushed").read_text().splitlines()) \
        == [TAG, f"{TAG}-b"]


def test_a_failed_push_is_reported(engine: Engine, add_command: AddCommand) -> None:
    kept = store(engine, add_command, 'case "$*" in *push*) echo no space left >&2; exit 1; esac')
    assert error_of(lambda: kept.keep([build(TAG)])) == (
        f"{TAG} could not be pushed (no space left): "
        "nothing was changed; fix the registry, then ./fab deploy")


NODES = tuple(Host(f"192.0.2.{number}", "manager", labels=labels) for number, labels in (
    (1, {"registry": "false"}), (2, {"registry": "true"})))
ALONE, SEVERAL = Inventory("production", NODES[:1]), Inventory("production", NODES)
NAMED = Inventory("production", NODES[:1], registry=Named("registry.example.org/team"))


@pytest.mark.parametrize(("chosen", "uses"), [(ALONE, False), (SEVERAL, True), (NAMED, True)])
def test_several_nodes_or_a_named_registry_use_a_registry(
        chosen: Inventory, uses: bool) -> None:
    assert chosen.uses_registry is uses


def kept_for(chosen: Inventory | None, engine: Engine) -> Store:
    machine = LocalMachine()
    return of(Fleet([Member(NODES[0], machine)], chosen), engine, machine)


@pytest.mark.parametrize("chosen", [None, ALONE])
def test_one_machine_keeps_its_images_itself(
        chosen: Inventory | None, engine: Engine) -> None:
    kept = kept_for(chosen, engine)
    assert isinstance(kept, LocalStore)
    assert kept.reference("tally/app:1") == "tally/app:1"


def test_a_named_registry_keeps_them(
        engine: Engine, add_command: AddCommand) -> None:
    add_command("docker")
    kept = kept_for(NAMED, engine)
    assert isinstance(kept, RegistryStore)
    assert kept.registry == RegistryAccess("registry.example.org/team", "", "")


def test_the_swarms_own_registry_is_on_the_node_with_its_label() -> None:
    holder = Host("203.0.113.2", "manager", IPv4Address("192.0.2.2"), {"registry": "true"})
    assert own_address(Inventory("production", (NODES[0], holder))) == "192.0.2.2:5000"


def test_a_registrys_credentials_are_sent_with_the_request(
        fake: Distribution, add_command: AddCommand) -> None:
    add_command("docker")
    sent: list[str] = []
    with listening(fake) as client:
        client.api.hooks["response"].append(
            lambda response, **kwargs: sent.append(response.request.headers["X-Registry-Auth"]))
        kept = RegistryStore(Engine(client), DockerCli(LocalMachine()),
                             RegistryAccess(HOST, "tally", "secret"))
        assert kept.has(TAG)
    assert json.loads(base64.urlsafe_b64decode(sent[0])) \
        == {"username": "tally", "password": "secret"}
