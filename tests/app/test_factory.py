"""The application starts without configuration, or says in one line why it can't."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

from app import create_app
from app.config import ConfigError
from app.models import db
from app.views import TEMPLATES, compile_templates
from tests.support.services import PASSWORD, ROOT, VISITOR_KEY


def flask(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *arguments], cwd=ROOT, text=True,
        env={"PATH": os.environ["PATH"], **environ}, capture_output=True, timeout=60,
    )


@pytest.mark.unit
def test_development_works_without_configuration(tmp_path: Path) -> None:
    first = create_app({}, instance_path=str(tmp_path)).test_client().get("/").text
    second = create_app({}, instance_path=str(tmp_path)).test_client().get("/").text
    assert "this page 1 time. Total visitors: 1<" in first
    assert "this page 2 times. Total visitors: 1<" in second


@pytest.mark.unit
def test_starting_never_migrates_a_configured_database(tmp_path: Path) -> None:
    environ = {"DATABASE_URL": f"sqlite:///{tmp_path / 'mine.sqlite3'}"}
    client = create_app(environ, instance_path=str(tmp_path)).test_client()
    assert client.get("/readyz").text == "the database has no schema: run flask db upgrade\n"


@pytest.mark.service
def test_a_missing_setting_ends_the_start_with_one_line() -> None:
    started = flask({"TALLY_ENV": "production", "VISITOR_KEY": VISITOR_KEY}, "routes")
    assert started.returncode == 1
    assert started.stderr == "DATABASE_URL is not set: expected postgresql://user@host/database\n"


@pytest.mark.unit
def test_starting_opens_no_connection_that_forked_workers_would_share() -> None:
    environ = {
        "TALLY_ENV": "production", "TALLY_VERSION": "1.4.0+57", "VISITOR_KEY": VISITOR_KEY,
        "DATABASE_URL": "postgresql://tally_app@192.0.2.1/tally", "DATABASE_PASSWORD": PASSWORD,
    }
    with create_app(environ).app_context():
        assert "Connections in pool: 0" in db.engine.pool.status()


def site(folder: Path, templates: dict[str, str]) -> Flask:
    """Return an application with only these templates."""
    for name, source in templates.items():
        (folder / name).write_text(source)
    return Flask("site", template_folder=str(folder))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "line 1: TemplateSyntaxError: Expected an expression"),
        ("<p>\n{{ 1 | nothing }}", "line 2: TemplateAssertionError: No filter named 'nothing'."),
    ],
)
def test_a_broken_template_ends_the_start(tmp_path: Path, source: str, reason: str) -> None:
    app = site(tmp_path, dict.fromkeys(TEMPLATES, "") | {"page.html": source})
    with pytest.raises(ConfigError) as raised:
        compile_templates(app)
    assert str(raised.value).startswith(f"template page.html, {reason}")


@pytest.mark.unit
@pytest.mark.parametrize("name", ["base.html", "chart.html", "error.html", "page.html"])
def test_a_missing_template_ends_the_start(tmp_path: Path, name: str) -> None:
    others = set(TEMPLATES) - {name}
    with pytest.raises(ConfigError) as raised:
        compile_templates(site(tmp_path, dict.fromkeys(others, "")))
    assert str(raised.value) == f"template {name}: TemplateNotFound: {name}"


@pytest.mark.unit
def test_a_default_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "tally.sqlite3").write_text("no database" * 100)
    with pytest.raises(ConfigError) as raised:
        create_app({}, instance_path=str(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path}/tally.sqlite3 cannot be used: DatabaseError: file is not a database")
