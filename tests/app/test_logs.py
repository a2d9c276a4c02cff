"""Logs are one JSON object a line, and know no address."""

import json
import logging
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app, logs

pytestmark = pytest.mark.unit
ADDRESS = "192.0.2.77"


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], app: Flask) -> "Lines":
    return Lines(capsys)


class Lines:
    """What was logged since the application was made, parsed."""

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


def test_a_health_check_that_went_well_is_not_logged(client: FlaskClient, lines: Lines) -> None:
    client.get("/healthz")
    assert lines.read() == []


@pytest.mark.parametrize("path", ["/", "/nowhere", "/version?from=" + ADDRESS])
@pytest.mark.parametrize("forwarded", [ADDRESS, f"{ADDRESS}, unknown"])
def test_no_line_has_an_address_or_a_browser(
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


def test_the_development_servers_line_with_the_address_is_dropped(
    app: Flask, lines: Lines
) -> None:
    werkzeug = logging.getLogger("werkzeug")
    werkzeug.warning(f'{ADDRESS} - - [01/Jan/2024 00:00:00] "GET / HTTP/1.1" 200 -')
    werkzeug.warning("the debugger is active")
    assert [line["message"] for line in lines.read()] == ["the debugger is active"]


def test_a_cause_is_one_line() -> None:
    assert logs.cause(ValueError("two\n  lines")) == "ValueError: two lines"
