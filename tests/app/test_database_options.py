"""The options of a database's URL: its own win, our time limits stay, and failures are told."""

import json
import random
import shutil
import string
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import certifi
import flask_migrate
import pytest
import requests
from flask import Flask
from psycopg2.extensions import parse_dsn
from sqlalchemy import text

from app import create_app
from app.connections import startup_options
from app.database import engine_options
from app.database_options import LIBPQ, server_parameters
from app.database_url import parse
from app.models import db
from tests.app.test_migrations import flask_db
from tests.support.ports import free_port
from tests.support.services import VISITOR_KEY, Database, MariaDB, Postgres, ServiceError, uwsgi


def environ(url: str) -> dict[str, str]:
    return {
        "TALLY_ENV": "production", "TALLY_VERSION": "1.4.0+57", "VISITOR_KEY": VISITOR_KEY,
        "DATABASE_URL": url,
    }


def driver_arguments(url: str) -> dict[str, object]:
    """Return what the driver connects with."""
    parsed = parse(url)
    _, arguments = parsed.get_dialect()().create_connect_args(parsed)
    return {**arguments, **engine_options(parsed)["connect_args"]}


@pytest.mark.unit
@pytest.mark.parametrize(("url", "name", "value"), [
    ("postgresql://u@h/d?connect_timeout=7", "connect_timeout", "7"),
    ("postgresql://u@h/d?connect_timeout=7", "application_name", "tally"),
    ("postgresql://u@h/d?application_name=mine", "application_name", "mine"),
    ("postgresql://u@h/d?application_name=mine", "connect_timeout", 2),
    ("mysql://u@h/d?read_timeout=7", "read_timeout", 7),
    ("mysql://u@h/d?read_timeout=7", "write_timeout", 5),
    ("mysql://u@h/d?write_timeout=7", "read_timeout", 5),
    ("sqlite:////d?timeout=7", "timeout", 7.0),
    ("sqlite:////d", "timeout", 5),
])
def test_a_urls_options_win_and_the_others_stay(url: str, name: str, value: object) -> None:
    assert driver_arguments(url)[name] == value


@pytest.mark.unit
@pytest.mark.parametrize("keyword", LIBPQ)
def test_libpq_knows_each_of_its_options(keyword: str) -> None:
    assert parse_dsn(f"{keyword}=1") == {keyword: "1"}


@pytest.mark.unit
@pytest.mark.parametrize(("options", "parameters"), [
    ("-c statement_timeout=3s", {"statement_timeout": "3s"}),
    ("-cwork_mem=8MB --lock-timeout=1s", {"work_mem": "8MB", "lock_timeout": "1s"}),
    (r"-c DateStyle=ISO,\ MDY", {"datestyle": "ISO, MDY"}),
])
def test_server_parameters_are_read_and_written(
    options: str, parameters: dict[str, str]
) -> None:
    assert server_parameters(options) == parameters
    assert server_parameters(startup_options(parameters)) == parameters


@pytest.mark.unit
@pytest.mark.parametrize("options", ["fast", "-c", "-c name", "-a=1", "-c a=1 more", "a=1"])
def test_what_is_no_server_parameter_is_refused(options: str) -> None:
    with pytest.raises(ValueError, match="^expected -c name=value "):
        server_parameters(options)


