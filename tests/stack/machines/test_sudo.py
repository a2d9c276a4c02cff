"""A command that needs root gets it through sudo, before anything is changed."""

import subprocess
import sys
from pathlib import Path

import pytest

from stack.inventory.settings import ROOT
from stack.machines.sudo import may_use_docker, under_sudo
from tests.support.executables import executable

# It starts programs.
pytestmark = pytest.mark.service

# Asks for root as the user with this ID.
ASK = """
import os, sys
from stack import commands
os.geteuid = lambda: {uid}
from stack.machines.sudo import require_root
sys.argv = ["/srv/tally/fabfile.py", "deploy"]
require_root("./fab deploy")
print("went on")
"""


def ask(tmp_path: Path, uid: int = 1000, **environ: str) -> subprocess.CompletedProcess[str]:
    """Ask for root without a terminal, with only one folder's commands on PATH."""
    return subprocess.run(
        [sys.executable, "-c", ASK.format(uid=uid)], cwd=ROOT, capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **environ})


def last_error(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_root_continues(tmp_path: Path) -> None:
    assert ask(tmp_path, uid=0).stdout == "went on\n"


def test_another_user_starts_again_under_sudo(tmp_path: Path) -> None:
    executable(tmp_path / "sudo", '[ "$1" = --non-interactive ] || echo "$*"')
    done = ask(tmp_path, HTTP_PORT="8080")
    assert done.stdout.splitlines() == [
        "./fab deploy needs root: continuing with sudo",
        f"env HTTP_PORT=8080 PYTHONDONTWRITEBYTECODE=1 {sys.executable} "
        "/srv/tally/fabfile.py deploy"]


def test_the_exit_code_is_the_second_runs(tmp_path: Path) -> None:
    executable(tmp_path / "sudo", '[ "$1" = --non-interactive ] || exit 7')
    assert ask(tmp_path).returncode == 7


def test_without_sudo_the_command_is_refused(tmp_path: Path) -> None:
    done = ask(tmp_path)
    assert done.returncode == 1 and "went on" not in done.stdout
    assert "./fab deploy needs root, and there is no sudo" in last_error(done)


def test_sudo_with_a_password_is_refused_without_a_terminal(tmp_path: Path) -> None:
    executable(tmp_path / "sudo", '[ "$1" != --non-interactive ] || exit 1; echo became root')
    done = ask(tmp_path)
    assert done.returncode == 1 and "became root" not in done.stdout
    assert "./fab deploy needs root, and sudo asks for a password" in last_error(done)


def test_settings_and_proxies_pass_through_sudo() -> None:
    environ = {"HTTP_PORT": "8080", "USER_NAME": "Ada E.", "BUILD_NUMBER": "57", "CI": "true",
               "CI_JOB_URL": "https://gitlab.example.org/7",
               "https_proxy": "http://ada:secret@192.0.2.1:3128", "NO_PROXY": "192.0.2.0/24"}
    assert under_sudo(["/srv/fabfile.py", "bootstrap", "deploy"], environ) == [
        "sudo", "--preserve-env=NO_PROXY,https_proxy", "env",
        "BUILD_NUMBER=57", "CI=true", "CI_JOB_URL=https://gitlab.example.org/7",
        "HTTP_PORT=8080", "USER_NAME=Ada E.", "PYTHONDONTWRITEBYTECODE=1",
        sys.executable, "/srv/fabfile.py", "bootstrap", "deploy"]


@pytest.mark.parametrize("name", ["HOME", "PYTHONPATH", "LD_PRELOAD", "VISITOR_KEY", "PATH"])
def test_nothing_else_passes_through_sudo(name: str) -> None:
    assert under_sudo(["/srv/fabfile.py", "deploy"], {name: "value"}) == [
        "sudo", "env", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "/srv/fabfile.py", "deploy"]


def test_an_existing_socket_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "docker.sock").touch(0o660)
    assert may_use_docker(tmp_path / "docker.sock")


def test_a_missing_socket_may_not_be_used(tmp_path: Path) -> None:
    assert not may_use_docker(tmp_path / "docker.sock")
