"""An operator is told which migrations a deploy runs, and what they send to the database."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import docker
import pytest

from stack import pending, schema
from stack.machine import LocalMachine
from stack.records import Record
from stack.schema import Revision
from stack.settings import ROOT
from tests.stack.conftest import AddCommand
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

IMAGE = "registry.example.org/tally/app:1.4.0-57"
DIGEST = f"{IMAGE}@sha256:{'a' * 64}"
VERSIONS = ROOT / "migrations/versions"
FIRST, SECOND = Revision("0001", None), Revision("0002", "0001", "1.3 needs the column day")


class Images(Engine):
    """An engine with two images."""

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        name = unquote("/".join(path[1:-1]))
        return (200, {"Id": "sha256:0"}) if name in (f"{IMAGE}.dirty", f"{DIGEST}0") \
            else (404, {"message": f"no such image: {name}"})


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    with reached(Images()) as client:
        yield client


def record(revisions: list[dict[str, Any]] | None) -> Record:
    return Record("1.4.0+57", "0123456", "ada", 0, 1, {}, {}, revisions=revisions)


def test_the_database_has_the_steps_that_were_noted() -> None:
    assert pending.known([FIRST, SECOND], record([])) == {"0001", "0002"}
    assert pending.known([], None) == set()


def test_without_a_note_it_has_those_of_the_release_that_runs() -> None:
    assert pending.known(None, record([{"id": "0001", "down": None}])) == {"0001"}


def test_before_the_first_release_it_has_none() -> None:
    assert pending.known(None, None) == set()


def test_what_nobody_noted_is_not_guessed() -> None:
    assert pending.known(None, record(None)) is None


def test_a_step_is_told_with_what_it_says_of_itself_and_takes_away(tmp_path: Path) -> None:
    tmp_path.joinpath("a.py").write_text(
        '"""Count visits.\n\nMore on it."""\nrevision = "0001"\ndown_revision = None\n')
    tmp_path.joinpath("b.py").write_text('revision = "0002"\ndown_revision = "0001"\n')
    tmp_path.joinpath("__init__.py").touch()
    assert pending.lines(tmp_path, [FIRST, SECOND]) == [
        "0001: Count visits.",
        "0002: says nothing of itself (contracts: 1.3 needs the column day)"]


def test_steps_that_were_taken_are_not_told() -> None:
    steps = schema.newer_than(schema.read(VERSIONS), {"0001"})
    assert pending.lines(VERSIONS, steps) == ["0002: count the new visitors of each day."]
    assert pending.lines(VERSIONS, []) == []


@pytest.fixture
def container(add_command: AddCommand) -> Path:
    """Let `docker run` start the image's program here, in the checkout, and keep what it got."""
    script = add_command(
        "docker", 'echo "$@" > "$0.said"', "until [ \"$1\" = python ]; do shift; done", "shift",
        f"cd {shlex.quote(str(ROOT))}",
        f'PYTHONDONTWRITEBYTECODE=1 exec {shlex.quote(sys.executable)} "$@"')
    return script.with_name("docker.said")


def test_the_sql_is_that_of_the_steps_asked_for(
        client: docker.DockerClient, container: Path) -> None:
    said = pending.sql(client, LocalMachine(), f"{IMAGE}.dirty", [Revision("0002", "0001")])
    assert said[0] == "-- 0002: count the new visitors of each day."
    assert said[1] == "BEGIN;" and said[-1] == "COMMIT;"
    assert "CREATE TABLE new_visitors (" in said
    assert not any("CREATE TABLE visitors" in line for line in said)


def test_several_steps_follow_each_other(client: docker.DockerClient, container: Path) -> None:
    said = pending.sql(client, LocalMachine(), f"{DIGEST}0", [FIRST, SECOND])
    assert [line for line in said if line.startswith("-- 0")] == [
        "-- 0001: count visitors, and exactly how many there are.",
        "-- 0002: count the new visitors of each day."]
    assert said.count("BEGIN;") == said.count("COMMIT;") == 2


def test_the_container_can_reach_and_change_nothing(
        client: docker.DockerClient, container: Path) -> None:
    pending.sql(client, LocalMachine(), f"{IMAGE}.dirty", [FIRST])
    options, said = container.read_text().split(), ("--network=none", "--read-only", "--rm",
                                                    "--cap-drop=ALL", "--pull=never")
    assert set(said) < set(options)
    assert options[-4:] == [f"{IMAGE}.dirty", "python", "-", "0001"]


def test_sql_that_cant_be_made_is_refused_with_the_reason(
        client: docker.DockerClient, container: Path) -> None:
    unknown = [Revision("9999", "0002")]
    line = error_of(lambda: pending.sql(client, LocalMachine(), f"{IMAGE}.dirty", unknown))
    assert line.startswith("the migrations' SQL can't be made without the database (")
    assert "9999" in line and line.endswith("): read it in migrations/versions")


def test_an_image_that_isnt_built_is_not_built_for_it(
        client: docker.DockerClient, container: Path) -> None:
    assert error_of(lambda: pending.sql(client, LocalMachine(), IMAGE, [FIRST])) == (
        f"the SQL comes from the app's image, and {IMAGE} isn't on this machine: "
        "./fab build, then ./fab plan --sql")
    assert not container.exists()


def test_an_image_that_is_only_in_the_registry_is_not_fetched_for_it(
        client: docker.DockerClient, container: Path) -> None:
    assert error_of(lambda: pending.sql(client, LocalMachine(), DIGEST, [FIRST])) == (
        f"the SQL comes from the app's image, and {DIGEST} isn't on this machine: "
        f"docker --config=/etc/tally/docker pull {DIGEST}")
    assert not container.exists()
