"""Packages come from the distribution, as soon as no other apt holds the lock."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stack.bootstrap import install_docker
from stack.machines import packages
from stack.machines.facts import System
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand
from tests.support.executables import borrow, executable
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

DEBIAN = System("debian", "13", "Debian GNU/Linux 13 (trixie)", systemd=True)

# What apt prints while another apt holds the lock.
BUSY = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 1 (apt-get)"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace sleeping; return how many seconds it would have taken."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def daemons(no_commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for daemons, outside PATH."""
    borrow(no_commands, "sh")
    monkeypatch.setattr(install_docker, "SBIN", f"PATH=$PATH:{tmp_path}/sbin")
    return tmp_path / "sbin"


@pytest.mark.parametrize(("engine", "client", "installed"), [
    (True, True, True), (True, False, False), (False, True, False)])
def test_docker_is_installed_if_its_engine_and_its_client_are(
        machine: LocalMachine, no_commands: Path, daemons: Path, engine: bool, client: bool,
        installed: bool) -> None:
    if engine:
        executable(daemons / "dockerd")
    if client:
        executable(no_commands / "docker")
    assert install_docker.docker_is_installed(machine) is installed


@pytest.fixture
def daemon_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "daemon.json"
    monkeypatch.setattr(install_docker, "DAEMON_CONFIG", str(path))
    return path


def add_packages(add_command: AddCommand, folder: Path, *known: str) -> None:
    """Let the package sources have these; `said` records the calls of apt and dpkg."""
    for name in ("dpkg", "apt-get"):
        add_command(name, f'echo "{name} $*" >> {folder}/said')
    add_command("apt-cache", f"case ' {' '.join(known)} ' in *\" $3 \"*) ;; *) exit 100;; esac")


def test_docker_is_installed_with_its_settings_and_available_packages(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path,
        daemon_config: Path) -> None:
    add_packages(add_command, tmp_path, "docker.io", "docker-cli")
    install_docker.install_docker(machine, DEBIAN)
    apt = " ".join(packages.APT)
    assert (tmp_path / "said").read_text().splitlines() == [
        "dpkg --configure --pending", f"{apt} update --error-on=any",
        f"{apt} install --yes --no-install-recommends docker.io docker-cli"]
    assert json.loads(daemon_config.read_text()) == install_docker.DAEMON_SETTINGS
    assert install_docker.DAEMON_SETTINGS["no-new-privileges"] is True


def test_existing_settings_are_kept(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path,
        daemon_config: Path) -> None:
    add_packages(add_command, tmp_path, "docker.io")
    daemon_config.parent.mkdir()
    daemon_config.write_text("{}")
    install_docker.install_docker(machine, DEBIAN)
    assert daemon_config.read_text() == "{}"


def test_an_unsupported_distribution_is_refused_before_any_change(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path,
        daemon_config: Path) -> None:
    add_packages(add_command, tmp_path, "docker.io")
    system = System("fedora", "41", "Fedora Linux 41", systemd=True)
    assert error_of(lambda: install_docker.install_docker(machine, system)) == (
        "Docker isn't installed on this machine, and Fedora Linux 41 isn't Debian 12, Debian 13 "
        "or Ubuntu 24.04: install Docker 20.10 or newer, then ./fab bootstrap")
    assert not daemon_config.exists() and not (tmp_path / "said").exists()


def test_sources_without_the_first_package_are_refused(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_packages(add_command, tmp_path, "docker-cli")
    assert error_of(lambda: packages.install(machine, *install_docker.WANTED)) \
        == "the package sources have no docker.io: check them: apt-get update"


class Silent(LocalMachine):
    """A machine whose engine doesn't answer."""

    docker_host = "unix:///nonexistent/docker.sock"


def test_an_engine_that_systemd_cant_start_is_refused_with_its_journal(
        add_command: AddCommand, tmp_path: Path) -> None:
    add_command("systemctl", f'echo "$*" > {tmp_path}/said')
    assert error_of(lambda: install_docker.start_docker(Silent(), DEBIAN, timeout=0)) \
        == "the Docker Engine didn't start within 0 s: journalctl --unit=docker"
    assert (tmp_path / "said").read_text() == "enable --now docker\n"


def test_without_systemd_the_engine_runs_on_its_own_and_is_refused_with_its_log(
        no_commands: Path, daemons: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    borrow(no_commands, "setsid")
    log = tmp_path / "dockerd.log"
    monkeypatch.setattr(install_docker, "DAEMON_LOG", str(log))
    executable(daemons / "dockerd", "echo cause; echo more >&2")
    without_systemd = replace(DEBIAN, systemd=False)
    assert error_of(lambda: install_docker.start_docker(Silent(), without_systemd, timeout=0.5)) \
        == f"the Docker Engine didn't start within 0 s: tail {log}"
    assert log.read_text() == "cause\nmore\n"


def test_another_apt_is_waited_for(machine: LocalMachine, add_command: AddCommand,
                                   waits: list[float], tmp_path: Path) -> None:
    add_command("apt-get", f"echo \"$*\" >> {tmp_path}/said",
                f"[ $(wc -l < {tmp_path}/said) -gt 2 ] || {{ echo '{BUSY}' >&2; exit 100; }}")
    add_command("apt-cache", "echo known")
    add_command("dpkg")
    packages.install(machine, "git")
    update = " ".join(packages.APT[1:]) + " update --error-on=any"
    said = (tmp_path / "said").read_text().splitlines()
    assert (said[:-1], len(waits)) == ([update] * 3, 2)
    assert said[-1].startswith(" ".join(packages.APT[1:]) + " install ")


def test_unreachable_package_sources_are_not_waited_for(
        machine: LocalMachine, add_command: AddCommand, waits: list[float]) -> None:
    add_command("dpkg")
    add_command("apt-cache", "exit 100")
    add_command("apt-get", "echo 'E: Failed to fetch the index' >&2; exit 100")
    assert error_of(lambda: packages.install(machine, "git")) == (
        "no package source answers (E: Failed to fetch the index): "
        "check the network and the sources with: apt-get update")
    assert waits == []
