"""Logs are one JSON object per line, in development for a person, and contain no address."""

import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import BaseWSGIServer, make_server

from app import create_app, logs

pytestmark = pytest.mark.unit
ADDRESS = "192.0.2.77"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], app: Flask) -> "Lines":
    return Lines(capsys)


class Lines:
    """The log since the application was made, parsed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        capsys.readouterr()

    def read(self) -> list[dict[str, Any]]:
        self.text = self.capsys.readouterr().out
        return [json.loads(line) for line in self.text.splitlines()]


def test_a_request_is_one_line(client: FlaskClient, lines: Lines) -> None:
    client.get("/version?secret=1")
    (line,) = lines.read()
    assert line.pop("milliseconds") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "message": "request", "method": "GET", "path": "/version",
        "status": 200, "endpoint": "views.version",
    }


def test_a_successful_health_check_is_not_logged(client: FlaskClient, lines: Lines) -> None:
    client.get("/healthz")
    assert lines.read() == []


@pytest.mark.parametrize("path", ["/", "/nowhere", "/version?from=" + ADDRESS])
@pytest.mark.parametrize("forwarded", [ADDRESS, f"{ADDRESS}, unknown"])
def test_no_line_contains_an_address_or_a_browser(
    client: FlaskClient, lines: Lines, path: str, forwarded: str
) -> None:
    headers = {"X-Forwarded-For": forwarded, "User-Agent": "Netscape", "Referer": "http://there"}
    client.get(path, headers=headers)
    assert len(lines.read()) == 1
    assert not any(word in lines.text for word in (ADDRESS, "127.0.0.1", "Netscape", "there"))


def test_a_path_cannot_forge_a_line(client: FlaskClient, lines: Lines) -> None:
    client.get("/%0A%7B%22level%22%3A%22error%22%7D")
    (line,) = lines.read()
    assert line["path"] == '/\n{"level":"error"}'


@pytest.mark.parametrize("path", ["/" + "a" * 28_000, "/" + "%ff" * 9_000, "/" + "%0a" * 9_000])
def test_a_long_request_is_a_short_line(client: FlaskClient, lines: Lines, path: str) -> None:
    client.open(path, method="A" * 20_000)
    (line,) = lines.read()
    assert len(lines.text) < 8_000
    assert line["path"].startswith("/") and line["path"].endswith("\u2026")
    assert line["method"].endswith("A\u2026")


def test_a_long_request_makes_no_long_message_of_a_bug(app: Flask, lines: Lines) -> None:
    def bug(filename: str) -> str:
        raise ValueError(filename)

    app.view_functions["static"] = bug
    app.test_client().get("/static/" + "a" * 28_000)
    message, _ = lines.read()
    assert len(message["message"]) < 1_000 and len(message["cause"]) < 1_000


def test_a_bug_is_logged_with_its_cause_on_one_line(app: Flask, lines: Lines) -> None:
    app.view_functions["views.version"] = lambda: str(1 // 0)
    app.test_client().get("/version")
    bug, request = lines.read()
    assert bug["level"] == "error"
    assert bug["cause"] == "ZeroDivisionError: integer division or modulo by zero"
    assert "ZeroDivisionError" in bug["traceback"]
    assert (request["level"], request["status"]) == ("error", 500)


def test_a_second_application_does_not_log_twice(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        client = create_app(environ).test_client()
    capsys.readouterr()
    client.get("/version")
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.fixture
def server(app: Flask) -> Iterator[BaseWSGIServer]:
    server = make_server("127.0.0.1", 0, app)
    yield server
    server.server_close()


@pytest.mark.parametrize(
    ("sent", "logged"), [("GET /version HTTP/1.0", ["request"]), ("not HTTP", [])]
)
def test_the_development_server_does_not_log_a_requests_address(
    server: BaseWSGIServer, lines: Lines, sent: str, logged: list[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"{sent}\r\n\r\n".encode())
        server.handle_request()
    logging.getLogger("werkzeug").warning("the debugger is active")
    messages = [line["message"] for line in lines.read()]
    assert messages == [*logged, "the debugger is active"]
    assert "127.0.0.1" not in lines.text


def test_the_development_server_logs_its_own_address(
    server: BaseWSGIServer, lines: Lines
) -> None:
    server.log_startup()
    (line,) = lines.read()
    assert f"Running on http://127.0.0.1:{server.port}" in line["message"]


@pytest.fixture
def development(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Flask:
    app = create_app({}, instance_path=str(tmp_path))
    capsys.readouterr()
    return app


def test_in_development_a_request_is_a_line_for_a_person(
    development: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    development.test_client().get("/version?secret=1", headers={"X-Forwarded-For": ADDRESS})
    line = capsys.readouterr().out
    known = r"\d\d:\d\d:\d\d info request method=GET path=/version status=200 milliseconds=[\d.]+ "
    assert re.fullmatch(known + "endpoint=views.version\n", line)


def test_in_development_a_bug_is_shown_with_its_traceback(
    development: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    development.view_functions["views.version"] = lambda: str(1 // 0)
    development.test_client().get("/version")
    text = capsys.readouterr().out
    assert "error Exception on /version [GET]\nTraceback (most recent call last):\n  File" in text
    assert "\nZeroDivisionError: integer division or modulo by zero\n" in text


def test_in_development_a_path_reaches_no_terminal(
    development: Flask, capsys: pytest.CaptureFixture[str]
) -> None:
    development.test_client().get("/%1b[31m%0Ared")
    (line,) = capsys.readouterr().out.splitlines()
    assert r" path=/\x1b[31m\nred " in line


@pytest.mark.parametrize("environment", ["development", "production"])
def test_the_servers_address_has_no_terminal_escapes(
    environ: dict[str, str], environment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(environ | {"TALLY_ENV": environment})
    capsys.readouterr()
    with make_server("127.0.0.1", 0, app) as server:
        server.log_startup()
    text = capsys.readouterr().out
    assert f" * Running on http://127.0.0.1:{server.port}" in text
    assert "\x1b" not in text and "\\u001b" not in text
    assert text.startswith("{") == (environment == "production")


def test_a_cause_is_one_line() -> None:
    assert logs.cause(ValueError("two\n  lines")) == "ValueError: two lines"


@pytest.mark.parametrize(("said", "told"), [
    ('password authentication failed for user "s3cret"',
     'password authentication failed for user "***"'),
    ("Access denied for user 's3cret'@'localhost'", "Access denied for user '***'@'localhost'"),
    ('role "s3cret" does not exist', 'role "***" does not exist')])
def test_a_cause_has_no_users_name(said: str, told: str) -> None:
    assert logs.cause(ValueError(said)) == f"ValueError: {told}"
