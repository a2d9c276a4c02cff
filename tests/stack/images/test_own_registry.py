"""The Swarm's own registry keeps what still works, and replaces what doesn't."""

import base64
from datetime import timedelta
from pathlib import Path

import pytest

from stack.engine.engine import Engine
from stack.images import certificate, own_registry, registry_access
from stack.images.own_registry import (
    LABEL, certificate_authority, certificate_name, find_credentials, fingerprint, htpasswd_name,
    keep_certificate, keep_password, key_name, pin, prune, render)
from stack.images.registry_access import RegistryAccess, docker_config
from stack.machines.local import LocalMachine
from tests.support.engine_api import FakeEngine
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

IP = "192.0.2.11"
ADDRESS = f"{IP}:5000"
OWN = RegistryAccess(ADDRESS, "tally", "secret")


@pytest.fixture
def fake() -> FakeEngine:
    nodes = {f"id-{name}": {"ID": f"id-{name}", "Version": {"Index": 1}, "Spec": {},
                            "Description": {"Hostname": name}} for name in ("first", "second")}
    return FakeEngine({"secrets": {}, "configs": {}, "nodes": nodes})


class Manager(LocalMachine):
    """A machine whose files are in the test's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> str | None:
        return super().read(f"{self.root}{path}")

    def knows(self, user: str, password: str) -> "Manager":
        self.write(f"{self.root}{registry_access.CREDENTIALS}",
                   docker_config(RegistryAccess(ADDRESS, user, password)))
        return self


def names(fake: FakeEngine, kind: str) -> set[str]:
    return {each["Spec"]["Name"] for each in fake.kinds[kind].values()}


def labels(fake: FakeEngine, node: str) -> dict[str, str]:
    found: dict[str, str] = fake.kinds["nodes"][f"id-{node}"]["Spec"].get("Labels", {})
    return found


# The certificate.

def test_a_new_swarm_gets_a_certificate_with_its_ca_and_its_key(
        fake: FakeEngine, engine: Engine) -> None:
    chain, made = keep_certificate(engine, IP)

    assert made == ["certificate"]
    assert chain.count("BEGIN CERTIFICATE") == 2
    config, = fake.kinds["configs"].values()
    secret, = fake.kinds["secrets"].values()
    assert base64.b64decode(config["Spec"]["Data"]).decode() == chain
    assert (config["Spec"]["Name"], secret["Spec"]["Name"]) \
        == (certificate_name(chain), key_name(chain))
    assert b"PRIVATE KEY" in base64.b64decode(secret["Spec"]["Data"])


def test_the_certificate_is_kept_while_it_is_valid(
        fake: FakeEngine, engine: Engine) -> None:
    first, _ = keep_certificate(engine, IP)

    assert keep_certificate(engine, IP) == (first, [])
    assert len(fake.kinds["configs"]) == len(fake.kinds["secrets"]) == 1


def test_a_changed_address_needs_another_certificate(engine: Engine) -> None:
    first, _ = keep_certificate(engine, IP)

    second, made = keep_certificate(engine, "192.0.2.12")

    assert (made, second != first) == (["certificate"], True)


def test_a_certificate_that_expires_soon_is_renewed(
        engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as short:
        short.setattr(certificate, "LIFETIME", timedelta(days=89))
        ending, _ = keep_certificate(engine, IP)

    chain, made = keep_certificate(engine, IP)

    assert (made, chain != ending) == (["certificate"], True)
    assert keep_certificate(engine, IP) == (chain, [])


def test_a_certificate_without_its_key_is_replaced(
        fake: FakeEngine, engine: Engine) -> None:
    first, _ = keep_certificate(engine, IP)
    fake.kinds["secrets"].clear()

    second, made = keep_certificate(engine, IP)

    assert (made, second != first) == (["certificate"], True)


def test_the_newest_of_several_valid_certificates_is_kept(
        fake: FakeEngine, engine: Engine) -> None:
    keep_certificate(engine, IP)
    others = fake.kinds["configs"].copy()
    fake.kinds["configs"].clear()
    newest, _ = keep_certificate(engine, IP)
    fake.kinds["configs"].update(others)

    assert keep_certificate(engine, IP) == (newest, [])


def test_machines_trust_the_ca_and_not_the_certificate() -> None:
    made = certificate.certificate(IP)

    assert certificate_authority(made.cert + made.ca) == made.ca


# The password.

def test_a_new_password_is_random_and_long(engine: Engine, tmp_path: Path) -> None:
    found = [find_credentials(engine, [Manager(tmp_path)], ADDRESS) for _ in range(2)]

    assert found[0] != found[1]
    for user, password in found:
        assert (user, len(bytes.fromhex(password))) == ("tally", 32)


def test_a_password_that_any_manager_knows_is_kept(
        engine: Engine, tmp_path: Path) -> None:
    managers = [Manager(tmp_path / "a"), Manager(tmp_path / "b").knows("tally", "secret")]

    assert find_credentials(engine, managers, ADDRESS) == ("tally", "secret")


def test_the_password_that_the_registry_accepts_is_kept(
        engine: Engine, tmp_path: Path) -> None:
    keep_password(engine, OWN)
    managers = [Manager(tmp_path / "a").knows("tally", "other"),
                Manager(tmp_path / "b").knows("tally", "secret")]

    assert find_credentials(engine, managers, ADDRESS) == ("tally", "secret")


def test_credentials_for_another_address_are_not_used(
        engine: Engine, tmp_path: Path) -> None:
    manager = Manager(tmp_path).knows("tally", "secret")

    assert find_credentials(engine, [manager], "192.0.2.12:5000")[1] != "secret"


def test_the_registry_learns_a_password_once(fake: FakeEngine, engine: Engine) -> None:
    assert [keep_password(engine, OWN), keep_password(engine, OWN)] == [["password"], []]

    secret, = fake.kinds["secrets"].values()
    assert base64.b64decode(secret["Spec"]["Data"]).startswith(b"tally:$2b$")
    assert (secret["Spec"]["Name"], secret["Spec"]["Labels"]) \
        == (htpasswd_name("tally", "secret"), {LABEL: "htpasswd"})


def test_neither_the_password_nor_the_key_is_in_a_config(
        fake: FakeEngine, engine: Engine) -> None:
    keep_certificate(engine, IP)
    keep_password(engine, OWN)

    for config in fake.kinds["configs"].values():
        text = base64.b64decode(config["Spec"]["Data"]).decode()
        assert "PRIVATE" not in text and "secret" not in text


def test_names_follow_the_content() -> None:
    assert fingerprint("a") == "ca978112ca1b"
    assert htpasswd_name("tally", "a") != htpasswd_name("tally", "b")
    assert htpasswd_name("tally", "a") != htpasswd_name("other", "a")


def test_only_what_is_needed_is_left(fake: FakeEngine, engine: Engine) -> None:
    chain, _ = keep_certificate(engine, IP)
    keep_certificate(engine, "192.0.2.12")
    keep_password(engine, OWN)
    engine.secrets.create(name="somebody-elses", data=b"x", labels={"other": "x"})
    needed = {certificate_name(chain), key_name(chain)}

    prune(engine, needed)

    assert names(fake, "configs") == {certificate_name(chain)}
    assert names(fake, "secrets") == {key_name(chain), "somebody-elses"}


# The node.

def test_the_holder_is_labelled_once_and_keeps_its_other_labels(
        fake: FakeEngine, engine: Engine) -> None:
    fake.kinds["nodes"]["id-first"]["Spec"] = {"Role": "manager", "Labels": {"edge": "true"}}

    assert [pin(engine, "id-first", "first") for _ in range(2)] == [["label registry=true"], []]

    assert fake.kinds["nodes"]["id-first"]["Spec"]["Role"] == "manager"
    assert labels(fake, "first") == {"edge": "true", "registry": "true"}
    assert labels(fake, "second") == {}


@pytest.mark.parametrize("labelled", [["second"], ["first", "second"]])
def test_images_on_another_node_are_not_left_behind(
        fake: FakeEngine, engine: Engine, labelled: list[str]) -> None:
    for name in labelled:
        fake.kinds["nodes"][f"id-{name}"]["Spec"] = {"Labels": {"registry": "true"}}

    assert error_of(lambda: pin(engine, "id-first", "first")) == (
        "the registry's images are on second, not on first: to start over there: "
        "docker node update --label-rm registry second")
    assert [name for name in ("first", "second") if labels(fake, name)] == labelled


# The machines.

def test_machines_that_changed_are_named() -> None:
    machines = [Manager(Path(name)) for name in ("a", "b", "c")]

    assert own_registry.on_each(
        machines, lambda machine: machine is not machines[1], "trust") \
        == ["trust on this machine, this machine"]
    assert own_registry.on_each(machines, lambda machine: False, "trust") == []
    assert own_registry.on_each([], lambda machine: True, "trust") == []


def test_the_stack_holds_the_secrets_of_this_certificate_and_password() -> None:
    stack = render("localhost:1/tally/registry:1", "chain", OWN)

    assert stack.services["registry"]["image"] == "localhost:1/tally/registry:1"
    assert {name: stack.content[kind][name]["name"] for kind, name in (
        ("configs", "certificate"), ("secrets", "key"), ("secrets", "htpasswd"))} == {
            "certificate": certificate_name("chain"), "key": key_name("chain"),
            "htpasswd": htpasswd_name("tally", "secret")}
