"""docker-stack.yml is read with its variables filled in, and nothing in it is ignored."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.swarm import stackfile
from stack.swarm.stackfile import Stack
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

SECTIONS = "services: {}\nnetworks: {}\nsecrets: {}\nx-migrate: {}\n"


def load(tmp_path: Path, text: str, **variables: str | int) -> Stack:
    (tmp_path / "stack.yml").write_text(text)
    return stackfile.load(tmp_path / "stack.yml", variables)


def error(tmp_path: Path, text: str, **variables: str | int) -> str:
    return error_of(lambda: load(tmp_path, text, **variables))


def filled(tmp_path: Path, scalar: str, **variables: str | int) -> Any:
    """Return a scalar's value in a loaded stack."""
    return load(tmp_path, f"{SECTIONS}x-scalar: {scalar}\n", **variables).content["x-scalar"]


@pytest.mark.parametrize(("scalar", "expected"), [
    ("${NAME:?}", "Ada"),
    ("${NAME:?who runs it}", "Ada"),
    ("${NAME?}", "Ada"),
    ("${NAME}", "Ada"),
    ("by ${NAME:?}, for ${NAME:?}", "by Ada, for Ada"),
    ("$$", "$"),
    ("$${NAME}", "${NAME}"),
    ("$$${NAME}", "$Ada"),
    ("NAME", "NAME"),
])
def test_variables_are_filled_in(tmp_path: Path, scalar: str, expected: str) -> None:
    assert filled(tmp_path, scalar, NAME="Ada") == expected


def test_variables_are_filled_in_at_any_depth(tmp_path: Path) -> None:
    text = f"{SECTIONS}x-deep: {{list: [{{key: '${{NAME:?}}'}}]}}\n"
    assert load(tmp_path, text, NAME="Ada").content["x-deep"] == {"list": [{"key": "Ada"}]}


def test_a_filled_in_value_is_not_read_again(tmp_path: Path) -> None:
    assert filled(tmp_path, "${NAME:?}", NAME="${HOME} $$") == "${HOME} $$"


def test_a_number_stays_one(tmp_path: Path) -> None:
    assert filled(tmp_path, '"${PORT:?}"', PORT=8080) == 8080


def test_a_number_within_text_is_text(tmp_path: Path) -> None:
    assert filled(tmp_path, "10090:${GROUP:?}", GROUP=998) == "10090:998"


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    assert filled(tmp_path, "${NAME:?}", NAME="8080") == "8080"


def test_other_scalars_are_left_alone(tmp_path: Path) -> None:
    assert filled(tmp_path, "[1, 0.5, true, null, 0400]") == [1, 0.5, True, None, 0o400]


def test_a_required_variable_must_not_be_empty(tmp_path: Path) -> None:
    assert error(tmp_path, f"{SECTIONS}x-scalar: '${{NAME:?}}'\n", NAME="") \
        == "stack.yml: ${NAME} is empty"


def test_a_variable_that_may_be_empty_may(tmp_path: Path) -> None:
    assert filled(tmp_path, "'${NAME?}'", NAME="") == ""


@pytest.mark.parametrize("scalar", ["${OTHER}", "${OTHER?}", "${OTHER:?}", "a ${OTHER} b"])
def test_an_unknown_variable_is_refused(tmp_path: Path, scalar: str) -> None:
    assert error(tmp_path, f"{SECTIONS}x-scalar: '{scalar}'\n", NAME="Ada") \
        == "stack.yml: ${OTHER} is not a variable that ./fab sets"


def test_an_error_in_the_yaml_names_file_and_line(tmp_path: Path) -> None:
    assert error(tmp_path, "services:\n  app:\n    image: [a\n  x: y\n") \
        == "stack.yml, line 4: expected ',' or ']', but got ':'"


def test_an_unknown_anchor_names_file_and_line(tmp_path: Path) -> None:
    assert error(tmp_path, "services:\n  app: *nothing\n") \
        == "stack.yml, line 2: found undefined alias 'nothing'"


def test_a_character_that_yaml_forbids_is_one_line(tmp_path: Path) -> None:
    text = error(tmp_path, "services: \x07\n")
    assert text.startswith("stack.yml: unacceptable character") and "\n" not in text


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_unreadable_file_names_how_to_restore_it(
        tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "stack.yml").write_bytes(content)
    assert error_of(lambda: stackfile.load(tmp_path / "stack.yml", {})) \
        == "stack.yml can't be read: git checkout -- stack.yml"


