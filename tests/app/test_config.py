"""Settings come from the environment or from files; a wrong one is reported in one line."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import ConfigError, Settings, read_settings
from tests.support.services import VISITOR_KEY

pytestmark = pytest.mark.unit

PRODUCTION = {
    "TALLY_ENV": "production",
    "TALLY_VERSION": "1.4.0+57",
    "DATABASE_URL": "postgresql://tally_app@postgres/tally",
    "VISITOR_KEY": VISITOR_KEY,
}


def read(tmp_path: Path, **environ: str) -> Settings:
    return read_settings(PRODUCTION | environ, str(tmp_path))


def error(tmp_path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, **environ)
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    return text


def test_development_needs_no_setting(tmp_path: Path) -> None:
    instance = tmp_path / "instance"
    config = read_settings({}, str(instance))
    assert config["SQLALCHEMY_DATABASE_URI"].database == str(instance / "tally.sqlite3")
    assert config["DATABASE_IS_DEFAULT"]
    assert config["USER_NAME"] == "an unnamed operator"
    assert (config["USER_URL"], config["COMMIT"]) == (None, "unknown")
    assert config["VERSION"] == Path("version.txt").read_text().strip() + "+dev"


def spoil_with_a_folder(key: Path) -> None:
    key.mkdir()


def spoil_with_nothing(key: Path) -> None:
    key.touch()


def spoil_with_bytes(key: Path) -> None:
    key.write_bytes(b"\xff")


@pytest.mark.parametrize(("spoil", "reason"), [
    (spoil_with_a_folder, "cannot be read or made: Is a directory"),
    (spoil_with_nothing, "contains no key: delete it"),
    (spoil_with_bytes, "is not UTF-8 text: delete it")])
def test_a_spoilt_development_key_is_refused(
        tmp_path: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(tmp_path / "visitor.key")
    with pytest.raises(ConfigError) as raised:
        read_settings({}, str(tmp_path))
    assert str(raised.value) == f"{tmp_path}/visitor.key {reason}"


def test_an_instance_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "instance").touch()
    with pytest.raises(ConfigError) as raised:
        read_settings({}, str(tmp_path / "instance"))
    assert str(raised.value) == f"{tmp_path}/instance cannot be made: File exists"


def test_the_development_key_is_kept_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    first, second = (read_settings({}, str(tmp_path))["VISITOR_KEY"] for _ in range(2))
    assert first == second and len(first) == 64
    assert stat.S_IMODE((tmp_path / "visitor.key").stat().st_mode) == 0o600
    assert read_settings({}, str(tmp_path / "other"))["VISITOR_KEY"] != first


def test_a_configured_database_is_not_the_default(tmp_path: Path) -> None:
    config = read_settings({"DATABASE_URL": f"sqlite:///{tmp_path}/tally.sqlite3"}, str(tmp_path))
    assert not config["DATABASE_IS_DEFAULT"]


@pytest.mark.parametrize("name", ["DATABASE_URL", "VISITOR_KEY"])
def test_production_requires_every_setting(tmp_path: Path, name: str) -> None:
    assert error(tmp_path, **{name: ""}).startswith(f"{name} is not set: ")
    assert list(tmp_path.iterdir()) == []


def test_a_value_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("Ada\n")
    assert read(tmp_path, USER_NAME_FILE=str(tmp_path / "name"))["USER_NAME"] == "Ada"


def test_a_value_and_a_file_together_are_an_error(tmp_path: Path) -> None:
    told = error(tmp_path, VISITOR_KEY_FILE="/run/secrets/visitor-key")
    assert told == "VISITOR_KEY and VISITOR_KEY_FILE are both set; keep only one of them"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")
    told = error(tmp_path, USER_NAME_FILE=path)
    assert told == f"USER_NAME_FILE: cannot read {path}: No such file or directory"


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgres://u@h/d", "postgresql+psycopg2"),
        ("postgresql://u@h/d", "postgresql+psycopg2"),
        ("mysql://u@h/d", "mysql+pymysql"),
        ("mariadb://u@h/d", "mysql+pymysql"),
        ("sqlite:////tmp/d", "sqlite"),
    ],
)
def test_a_url_gets_the_driver_that_is_installed(tmp_path: Path, given: str, driver: str) -> None:
    assert read(tmp_path, DATABASE_URL=given)["SQLALCHEMY_DATABASE_URI"].drivername == driver


def test_a_separate_password_needs_no_escaping(tmp_path: Path) -> None:
    url = read(tmp_path, DATABASE_PASSWORD="p%40@ss/w:rd%(x)s")["SQLALCHEMY_DATABASE_URI"]
    assert url.password == "p%40@ss/w:rd%(x)s"
    assert (url.host, url.database) == ("postgres", "tally")


def test_two_passwords_are_an_error(tmp_path: Path) -> None:
    url = "postgresql://u:secret@h/d"
    told = error(tmp_path, DATABASE_URL=url, DATABASE_PASSWORD="other")
    assert told == "DATABASE_URL contains a password; do not also set DATABASE_PASSWORD"


@pytest.mark.parametrize("url", ["secret", "oracle://u:secret@h/d", "postgresql://u:secret@h:x/d"])
def test_a_bad_url_is_refused_without_repeating_its_password(tmp_path: Path, url: str) -> None:
    told = error(tmp_path, DATABASE_URL=url)
    assert told.startswith("DATABASE_URL")
    assert "secret" not in told


def test_a_configuration_shows_no_secret(tmp_path: Path) -> None:
    config = read(tmp_path, DATABASE_PASSWORD="hush")
    assert "hush" not in repr(config) and VISITOR_KEY not in repr(config)


def test_a_short_key_is_refused_in_production(tmp_path: Path) -> None:
    assert error(tmp_path, VISITOR_KEY="x" * 31) == "VISITOR_KEY is shorter than 32 characters"
    assert read(tmp_path, VISITOR_KEY="x" * 32)["VISITOR_KEY"] == b"x" * 32


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "//example.org", "ftp://example.org", "https://", "http://[x"]
)
def test_a_link_that_is_not_http_is_refused(tmp_path: Path, url: str) -> None:
    assert error(tmp_path, USER_URL=url).startswith("USER_URL ")


@pytest.mark.parametrize("url", ["http://example.org", "https://example.org/me?a=b"])
def test_a_web_link_is_kept(tmp_path: Path, url: str) -> None:
    assert read(tmp_path, USER_URL=url)["USER_URL"] == url


def test_an_unknown_environment_is_refused(tmp_path: Path) -> None:
    assert error(tmp_path, TALLY_ENV="prod") == "TALLY_ENV must be production or development"


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "1.5"])
def test_a_wait_that_is_not_a_number_of_seconds_is_refused(tmp_path: Path, seconds: str) -> None:
    assert error(tmp_path, MIGRATION_LOCK_WAIT=seconds).startswith("MIGRATION_LOCK_WAIT must be")