def failure(url: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Visit a page that has to fail with 503; return the cause that is logged."""
    client = create_app(environ(url)).test_client()
    capsys.readouterr()
    assert client.get("/").status_code == 503
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert line["message"] == "database error"
    return str(line["cause"])


@pytest.mark.unit
def test_a_file_of_certificates_that_is_gone_is_503_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copy(certifi.where(), tmp_path / "ca.crt")
    app = create_app(environ(f"mysql://u@127.0.0.1:{free_port()}/d?ssl_ca={copy}"))
    Path(copy).unlink()
    capsys.readouterr()
    assert app.test_client().get("/").status_code == 503
    line, *_ = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["cause"] == "OperationalError: [Errno 2] No such file or directory: " \
        "check the files of ssl_ca, ssl_cert and ssl_key"
    with pytest.raises(SystemExit) as raised:
        migrate(app)
    assert str(raised.value) == f"migration failed: {line['cause']}"


@pytest.mark.unit
@pytest.mark.parametrize("option", [
    "sslmode=never", "keepalives_idle=soon", "target_session_attrs=never",
])
def test_an_option_that_libpq_refuses_is_503_and_named(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"postgresql://u:secret@127.0.0.1:{free_port()}/d?{option}"
    told = failure(url, capsys)
    assert "secret" not in told
    assert option.partition("=")[0] in told


@pytest.mark.unit
def test_a_sqlite_file_that_cannot_be_opened_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "absent" / "x.db"
    url = f"sqlite:///{path}"
    reason = f"OperationalError: unable to open database file: {path}"
    assert failure(url, capsys) == reason
    with pytest.raises(SystemExit) as raised:
        migrate(create_app(environ(url)))
    assert raised.value.code == f"migration failed: {reason}"


@pytest.mark.service
@pytest.mark.parametrize("option", ["ssl-mode=REQUIRED", "ssl=true", "ssl_ca=/nope"])
def test_a_refused_option_ends_the_migration_with_one_line(option: str) -> None:
    upgrade = flask_db(environ(f"mysql://u:secret@127.0.0.1:{free_port()}/d?{option}"), "upgrade")
    assert (upgrade.returncode, upgrade.stdout) == (1, "")
    line, = upgrade.stderr.splitlines()
    assert line.startswith("DATABASE_URL: ")
    assert option.partition("=")[0] in line and "secret" not in line


@pytest.mark.service
def test_a_mariadb_password_may_have_any_character(mariadb_server: MariaDB) -> None:
    password = "Grüße, €5"
    with mariadb_server.database("tally_password") as database:
        mariadb_server.execute(
            f"CREATE USER 'other'@'%' IDENTIFIED BY '{password}'",
            "GRANT ALL ON tally_password.* TO 'other'@'%'",
        )
        upgrade = flask_db(database.environ("other") | {"DATABASE_PASSWORD": password}, "upgrade")
        mariadb_server.execute("DROP USER 'other'@'%'")
    assert (upgrade.returncode, upgrade.stderr) == (0, "")


@pytest.mark.service
def test_a_postgresql_socket_is_found_in_its_encoded_directory(
    postgres_server: Postgres, postgres_database: Database
) -> None:
    directory = quote(str(postgres_server.server.directory), safe="")
    given = postgres_database.environ(postgres_database.owner)
    host, port = "127.0.0.1", postgres_server.server.port
    given["DATABASE_URL"] = given["DATABASE_URL"].replace(f"{host}:{port}", f"{directory}:{port}")
    assert flask_db(given, "upgrade").returncode == 0


@pytest.mark.service
def test_a_migration_keeps_its_time_limits_beside_a_urls_options(
    postgres_database: Database,
) -> None:
    given = postgres_database.environ(postgres_database.owner)
    given["DATABASE_URL"] += "?options=-c+statement_timeout%3D4s"
    app = create_app(given)
    with app.app_context(), db.engine.connect() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "4s"
    assert flask_db(given, "upgrade").returncode == 0


SEPARATORS = "@:/?#%&=+'\" "
FORMS = [
    "{scheme}://user:{password}@127.0.0.1:1/tally",
    "{scheme}://user:{password}@127.0.0.1:1/tally?connect_timeout=3",
    "{scheme}://user:{password}@127.0.0.1:1/tally?ssl=true",
    "{scheme}://user:{password}/tally",
    "{scheme}://user/{password}@127.0.0.1:1/tally",
    "'{scheme}://user:{password}@127.0.0.1:1/tally'",
]


def urls(count: int) -> list[tuple[list[str], str]]:
    """Return URLs, each with the parts of its password; the same ones in each run."""
    chance = random.Random(8086)
    made = []
    for number in range(count):
        parts = ["".join(chance.choices(string.ascii_letters, k=8)) for _ in range(3)]
        password = chance.choice(SEPARATORS).join(parts)
        if number % 2:
            password = quote(password, safe="")
        scheme = chance.choice(["postgresql", "mysql"])
        form = FORMS[number % len(FORMS)]
        made.append((parts, form.format(scheme=scheme, password=password)))
    return made


@pytest.mark.unit
@pytest.mark.parametrize(("parts", "url"), urls(60))
def test_no_part_of_a_password_is_printed_or_logged_by_the_application(
    parts: list[str], url: str, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = []
    try:
        app = create_app(environ(url))
        assert app.test_client().get("/").status_code == 503
        assert app.test_client().get("/readyz").status_code == 503
        migrate(app)
    except SystemExit as ended:
        told.append(str(ended))
    told += [*capfd.readouterr(), caplog.text]
    assert not [part for part in parts if any(part in text for text in told)]


def migrate(app: Flask) -> None:
    with app.app_context():
        flask_migrate.upgrade()


@pytest.mark.service
@pytest.mark.parametrize(("parts", "url"), urls(12))
def test_no_part_of_a_password_is_printed_by_a_migration(parts: list[str], url: str) -> None:
    upgrade = flask_db(environ(url), "upgrade")
    assert upgrade.returncode == 1
    assert len(upgrade.stderr.splitlines()) == 1
    assert not [part for part in parts if part in upgrade.stdout + upgrade.stderr]


@pytest.mark.service
@pytest.mark.parametrize(("parts", "url"), urls(12))
def test_no_part_of_a_password_is_logged_by_a_server(
    parts: list[str], url: str, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w+b") as log:
        # A server whose URL is refused ends at its start.
        with suppress(ServiceError), uwsgi(environ(url), log=log) as site:
            assert requests.get(site, timeout=30).status_code == 503
            assert requests.get(f"{site}/readyz", timeout=30).status_code == 503
    told = (tmp_path / "log").read_text()
    assert "DATABASE_URL: " in told or "database error" in told
    assert not [part for part in parts if part in told]


@pytest.mark.service
@pytest.mark.parametrize("kind", ["postgres_database", "mariadb_database"])
def test_a_password_that_a_server_refuses_is_neither_printed_nor_logged(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    database: Database = request.getfixturevalue(kind)
    given = database.environ(database.owner) | {"DATABASE_PASSWORD": "Wrong@Secret/Rest"}
    upgrade = flask_db(given, "upgrade")
    with (tmp_path / "log").open("w+b") as log, uwsgi(given, log=log) as site:
        assert requests.get(site, timeout=30).status_code == 503
    told = (tmp_path / "log").read_text() + upgrade.stdout + upgrade.stderr
    assert upgrade.returncode == 1 and "database error" in told
    assert not [part for part in ("Wrong", "Secret", "Rest") if part in told]
