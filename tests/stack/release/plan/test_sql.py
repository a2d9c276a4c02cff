"""A plan shows the SQL of the migrations that a deploy runs."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from stack.engine.engine import Engine
from stack.inventory.settings import ROOT
from stack.machines.local import LocalMachine
from stack.release.plan import migrations
from stack.state.revisions import Revision
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of

# It starts the application's own program.
pytestmark = pytest.mark.service

IMAGE = "registry.example.org/tally/app:1.4.0-57"
DIGEST = f"{IMAGE}@sha256:{'a' * 64}"
FIRST = Revision("0001", None)
SECOND = Revision("0002", "0001", "1.3 needs the column day")


class Images(FakeEngine):
    """An engine with two images."""

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        name = unquote("/".join(path[1:-1]))
        return (200, {"Id": "sha256:0"}) if name in (f"{IMAGE}.dirty", f"{DIGEST}0") \
            else (404, {"message": f"no such image: {name}"})


@pytest.fixture
def engine() -> Iterator[Engine]:
    with reached(Images()) as engine:
        yield engine


@pytest.fixture
def container(add_command: AddCommand) -> Path:
    """Let `docker run` start the image's program in the checkout, and keep its arguments."""
    script = add_command(
        "docker", 'echo "$@" > "$0.said"', "until [ \"$1\" = python ]; do shift; done", "shift",
        f"cd {shlex.quote(str(ROOT))}",
        f'PYTHONDONTWRITEBYTECODE=1 exec {shlex.quote(sys.executable)} "$@"')
    return script.with_name("docker.said")


def test_the_sql_is_that_of_the_given_migrations(
        engine: Engine, container: Path) -> None:
    said = migrations.sql(engine, LocalMachine(), f"{IMAGE}.dirty", [Revision("0002", "0001")])
    assert said[0] == "-- 0002: count the new visitors of each day."
    assert said[1] == "BEGIN;" and said[-1] == "COMMIT;"
    assert "CREATE TABLE new_visitors (" in said
    assert not any("CREATE TABLE visitors" in line for line in said)


def test_several_migrations_are_in_order(engine: Engine, container: Path) -> None:
    said = migrations.sql(engine, LocalMachine(), f"{DIGEST}0", [FIRST, SECOND])
    assert [line for line in said if line.startswith("-- 0")] == [
        "-- 0001: count visitors, and exactly how many there are.",
        "-- 0002: count the new visitors of each day."]
    assert said.count("BEGIN;") == said.count("COMMIT;") == 2


def test_the_container_has_no_network_and_no_write_access(
        engine: Engine, container: Path) -> None:
    migrations.sql(engine, LocalMachine(), f"{IMAGE}.dirty", [FIRST])
    options, said = container.read_text().split(), ("--network=none", "--read-only", "--rm",
                                                    "--cap-drop=ALL", "--pull=never")
    assert set(said) < set(options)
    assert options[-4:] == [f"{IMAGE}.dirty", "python", "-", "0001"]


def test_sql_that_cant_be_made_is_refused_with_the_reason(
        engine: Engine, container: Path) -> None:
    unknown = [Revision("9999", "0002")]
    line = error_of(lambda: migrations.sql(engine, LocalMachine(), f"{IMAGE}.dirty", unknown))
    assert line.startswith("cannot generate the migrations' SQL without the database (")
    assert "9999" in line and line.endswith("): read it in migrations/versions")


def test_an_image_that_isnt_built_is_not_built_for_it(
        engine: Engine, container: Path) -> None:
    assert error_of(lambda: migrations.sql(engine, LocalMachine(), IMAGE, [FIRST])) == (
        f"the SQL comes from the app's image, and {IMAGE} isn't on this machine: "
        "./fab build, then ./fab plan --sql")
    assert not container.exists()


def test_an_image_that_is_only_in_the_registry_is_not_fetched_for_it(
        engine: Engine, container: Path) -> None:
    assert error_of(lambda: migrations.sql(engine, LocalMachine(), DIGEST, [FIRST])) == (
        f"the SQL comes from the app's image, and {DIGEST} isn't on this machine: "
        f"docker --config=/etc/tally/docker pull {DIGEST}")
    assert not container.exists()
