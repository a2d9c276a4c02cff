"""Settings come from the environment, then .env, then the inventory, then the defaults."""

import os
from pathlib import Path

import pytest

from stack.inventory import Host, Inventory, Ports, Registry, Replicas
from stack.inventory.settings import NAMES, ROOT, Settings, inventory_path, registry_password
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

INVENTORY = Inventory("production", (Host("203.0.113.11", "manager"),),
                      ports=Ports(http=8080, https=8443), replicas=Replicas(app=4))


def load(tmp_path: Path, dotenv: str = "", **environ: str) -> Settings:
    (tmp_path / ".env").write_text(dotenv)
    return Settings.load(None, environ, tmp_path / ".env")


def load_with_inventory(tmp_path: Path, dotenv: str = "", **environ: str) -> Settings:
    (tmp_path / ".env").write_text(dotenv)
    return Settings.load(INVENTORY, environ, tmp_path / ".env")


def error(tmp_path: Path, dotenv: str = "", **environ: str) -> str:
    return error_of(lambda: load(tmp_path, dotenv, **environ))


def test_every_setting_has_a_default(tmp_path: Path) -> None:
    assert Settings.load(environ={}, dotenv=tmp_path / ".env") == Settings(
        http_port=80, https_port=443, app_replicas=None, user_name="an unnamed operator",
        user_url="", deploy_timeout=300)


def test_the_settings_file_is_read(tmp_path: Path) -> None:
    dotenv = "HTTP_PORT=8080\nexport APP_REPLICAS=3 # two for a start\nUSER_NAME='Ada E.'\n"
    assert load(tmp_path, dotenv) == Settings(
        http_port=8080, app_replicas=3, user_name="Ada E.")


def test_the_environment_takes_precedence_over_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, "HTTP_PORT=8080\nHTTPS_PORT=8443\n", HTTP_PORT="9080")
    assert (settings.http_port, settings.https_port) == (9080, 8443)


def test_the_inventory_takes_precedence_over_the_defaults(tmp_path: Path) -> None:
    assert load_with_inventory(tmp_path) \
        == Settings(http_port=8080, https_port=8443, app_replicas=4)


def test_the_environment_and_the_file_take_precedence_over_the_inventory(tmp_path: Path) -> None:
    settings = load_with_inventory(tmp_path, "HTTP_PORT=9080\nAPP_REPLICAS=3\n", HTTP_PORT="7080")

    assert settings == Settings(http_port=7080, https_port=8443, app_replicas=3)


def test_settings_without_a_value_in_the_inventory_are_the_defaults(tmp_path: Path) -> None:
    silent = Inventory("production", INVENTORY.nodes)

    assert Settings.load(silent, {}, tmp_path / ".env") == Settings()


def test_a_port_of_the_inventory_cant_serve_another_purpose(tmp_path: Path) -> None:
    assert error_of(lambda: load_with_inventory(tmp_path, HTTP_PORT="8443")) \
        == "HTTP_PORT and HTTPS_PORT are both 8443: choose two different ports"


def test_the_processs_own_environment_is_the_default(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_REPLICAS", "5")
    assert Settings.load(dotenv=tmp_path / ".env").app_replicas == 5


def test_every_setting_can_be_set(tmp_path: Path) -> None:
    assert load(tmp_path, HTTP_PORT="1", HTTPS_PORT="65535", APP_REPLICAS="100",
                USER_NAME="Ada", USER_URL="https://example.org/ada", DEPLOY_TIMEOUT="3600") \
        == Settings(1, 65535, 100, "Ada", "https://example.org/ada", 3600)


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    assert load(tmp_path, "HTTP_PORT=\nUSER_NAME=\n", APP_REPLICAS="") == Settings()


def test_an_empty_environment_variable_doesnt_hide_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, "HTTP_PORT=8080\n", HTTP_PORT="").http_port == 8080


@pytest.mark.parametrize("line", [
    "INVENTORY=staging.yml", "REGISTRY_PASSWORD=secret", "BASE=debian:trixie-slim",
    "CA_BUNDLE=/etc/ssl/ca.pem", "COMPOSE_PROJECT_NAME=tally"])
def test_other_programs_variables_in_the_file_are_ignored(tmp_path: Path, line: str) -> None:
    assert load(tmp_path, f"{line}\nHTTP_PORT=8080\n") == Settings(http_port=8080)


def test_a_line_that_may_be_a_password_is_not_shown(tmp_path: Path) -> None:
    assert error(tmp_path, "HTTPS_PORT=8443\ns3cret\n") \
        == ".env, line 2: it isn't NAME=value: see .env.example"


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    assert error_of(lambda: Settings.load(environ={}, dotenv=tmp_path / ".env")) \
        == f"{tmp_path}/.env isn't a regular file"


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


def test_other_environment_variables_are_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, HTTP_PROT="8080") == Settings()


