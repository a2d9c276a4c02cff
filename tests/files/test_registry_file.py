"""docker-registry.yml follows the house rules, matches its image, and is valid for Docker."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.engine.cli import DockerCli
from stack.images.own_registry import STACK_FILE, render
from stack.images.registry_access import RegistryAccess
from stack.machines.local import LocalMachine
from stack.release import rollout
from stack.swarm.stackfile import Stack
from tests.files.dockerfile import last_stage
from tests.files.tree import ROOT, must_suit

pytestmark = pytest.mark.style

IMAGE = ROOT / "stack/images/registry"
Service = dict[str, Any]


@pytest.fixture(scope="module")
def registry() -> Stack:
    return render("localhost:1/tally/registry:0123456789ab", "chain",
                  RegistryAccess("192.0.2.11:5000", "tally", "secret"))


@pytest.fixture(scope="module")
def service(registry: Stack) -> Service:
    return registry.services["registry"]


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """The registry's own configuration."""
    content: dict[str, Any] = yaml.safe_load((IMAGE / "config.yml").read_text())
    return content


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def test_it_is_valid_by_the_compose_schema(registry: Stack, tmp_path: Path) -> None:
    rendered = tmp_path / "docker-registry.yml"
    rendered.write_text(registry.text())

    must_suit("compose-spec", rendered)


def test_docker_accepts_all_of_it(registry: Stack) -> None:
    assert rollout.check(DockerCli(LocalMachine()), registry) == ""


def test_the_registry_is_the_only_service(registry: Stack) -> None:
    assert registry.services.keys() == {"registry"}
    assert yaml.safe_load(STACK_FILE.read_text())["services"]["registry"]["image"] \
        == "${REGISTRY_IMAGE:?}"


def test_it_is_hardened_limited_and_rotates_its_log(service: Service) -> None:
    resources = service["deploy"]["resources"]

    assert (service["read_only"], service["cap_drop"], service.get("cap_add")) \
        == (True, ["ALL"], None)
    assert (set(resources["limits"]), set(resources["reservations"])) \
        == ({"cpus", "memory", "pids"}, {"memory"})
    assert service["logging"] == {
        "driver": "local", "options": {"max-size": "10m", "max-file": "3"}}


def test_it_stays_on_its_node_and_never_runs_twice_there(service: Service) -> None:
    deploy = service["deploy"]

    assert (deploy["replicas"], deploy["endpoint_mode"]) == (1, "dnsrr")
    assert deploy["placement"] == {
        "constraints": ["node.labels.registry == true"], "max_replicas_per_node": 1}
    assert {deploy[name]["order"] for name in ("update_config", "rollback_config")} \
        == {"stop-first"}
    assert deploy["update_config"]["failure_action"] == "rollback"


def test_only_its_images_user_reads_its_secrets(service: Service) -> None:
    user, group = str(service["user"]).split(":")

    assert last_stage(IMAGE / "Dockerfile")["USER"].value == f"{user}:{group}"
    assert {(use["uid"], use["gid"], use["mode"]) for use in service["secrets"]} \
        == {(user, group, 0o400)}


def test_it_finds_its_certificate_and_secrets(service: Service, settings: dict[str, Any]) -> None:
    given = {f"/run/secrets/{use['target']}" for use in service["secrets"]} \
        | {use["target"] for use in service["configs"]}
    tls = settings["http"]["tls"]

    assert given == {tls["certificate"], tls["key"], settings["auth"]["htpasswd"]["path"]}
    assert [volume["target"] for volume in service["volumes"]] \
        == [settings["storage"]["filesystem"]["rootdirectory"]] \
        == [last_stage(IMAGE / "Dockerfile")["VOLUME"].value]


def test_only_the_tls_port_is_published(
        service: Service, settings: dict[str, Any]) -> None:
    assert [(port["mode"], f":{port['target']}") for port in service["ports"]] \
        == [("host", settings["http"]["addr"])]
    assert settings["http"]["debug"]["addr"].startswith("127.0.0.1:")


def test_its_health_check_uses_its_health_port(
        service: Service, settings: dict[str, Any]) -> None:
    asked = re.search(r"/dev/tcp/([0-9.]+)/([0-9]+)", (IMAGE / "healthy").read_text())

    assert asked and f"{asked[1]}:{asked[2]}" == settings["http"]["debug"]["addr"]
    assert service["healthcheck"]["test"] == ["CMD", "registry-healthy"]


def test_transfers_may_finish_before_it_is_killed(
        service: Service, settings: dict[str, Any]) -> None:
    assert seconds(settings["http"]["draintimeout"]) < seconds(service["stop_grace_period"])


def test_images_can_be_deleted(settings: dict[str, Any]) -> None:
    assert settings["storage"]["delete"] == {"enabled": True}
    # A cache would list layers that a garbage collection has removed.
    assert "cache" not in settings["storage"]
