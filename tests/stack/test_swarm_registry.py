"""The Swarm's own registry keeps what still serves, and replaces what doesn't."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from stack import certificates, registry, swarm_registry
from stack.machine import LocalMachine
from stack.registry import Registry, docker_config
from stack.swarm_registry import (
    LABEL, certificate_authority, certificate_name, find_credentials, fingerprint, htpasswd_name,
    keep_certificate, keep_password, key_name, pin, prune, render)
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

IP = "192.0.2.11"
ADDRESS = f"{IP}:5000"
OWN = Registry(ADDRESS, "tally", "secret")


@pytest.fixture
def engine() -> Engine:
    nodes = {f"id-{name}": {"ID": f"id-{name}", "Version": {"Index": 1}, "Spec": {},
                            "Description": {"Hostname": name}} for name in ("first", "second")}
    return Engine({"secrets": {}, "configs": {}, "nodes": nodes})


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


class Manager(LocalMachine):
    """A machine whose files are in a folder of the test's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> str | None:
        return super().read(f"{self.root}{path}")

    def knows(self, user: str, password: str) -> "Manager":
        self.write(f"{self.root}{registry.CREDENTIALS}",
                   docker_config(Registry(ADDRESS, user, password)))
        return self


def names(engine: Engine, kind: str) -> set[str]:
    return {each["Spec"]["Name"] for each in engine.kinds[kind].values()}


def labels(engine: Engine, node: str) -> dict[str, str]:
    found: dict[str, str] = engine.kinds["nodes"][f"id-{node}"]["Spec"].get("Labels", {})
    return found


# The certificate.

def test_a_new_swarm_gets_a_certificate_with_its_ca_and_its_key(
        engine: Engine, client: docker.DockerClient) -> None:
    chain, made = keep_certificate(client, IP)

    assert made == ["certificate"]
    assert chain.count("BEGIN CERTIFICATE") == 2
    config, = engine.kinds["configs"].values()
    secret, = engine.kinds["secrets"].values()
    assert base64.b64decode(config["Spec"]["Data"]).decode() == chain
    assert (config["Spec"]["Name"], secret["Spec"]["Name"]) \
        == (certificate_name(chain), key_name(chain))
    assert b"PRIVATE KEY" in base64.b64decode(secret["Spec"]["Data"])


def test_the_certificate_is_kept_as_long_as_it_serves(
        engine: Engine, client: docker.DockerClient) -> None:
    first, _ = keep_certificate(client, IP)

    assert keep_certificate(client, IP) == (first, [])
    assert len(engine.kinds["configs"]) == len(engine.kinds["secrets"]) == 1


def test_an_address_that_changed_needs_another_certificate(client: docker.DockerClient) -> None:
    first, _ = keep_certificate(client, IP)

    second, made = keep_certificate(client, "192.0.2.12")

    assert (made, second != first) == (["certificate"], True)


