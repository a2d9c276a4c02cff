"""An operator's choices come from the environment, then from .env, then from a default."""

from pathlib import Path

import pytest

from stack.settings import NAMES, ROOT, Settings
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit


def load(tmp_path: Path, dotenv: str = "", **environ: str) -> Settings:
    (tmp_path / ".env").write_text(dotenv)
    return Settings.load(environ, tmp_path / ".env")


def error(tmp_path: Path, dotenv: str = "", **environ: str) -> str:
    return error_of(lambda: load(tmp_path, dotenv, **environ))


def test_nothing_has_to_be_chosen(tmp_path: Path) -> None:
    assert Settings.load({}, tmp_path / ".env") == Settings(
        http_port=80, https_port=443, app_replicas=2, user_name="an unnamed operator",
        user_url="", deploy_timeout=300)


def test_the_settings_file_is_read(tmp_path: Path) -> None:
    dotenv = "HTTP_PORT=8080\nexport APP_REPLICAS=3 # two for a start\nUSER_NAME='Ada E.'\n"
    assert load(tmp_path, dotenv) == Settings(
        http_port=8080, app_replicas=3, user_name="Ada E.")


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "HTTP_PORT=8080\nHTTPS_PORT=8443\n", HTTP_PORT="9080")
    assert (settings.http_port, settings.https_port) == (9080, 8443)


def test_the_processs_own_environment_is_the_default(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_REPLICAS", "5")
    assert Settings.load(dotenv=tmp_path / ".env").app_replicas == 5


def test_every_setting_can_be_chosen(tmp_path: Path) -> None:
    assert load(tmp_path, HTTP_PORT="1", HTTPS_PORT="65535", APP_REPLICAS="100",
                USER_NAME="Ada", USER_URL="https://example.org/ada", DEPLOY_TIMEOUT="3600") \
        == Settings(1, 65535, 100, "Ada", "https://example.org/ada", 3600)


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, "HTTP_PORT=\nUSER_NAME=\n", APP_REPLICAS="") == Settings()


def test_an_empty_environment_variable_leaves_the_file_its_say(tmp_path: Path) -> None:
    assert load(tmp_path, "HTTP_PORT=8080\n", HTTP_PORT="").http_port == 8080


@pytest.mark.parametrize("line", [
    "BASE=debian:trixie-slim", "CA_BUNDLE=/etc/ssl/ca.pem", "COMPOSE_PROJECT_NAME=tally"])
def test_what_docker_compose_reads_from_the_same_file_is_let_be(tmp_path: Path, line: str) -> None:
    assert load(tmp_path, f"{line}\nHTTP_PORT=8080\n") == Settings(http_port=8080)


@pytest.mark.parametrize(("line", "name"), [
    ("HTTP_PROT=8080", "HTTP_PROT"), ("http_port=8080", "http_port"),
    ("DATABASE_URL=", "DATABASE_URL"), ("HTTP_PORT", "HTTP_PORT"),
    ("export HTTP_PORT", "HTTP_PORT"), ("COMPOSE_FILE", "COMPOSE_FILE")])
def test_a_line_that_sets_no_setting_is_refused(tmp_path: Path, line: str, name: str) -> None:
    assert error(tmp_path, f"HTTPS_PORT=8443\n{line}\n") \
        == f".env: {name!r} isn't a setting: see .env.example"


@pytest.mark.parametrize("line", ["HTTP_PORT 8080", "HTTP PORT=8080", "=8080", "USER_NAME='Ada"])
def test_a_line_that_cant_be_read_is_refused(tmp_path: Path, line: str) -> None:
    assert error(tmp_path, f"HTTPS_PORT=8443\n{line}\n") \
        == ".env, line 2: it isn't NAME=value: see .env.example"


def test_the_environment_may_hold_anything(tmp_path: Path) -> None:
    assert load(tmp_path, HTTP_PROT="8080") == Settings()


def test_a_dollar_sign_in_the_file_is_itself(tmp_path: Path) -> None:
    assert load(tmp_path, "USER_NAME=${HOME} & $Co\n").user_name == "${HOME} & $Co"


@pytest.mark.parametrize(("name", "value", "rule"), [
    ("HTTP_PORT", "0", "it should be a number from 1 to 65535"),
    ("HTTP_PORT", "65536", "it should be a number from 1 to 65535"),
    ("HTTP_PORT", "80a", "it should be a number from 1 to 65535"),
    ("HTTP_PORT", "-80", "it should be a number from 1 to 65535"),
    ("HTTP_PORT", "٨٠", "it should be a number from 1 to 65535"),
    ("HTTP_PORT", "9" * 5000, "it should be a number from 1 to 65535"),
    ("HTTPS_PORT", "https", "it should be a number from 1 to 65535"),
    ("APP_REPLICAS", "0", "it should be a number from 1 to 100"),
    ("APP_REPLICAS", "101", "it should be a number from 1 to 100"),
    ("DEPLOY_TIMEOUT", "9", "it should be a number from 10 to 3600"),
    ("DEPLOY_TIMEOUT", "3601", "it should be a number from 10 to 3600"),
    ("DEPLOY_TIMEOUT", "300s", "it should be a number from 10 to 3600"),
    ("USER_NAME", "Ada\nExample", "it should be one line of printable text"),
    ("USER_NAME", "Ada\x1b[31m", "it should be one line of printable text"),
    ("USER_URL", "example.org", "it should start with http:// or https://"),
    ("USER_URL", "javascript:alert(1)", "it should start with http:// or https://"),
    ("USER_URL", "http://[::1", "it should start with http:// or https://"),
    ("USER_URL", "http://", "it should start with http:// or https://"),
    ("USER_URL", "https://example.org/\t", "it should be one line of printable text"),
])
def test_a_bad_value_is_one_line_with_its_rule(
        tmp_path: Path, name: str, value: str, rule: str) -> None:
    assert error(tmp_path, **{name: value}) == f"{name}={value!r}: {rule}"


def test_a_bad_value_in_the_file_is_refused_like_one_in_the_environment(tmp_path: Path) -> None:
    assert error(tmp_path, "APP_REPLICAS=many\n") \
        == "APP_REPLICAS='many': it should be a number from 1 to 100"


def test_one_port_cant_serve_both(tmp_path: Path) -> None:
    assert error(tmp_path, HTTP_PORT="443") \
        == "HTTP_PORT and HTTPS_PORT are both 443: choose two different ports"


def test_a_settings_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"USER_NAME=\xff\xfe\n")
    assert error_of(lambda: Settings.load({}, tmp_path / ".env")).startswith(
        ".env can't be read: 'utf-8' codec can't decode byte 0xff")


def test_the_example_documents_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    documented = "\n".join(line.removeprefix("#") for line in lines if line.startswith("#")
                           and "=" in line and not line.startswith("# "))
    assert {line.split("=")[0] for line in documented.splitlines()} \
        == set(NAMES) - {"BUILD_NUMBER"}
    assert load(tmp_path, documented) == Settings()
