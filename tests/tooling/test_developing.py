"""README's commands start the application where there is no compiler."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from stack.inventory.settings import ROOT
from tests.support.ports import free_port
from tests.support.services import wait_until

# These tests make a real environment from the package index, as ./fab itself does.
pytestmark = pytest.mark.service

# Where a build would find a compiler without PATH.
NO_COMPILER = {"CC": "false", "CXX": "false"}


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Python is the only command."""
    commands = tmp_path_factory.mktemp("commands")
    python = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    (commands / "python3").symlink_to(python)
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {**kept, **NO_COMPILER, "PATH": str(commands), "HOME": str(Path.home())}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> Path:
    """A checkout in which the first of README's commands for developers was run."""
    root = tmp_path_factory.mktemp("developer")
    for name in ("app", "migrations"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "version.txt"):
        shutil.copy(ROOT / name, root)
    made, = re.findall("^python3 -m venv .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    done = subprocess.run(["/bin/sh", "-c", made], cwd=root, env=environ, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_the_developers_environment_has_no_server(checkout: Path) -> None:
    commands = {path.name for path in (checkout / ".dev" / "bin").iterdir()}
    assert "flask" in commands and "uwsgi" not in commands


def test_flask_run_serves_the_page(checkout: Path, environ: dict[str, str]) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    with (checkout / "log").open("wb") as log:
        server = subprocess.Popen(
            [".dev/bin/flask", "run", f"--port={port}"], cwd=checkout, env=environ,
            stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(server, address), "the page is served")
        assert "You have visited this page 1 time." in requests.get(address, timeout=10).text
    finally:
        server.terminate()
        server.wait(30)


def answers(server: "subprocess.Popen[bytes]", address: str) -> bool:
    """Return whether the application answers; it has to run as long as it doesn't."""
    assert server.poll() is None
    try:
        return requests.get(f"{address}/healthz", timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):
        return False
