"""docker-compose.yml runs the same images as production, for this machine only."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from app import create_app
from app.config import ConfigError
from stack.swarm.names import STACK
from stack.swarm.stackfile import Stack
from tests.files.sample import STACK_FILE
from tests.files.tree import ROOT, must_suit

pytestmark = pytest.mark.style

COMPOSE_FILE = ROOT / "docker-compose.yml"
Service = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return content


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    found: dict[str, Service] = compose["services"]
    return found


def test_it_is_valid_by_the_compose_schema() -> None:
    must_suit("compose-spec", COMPOSE_FILE)


def test_its_images_are_built_like_the_stacks(services: dict[str, Service]) -> None:
    assert {name: service["build"]["context"] for name, service in services.items()} == {
        "app": ".", "migrate": ".", "postgres": "stack/images/postgres"}
    assert {service["build"]["args"]["BASE"] for service in services.values()} \
        == {"${BASE:-debian:trixie-slim}"}


def test_it_shares_no_names_with_the_stack(compose: dict[str, Any]) -> None:
    assert compose["name"] != STACK
    assert {service["image"].split("/")[0] for service in compose["services"].values()} \
        == {compose["name"]}


def test_the_database_is_migrated_once_before_the_app_starts(
        services: dict[str, Service]) -> None:
    assert services["app"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"}}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_migration_is_the_stacks(services: dict[str, Service], stack: Stack) -> None:
    job = services["migrate"]

    assert job["command"] == stack.migrate["command"]
    assert job["environment"]["DATABASE_URL"] == stack.migrate["environment"]["DATABASE_URL"]


def test_the_databases_health_check_is_the_stacks(
        services: dict[str, Service], stack: Stack) -> None:
    assert services["postgres"]["healthcheck"]["test"] \
        == stack.services["postgres"]["healthcheck"]["test"]


def test_sources_are_mounted_live_and_read_only(services: dict[str, Service]) -> None:
    binds = [volume for service in services.values() for volume in service.get("volumes", [])
             if volume["type"] == "bind"]

    assert {(volume["source"], volume["target"], volume["read_only"]) for volume in binds} == {
        (f"./{name}", f"/srv/{name}", True) for name in ("app", "migrations", "version.txt")}


def test_the_debugger_can_be_reached_from_this_machine_only(
        services: dict[str, Service]) -> None:
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} \
        == {"app": ["127.0.0.1:8000:8000"]}


def test_production_refuses_its_visitor_key(services: dict[str, Service], tmp_path: Path) -> None:
    environment = {**services["app"]["environment"], "USER_URL": ""}
    assert environment["TALLY_ENV"] == "development"

    with pytest.raises(ConfigError, match="VISITOR_KEY is shorter"):
        create_app({**environment, "TALLY_ENV": "production"}, instance_path=str(tmp_path))


def test_its_passwords_are_marked_as_such_and_used_nowhere_else(
        compose: dict[str, Any]) -> None:
    passwords = {config["content"] for config in compose["configs"].values()}

    assert passwords == {"development-only-owner", "development-only-app"}
    assert [password for password in passwords if password in STACK_FILE.read_text()] == []