def test_a_certificate_that_ends_soon_is_made_anew(
        client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as short:
        short.setattr(certificates, "LIFETIME", timedelta(days=89))
        ending, _ = keep_certificate(client, IP)

    chain, made = keep_certificate(client, IP)

    assert (made, chain != ending) == (["certificate"], True)
    assert keep_certificate(client, IP) == (chain, [])


def test_a_certificate_without_its_key_is_made_anew(
        engine: Engine, client: docker.DockerClient) -> None:
    first, _ = keep_certificate(client, IP)
    engine.kinds["secrets"].clear()

    second, made = keep_certificate(client, IP)

    assert (made, second != first) == (["certificate"], True)


def test_of_several_that_serve_the_newest_is_kept(
        engine: Engine, client: docker.DockerClient) -> None:
    keep_certificate(client, IP)
    others = engine.kinds["configs"].copy()
    engine.kinds["configs"].clear()
    newest, _ = keep_certificate(client, IP)
    engine.kinds["configs"].update(others)

    assert keep_certificate(client, IP) == (newest, [])


def test_machines_are_to_trust_the_ca_and_not_the_certificate() -> None:
    made = certificates.certificate(IP)

    assert certificate_authority(made.cert + made.ca) == made.ca


# The password.

def test_a_new_password_is_random_and_long(client: docker.DockerClient, tmp_path: Path) -> None:
    found = [find_credentials(client, [Manager(tmp_path)], ADDRESS) for _ in range(2)]

    assert found[0] != found[1]
    for user, password in found:
        assert (user, len(bytes.fromhex(password))) == ("tally", 32)


def test_a_password_that_any_manager_knows_is_kept(
        client: docker.DockerClient, tmp_path: Path) -> None:
    managers = [Manager(tmp_path / "a"), Manager(tmp_path / "b").knows("tally", "secret")]

    assert find_credentials(client, managers, ADDRESS) == ("tally", "secret")


def test_of_several_passwords_the_one_that_the_registry_lets_in_is_kept(
        client: docker.DockerClient, tmp_path: Path) -> None:
    keep_password(client, OWN)
    managers = [Manager(tmp_path / "a").knows("tally", "other"),
                Manager(tmp_path / "b").knows("tally", "secret")]

    assert find_credentials(client, managers, ADDRESS) == ("tally", "secret")


def test_credentials_for_another_address_are_not_taken(
        client: docker.DockerClient, tmp_path: Path) -> None:
    manager = Manager(tmp_path).knows("tally", "secret")

    assert find_credentials(client, [manager], "192.0.2.12:5000")[1] != "secret"


def test_the_registry_learns_a_password_once(engine: Engine, client: docker.DockerClient) -> None:
    assert [keep_password(client, OWN), keep_password(client, OWN)] == [["password"], []]

    secret, = engine.kinds["secrets"].values()
    assert base64.b64decode(secret["Spec"]["Data"]).startswith(b"tally:$2b$")
    assert (secret["Spec"]["Name"], secret["Spec"]["Labels"]) \
        == (htpasswd_name("tally", "secret"), {LABEL: "htpasswd"})


def test_neither_the_password_nor_the_key_is_in_a_config(
        engine: Engine, client: docker.DockerClient) -> None:
    keep_certificate(client, IP)
    keep_password(client, OWN)

    for config in engine.kinds["configs"].values():
        text = base64.b64decode(config["Spec"]["Data"]).decode()
        assert "PRIVATE" not in text and "secret" not in text


def test_names_follow_the_content() -> None:
    assert fingerprint("a") == "ca978112ca1b"
    assert htpasswd_name("tally", "a") != htpasswd_name("tally", "b")
    assert htpasswd_name("tally", "a") != htpasswd_name("other", "a")


def test_only_what_is_needed_is_left(engine: Engine, client: docker.DockerClient) -> None:
    chain, _ = keep_certificate(client, IP)
    keep_certificate(client, "192.0.2.12")
    keep_password(client, OWN)
    client.secrets.create(name="somebody-elses", data=b"x", labels={"other": "x"})
    needed = {certificate_name(chain), key_name(chain)}

    prune(client, needed)

    assert names(engine, "configs") == {certificate_name(chain)}
    assert names(engine, "secrets") == {key_name(chain), "somebody-elses"}


# The node.

def test_the_holder_is_labelled_once_and_keeps_its_other_labels(
        engine: Engine, client: docker.DockerClient) -> None:
    engine.kinds["nodes"]["id-first"]["Spec"] = {"Role": "manager", "Labels": {"edge": "true"}}

    assert [pin(client, "id-first", "first") for _ in range(2)] == [["label registry=true"], []]

    assert engine.kinds["nodes"]["id-first"]["Spec"]["Role"] == "manager"
    assert labels(engine, "first") == {"edge": "true", "registry": "true"}
    assert labels(engine, "second") == {}


@pytest.mark.parametrize("labelled", [["second"], ["first", "second"]])
def test_images_on_another_node_are_not_left_behind(
        engine: Engine, client: docker.DockerClient, labelled: list[str]) -> None:
    for name in labelled:
        engine.kinds["nodes"][f"id-{name}"]["Spec"] = {"Labels": {"registry": "true"}}

    assert error_of(lambda: pin(client, "id-first", "first")) == (
        "the registry's images are on second, not on first: to begin anew there: "
        "docker node update --label-rm registry second")
    assert [name for name in ("first", "second") if labels(engine, name)] == labelled


# The machines.

def test_machines_that_changed_are_named() -> None:
    machines = [Manager(Path(name)) for name in ("a", "b", "c")]

    assert swarm_registry.on_each(
        machines, lambda machine: machine is not machines[1], "trust") \
        == ["trust on this machine, this machine"]
    assert swarm_registry.on_each(machines, lambda machine: False, "trust") == []
    assert swarm_registry.on_each([], lambda machine: True, "trust") == []


def test_the_stack_holds_the_secrets_of_this_certificate_and_password() -> None:
    stack = render("localhost:1/tally/registry:1", "chain", OWN)

    assert stack.services["registry"]["image"] == "localhost:1/tally/registry:1"
    assert {name: stack.content[kind][name]["name"] for kind, name in (
        ("configs", "certificate"), ("secrets", "key"), ("secrets", "htpasswd"))} == {
            "certificate": certificate_name("chain"), "key": key_name("chain"),
            "htpasswd": htpasswd_name("tally", "secret")}