@pytest.mark.parametrize("text", ["", "[]", "just text"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert error(tmp_path, text) \
        == "stack.yml: it should be a mapping with services, networks and secrets"


@pytest.mark.parametrize("section", ["services", "networks", "secrets", "x-migrate"])
def test_a_missing_section_is_named(tmp_path: Path, section: str) -> None:
    assert error(tmp_path, SECTIONS.replace(f"{section}: {{}}\n", "")) \
        == f"stack.yml: {section}: it should be a mapping"


def test_a_stack_without_the_job_needs_no_section_for_it(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("services: {}\nnetworks: {}\nsecrets: {}\n")
    loaded = stackfile.load(tmp_path / "stack.yml", {}, stackfile.SECTIONS)
    assert loaded.content == {"services": {}, "networks": {}, "secrets": {}}


def test_a_section_that_is_asked_for_is_needed(tmp_path: Path) -> None:
    (tmp_path / "stack.yml").write_text("services: {}\nnetworks: {}\nsecrets: {}\n")
    assert error_of(lambda: stackfile.load(
        tmp_path / "stack.yml", {}, (*stackfile.SECTIONS, "configs"))) \
        == "stack.yml: configs: it should be a mapping"


def test_a_service_that_is_not_a_mapping_is_named(tmp_path: Path) -> None:
    text = SECTIONS.replace("services: {}", "services: {app: redis}")
    assert error(tmp_path, text) == "stack.yml: services.app: it should be a mapping"


DECLARED = {"networks": {"data": {}}, "secrets": {"key": {"external": True}}, "x-migrate": {}}


def test_a_declared_network_and_secret_may_be_used(tmp_path: Path) -> None:
    app = {"image": "app:1", "networks": ["data"], "secrets": [{"source": "key"}]}
    text = yaml.safe_dump({**DECLARED, "services": {"app": app}})
    assert load(tmp_path, text).services == {"app": app}


def test_a_secret_may_be_used_by_its_bare_name(tmp_path: Path) -> None:
    text = yaml.safe_dump({**DECLARED, "services": {"app": {"secrets": ["key"]}}})
    assert load(tmp_path, text).services == {"app": {"secrets": ["key"]}}


@pytest.mark.parametrize(("section", "used"), [
    ("networks", ["data", "edge"]), ("secrets", ["key", "edge"]),
    ("secrets", [{"source": "key"}, {"source": "edge"}]), ("configs", [{"source": "edge"}])])
def test_networks_and_secrets_of_a_service_must_be_declared(
        tmp_path: Path, section: str, used: list[Any]) -> None:
    text = yaml.safe_dump({**DECLARED, "services": {"app": {section: used}}})
    assert error(tmp_path, text) == (
        f"stack.yml: services.app.{section}: edge isn't declared: "
        f"declare it under {section} at the end of the file")


@pytest.mark.parametrize(("section", "used"), [
    ("networks", ["data", "edge"]), ("secrets", [{"source": "edge"}])])
def test_networks_and_secrets_of_the_job_must_be_declared_too(
        tmp_path: Path, section: str, used: list[Any]) -> None:
    text = yaml.safe_dump({**DECLARED, "services": {}, "x-migrate": {section: used}})
    assert error(tmp_path, text) == (
        f"stack.yml: x-migrate.{section}: edge isn't declared: "
        f"declare it under {section} at the end of the file")


def test_an_empty_list_of_networks_or_secrets_is_none(tmp_path: Path) -> None:
    app = {"networks": None, "secrets": None}
    text = yaml.safe_dump({**DECLARED, "services": {"app": app}})
    assert load(tmp_path, text).services == {"app": app}


MERGING = Stack({
    "services": {
        "app": {"image": "app:1", "command": ["serve"], "networks": ["edge", "data"],
                "environment": {"A": "1", "B": "2"}},
        "postgres": {"image": "postgres:1", "networks": ["data"]}},
    "x-migrate": {"command": ["migrate"], "environment": {"B": "3"}, "networks": ["data"]},
    "networks": {"edge": {"driver": "overlay"}, "data": {"driver": "overlay"}},
    "secrets": {"key": {"external": True}}})


def test_the_job_is_the_app_with_the_jobs_changes() -> None:
    assert MERGING.migrate == {"image": "app:1", "command": ["migrate"], "networks": ["data"],
                               "environment": {"A": "1", "B": "3"}}


def test_the_job_may_change_no_environment() -> None:
    stack = Stack({**MERGING.content, "x-migrate": {"command": ["migrate"]}})
    assert stack.migrate == {"image": "app:1", "command": ["migrate"],
                             "networks": ["edge", "data"], "environment": {"A": "1", "B": "2"}}


@pytest.mark.parametrize("published", [8080, "8080"])
def test_visitors_open_the_port_that_traefik_publishes_first(published: int | str) -> None:
    ports = [{"target": 8000, "published": published}, {"target": 8443, "published": 8443}]
    assert Stack({"services": {"traefik": {"ports": ports}}}).http_port == 8080


def test_making_the_job_leaves_the_app_unchanged() -> None:
    MERGING.migrate["environment"]["A"] = "changed"
    assert MERGING.services["app"]["environment"] == {"A": "1", "B": "2"}


def test_a_part_of_a_stack_has_only_the_networks_it_uses() -> None:
    part = MERGING.only("postgres")
    assert part.services == {"postgres": {"image": "postgres:1", "networks": ["data"]}}
    assert part.content["networks"] == {"data": {"driver": "overlay"}}
    assert part.content["secrets"] == {"key": {"external": True}}


def test_a_part_of_a_stack_leaves_the_whole_unchanged() -> None:
    MERGING.only("postgres")
    assert set(MERGING.services) == {"app", "postgres"}


@pytest.mark.parametrize("text", [
    "$", "$$", "${HOME}", "a$b", "Ada", "yes", "12:30", "0x1f", "~", "", " a", "a: b", "# a",
    "line\nline", "é", "☃", "😀", "'\"\\"])
def test_the_text_for_docker_is_the_same_after_interpolation(text: str) -> None:
    stack = Stack({**MERGING.content, "x-text": text, "x-numbers": [8080, 0.5, True, None]})
    written = stack.text()
    # Docker turns each $$ into $; a single $ would start a variable.
    assert "$" not in written.replace("$$", "")
    read = yaml.safe_load(written)
    assert read.pop("x-text").replace("$$", "$") == text
    assert read == {**MERGING.content, "x-numbers": [8080, 0.5, True, None]}


def test_the_text_for_docker_keeps_the_order_of_services() -> None:
    services = dict(reversed(MERGING.services.items()))
    stack = Stack({**MERGING.content, "services": services})
    assert list(yaml.safe_load(stack.text())["services"]) == ["postgres", "app"]


@pytest.mark.parametrize("text", ["1e3", "0o17", "on", "12:30", "1_000", "2001-01-01"])
def test_text_that_looks_like_a_number_is_quoted(text: str) -> None:
    written = Stack({**MERGING.content, "x-text": text}).text()
    assert f'"x-text": "{text}"' in written


@pytest.mark.parametrize(("duration", "expected"), [
    ("10s", 10), ("2.5s", 2.5), ("1m", 60), ("1h1m1s", 3661), ("500ms", 0.5), ("0.5m", 30),
    (".5s", 0.5), ("+1m", 60), ("0", 0)])
def test_a_duration_is_read_in_seconds(duration: str, expected: float) -> None:
    assert stackfile.seconds(duration) == expected


@pytest.mark.parametrize("duration", ["", "10", "soon", "10ss", "s"])
def test_what_is_no_duration_is_refused(duration: str) -> None:
    assert error_of(lambda: stackfile.seconds(duration)) == (
        f"docker-stack.yml: {duration!r} isn't a duration: write it as in 1m30s")


def test_a_release_is_monitored_as_long_as_its_slowest_service() -> None:
    def service(**update: str) -> dict[str, Any]:
        return {"deploy": {"update_config": update}}
    slow = Stack({"services": {"a": service(monitor="7s"), "b": service(monitor="8s")}})
    assert slow.monitor == 8
    # Docker's own default.
    assert Stack({"services": {"a": service(monitor="2s"), "b": {}}}).monitor == 5
