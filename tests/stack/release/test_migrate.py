"""The migration job is the app's definition overlaid with x-migrate."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stack.errors import OperatorError, Refused
from stack.inventory.settings import ROOT
from stack.machines.local import LocalMachine
from stack.release import migrate
from stack.release.migrate import LOG_POLL, PATIENCE, Log
from stack.swarm import migration_job, stackfile
from stack.swarm.migration_job import LABEL
from stack.swarm.stackfile import Stack
from stack.swarm.task_logs import Line
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

SECRETS = {"app": "tally-app-password-0", "owner": "tally-owner-password-0",
           "key": "tally-visitor-key-0"}
VARIABLES: Mapping[str, str | int] = {
    "APP_IMAGE": "tally/app:1.4.0-57", "POSTGRES_IMAGE": "tally/postgres:0",
    "TRAEFIK_IMAGE": "tally/traefik:0", "SOCKET_PROXY_IMAGE": "tally/socket-proxy:0",
    "APP_PASSWORD": SECRETS["app"], "OWNER_PASSWORD": SECRETS["owner"],
    "VISITOR_KEY": SECRETS["key"], "HTTP_PORT": 80, "HTTPS_PORT": 443, "APP_REPLICAS": 2,
    "USER_NAME": "Ada & Co. $1", "USER_URL": "", "DOCKER_GID": "998",
    "OVERLAY_MTU": "1450"}


@dataclass
class Swarm:
    """A stand-in for an engine, with secrets only."""

    secrets: "Swarm" = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = self

    def list(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, id=f"id-of-{name}") for name in SECRETS.values()]


def load() -> Stack:
    return stackfile.load(ROOT / "docker-stack.yml", VARIABLES)


def template(stack: Stack) -> dict[str, Any]:
    made: dict[str, Any] = migration_job.task_template(Swarm(), stack)  # type: ignore[arg-type]
    return made


def with_app(**changes: Any) -> Stack:
    """Return the stack with other keys in app's definition."""
    stack = load()
    app = {**stack.services["app"], **changes}
    return Stack({**stack.content, "services": {**stack.services, "app": app}})


def spec() -> dict[str, Any]:
    made: dict[str, Any] = template(load())["ContainerSpec"]
    return made


def test_the_job_runs_the_apps_image_with_the_migrations_command() -> None:
    assert (spec()["Image"], spec()["Args"]) == ("tally/app:1.4.0-57", ["flask", "db", "upgrade"])


def test_the_job_is_as_confined_as_the_app() -> None:
    app = load().services["app"]
    assert (spec()["User"], spec()["ReadOnly"], spec()["CapabilityDrop"]) \
        == ("10001:10001", True, ["ALL"]) == (app["user"], app["read_only"], app["cap_drop"])


def test_the_job_connects_as_the_owner_but_is_configured_like_the_app() -> None:
    app = load().services["app"]["environment"]
    given = dict(entry.split("=", 1) for entry in spec()["Env"])
    assert given.pop("DATABASE_URL") == "postgresql://tally_owner@postgres/tally"
    assert given == {name: value for name, value in app.items() if name != "DATABASE_URL"}
    assert given["USER_NAME"] == "Ada & Co. $1"


def test_the_job_has_the_owners_password_and_not_the_apps() -> None:
    assert [(secret["SecretName"], secret["SecretID"], secret["File"])
            for secret in spec()["Secrets"]] == [
        (name, f"id-of-{name}", {"Name": target, "UID": "10001", "GID": "10001", "Mode": 0o400})
        for name, target in ((SECRETS["owner"], "database-password"),
                             (SECRETS["key"], "visitor-key"))]


def test_the_job_writes_only_to_a_small_tmpfs() -> None:
    assert spec()["Mounts"] == [{
        "Target": "/tmp", "Source": None, "Type": "tmpfs", "ReadOnly": False,
        "TmpfsOptions": {"SizeBytes": 16777216}}]


def test_the_job_has_no_health_check() -> None:
    assert spec()["Healthcheck"]["Test"] == ["NONE"]


def test_the_jobs_container_is_labelled_so_that_it_can_be_removed() -> None:
    assert spec()["Labels"] == {"tally.migration.task": "yes"}


def test_the_job_is_only_on_the_data_network() -> None:
    assert [network["Target"] for network in template(load())["Networks"]] == ["tally_data"]


def test_the_job_has_the_apps_limits() -> None:
    assert template(load())["Resources"] == {
        "Limits": {"NanoCPUs": 1_000_000_000, "MemoryBytes": 384 * 1024 ** 2, "Pids": 100},
        "Reservations": {"MemoryBytes": 128 * 1024 ** 2}}


def test_a_failed_job_isnt_restarted() -> None:
    assert template(load())["RestartPolicy"]["Condition"] == "none"


def test_the_jobs_log_is_rotated_like_the_apps() -> None:
    assert template(load())["LogDriver"] == {
        "Name": "local", "Options": {"max-size": "10m", "max-file": "3"}}


def test_an_unknown_key_is_refused() -> None:
    stack = with_app(init=True, sysctls={"net.core.somaxconn": 1024})
    assert error_of(lambda: template(stack)) == (
        "docker-stack.yml: services.app.init: unsupported key for the migration job: "
        "add it to stack/swarm/migration_job.py")