def test_a_dollar_sign_in_the_file_is_literal(tmp_path: Path) -> None:
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


def test_a_settings_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"USER_NAME=\xff\xfe\n")
    assert error_of(lambda: Settings.load(environ={}, dotenv=tmp_path / ".env")).startswith(
        ".env can't be read: 'utf-8' codec can't decode byte 0xff")


def test_the_example_documents_every_setting_with_its_default(tmp_path: Path) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    documented = "\n".join(line.removeprefix("#") for line in lines if line.startswith("#")
                           and "=" in line and not line.startswith("# "))
    assert {line.split("=")[0] for line in documented.splitlines()} \
        == {*NAMES, "REGISTRY_PASSWORD"} - {"BUILD_NUMBER"}
    assert load(tmp_path, documented) == Settings()


def chosen(tmp_path: Path, dotenv: str = "", **environ: str) -> Path | None:
    """Return the inventory that is chosen in a folder with two."""
    for name in ("inventory.yml", "staging.yml"):
        (tmp_path / name).touch()
    (tmp_path / ".env").write_text(dotenv)
    return inventory_path(environ, tmp_path / ".env", tmp_path)


def test_the_environment_chooses_the_inventory_before_the_file(tmp_path: Path) -> None:
    staging = tmp_path / "staging.yml"

    assert chosen(tmp_path) == tmp_path / "inventory.yml"
    assert chosen(tmp_path, "INVENTORY=staging.yml\n") == staging
    assert chosen(tmp_path, "INVENTORY=gone.yml\n", INVENTORY="staging.yml") == staging
    assert chosen(tmp_path, "INVENTORY=staging.yml\n", INVENTORY="") == staging


def test_without_an_inventory_it_is_this_machine(tmp_path: Path) -> None:
    assert inventory_path({}, tmp_path / ".env", tmp_path) is None


def test_the_processs_own_environment_chooses_the_inventory(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVENTORY", "inventory.example.yml")

    assert inventory_path(dotenv=tmp_path / ".env") == ROOT / "inventory.example.yml"


def test_a_missing_inventory_is_refused_wherever_it_is_named(tmp_path: Path) -> None:
    assert error_of(lambda: chosen(tmp_path, "INVENTORY=gone.yml\n")) == (
        f"INVENTORY=gone.yml: there is no {tmp_path}/gone.yml: "
        "start from a copy of inventory.example.yml")


def password(tmp_path: Path, dotenv: str = "", **environ: str) -> str | None:
    """Read a registry's password from a file in the test's folder."""
    registry = Registry("registry.example.org", "ci", tmp_path / "password")
    (tmp_path / ".env").write_text(dotenv)
    return registry_password(registry, environ, tmp_path / ".env")


@pytest.mark.parametrize("content", ["pass word", "pass word\n", "pass word\r\n"])
def test_a_registrys_password_is_its_files_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "password").write_bytes(content.encode())

    assert password(tmp_path) == "pass word"


def test_a_password_from_the_environment_needs_no_file(tmp_path: Path) -> None:
    assert password(tmp_path, "REGISTRY_PASSWORD=theirs\n") == "theirs"
    assert password(tmp_path, "REGISTRY_PASSWORD=theirs\n", REGISTRY_PASSWORD="ours") == "ours"


def test_an_empty_password_doesnt_hide_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")

    assert password(tmp_path, "REGISTRY_PASSWORD=\n", REGISTRY_PASSWORD="") == "secret"


def test_a_registry_without_a_user_gets_no_password(tmp_path: Path) -> None:
    registry = Registry("registry.example.org")

    assert registry_password(registry, {"REGISTRY_PASSWORD": "secret"}, tmp_path / ".env") is None


def test_a_missing_password_file_is_refused(tmp_path: Path) -> None:
    assert error_of(lambda: password(tmp_path)) == (
        f"registry.password_file, {tmp_path}/password, can't be read (No such file or directory): "
        "write the password there, or set REGISTRY_PASSWORD")


@pytest.mark.parametrize("content", [b"", b"\n", b"secret\nsecret\n", b"secret\xff", b"se\0cret"])
def test_an_invalid_password_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "password").write_bytes(content)

    assert error_of(lambda: password(tmp_path)) == (
        f"registry.password_file, {tmp_path}/password, should hold a password: "
        "one line of printable text")


def test_a_password_in_the_environment_is_one_line_too(tmp_path: Path) -> None:
    assert error_of(lambda: password(tmp_path, REGISTRY_PASSWORD="secret\nsecret")) \
        == "REGISTRY_PASSWORD should hold a password: one line of printable text"


def test_sudo_gets_every_setting_but_the_password() -> None:
    assert {"INVENTORY", "HTTP_PORT", "BUILD_NUMBER"} < set(NAMES)
    assert "REGISTRY_PASSWORD" not in NAMES