@pytest.mark.parametrize("key", ["healthcheck", "ports", "stop_grace_period"])
def test_a_key_for_running_services_only_changes_nothing(key: str) -> None:
    assert template(with_app(**{key: "value"})) == template(load())


def test_a_secret_by_its_bare_name_is_refused() -> None:
    stack = load()
    changes = {**stack.content["x-migrate"], "secrets": ["visitor-key"]}
    assert error_of(lambda: template(Stack({**stack.content, "x-migrate": changes}))) == (
        "docker-stack.yml: services.app.secrets: the migration job supports only the long form: "
        "write source, target, uid, gid and mode")


def test_every_job_and_its_containers_are_removed_and_nothing_else(
        add_command: AddCommand, tmp_path: Path) -> None:
    fake = FakeEngine()
    fake.kinds["services"] = {
        "a": {"ID": "a", "Spec": {"Name": "tally_migrate-1", "Labels": {LABEL: "1.4.0-57"}}},
        "b": {"ID": "b", "Spec": {"Name": "tally_migrate-2", "Labels": {LABEL: "1.4.0-58"}}},
        "c": {"ID": "c", "Spec": {"Name": "tally_app", "Labels": {}}}}
    add_command("docker", f'echo "$*" >> {tmp_path}/said',
                'case "$*" in "ps --all --quiet --filter label=tally.migration.task") echo d e;;',
                "ps*) echo others;; esac")
    with reached(fake) as engine:
        migrate.remove_all(engine, LocalMachine(), LocalMachine())
    assert set(fake.kinds["services"]) == {"c"}
    assert [line for line in (tmp_path / "said").read_text().splitlines() if "ps" not in line] \
        == ["rm --force d e"] * 2


def test_without_a_job_there_is_nothing_to_remove(
        add_command: AddCommand, tmp_path: Path) -> None:
    add_command("docker", f'echo "$1" >> {tmp_path}/said')
    with reached(FakeEngine()) as engine:
        migrate.remove_all(engine, LocalMachine())
    assert (tmp_path / "said").read_text() == "ps\n"


def test_a_container_that_is_already_gone_is_no_error(add_command: AddCommand) -> None:
    add_command("docker", '[ "$1" = ps ] && echo d', "echo 'no such container' >&2; exit 1")
    with reached(FakeEngine()) as engine:
        migrate.remove_all(engine, LocalMachine())


class Said:
    """A stand-in for the reader of a job's log, filled by the test."""

    def __init__(self) -> None:
        self.unread: dict[str, str] = {}
        self.next: list[str] | OperatorError = []

    def read(self) -> list[Line]:
        if isinstance(self.next, OperatorError):
            raise self.next
        return [Line(0, "migration", text) for text in self.next]


@pytest.fixture
def job() -> tuple[Log, Said]:
    said = Said()
    return Log(said), said  # type: ignore[arg-type]


def test_the_log_of_a_long_job_is_streamed(
        job: tuple[Log, Said], capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    log, said = job
    now = time.monotonic()
    monkeypatch.setattr(migrate, "time", SimpleNamespace(monotonic=lambda: now))
    printed = []
    for passed, lines in ((0.0, ["one"]), (PATIENCE, ["one", "two"]), (LOG_POLL / 2, ["3"]),
                          (LOG_POLL / 2, ["3"])):
        now += passed
        said.next = list(lines)
        log.follow()
        printed.append(capsys.readouterr().out.split())
    assert printed == [[], ["one", "two"], [], ["3"]]


def test_the_end_of_a_long_log_is_printed_and_no_line_twice(
        job: tuple[Log, Said], capsys: pytest.CaptureFixture[str]) -> None:
    log, said = job
    said.next = ["one", "two"]
    log.complete()
    log.print_new()
    said.next = ["3", "4", "5"]
    log.complete()
    log.print_new(most=2)
    assert capsys.readouterr().out.split() == ["one", "two", "4", "5"]
    assert log.lines == ["one", "two", "3", "4", "5"]


@pytest.mark.parametrize(("next_lines", "unread", "cause"), [
    (Refused("the engine is gone", "./fab status"), {}, "the engine is gone"),
    ([], {"migration@one": "its machine can't be reached"}, "its machine can't be reached")])
def test_the_reason_for_a_missing_end_is_printed_after_the_log(
        job: tuple[Log, Said], capsys: pytest.CaptureFixture[str],
        next_lines: list[str] | OperatorError, unread: dict[str, str], cause: str) -> None:
    log, said = job
    said.next = ["one"]
    log.complete()
    said.next, said.unread = next_lines, unread
    log.complete()
    log.print_new()
    assert log.lines == ["one"]
    assert capsys.readouterr().out.splitlines() == [
        "    one", f"    its log can't be read: {cause}"]


def test_a_volume_other_than_a_tmpfs_is_refused() -> None:
    stack = with_app(volumes=[{"type": "bind", "source": "/srv", "target": "/data"}])
    assert error_of(lambda: template(stack)) == (
        "docker-stack.yml: services.app.volumes: /data: the migration job supports only tmpfs")
