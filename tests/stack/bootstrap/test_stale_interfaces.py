"""The service that removes stale interfaces is installed once and completely."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stack.bootstrap import stale_interfaces
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand

pytestmark = pytest.mark.unit

# A systemctl that records its calls, and what it was told to enable or disable.
SYSTEMCTL = """
echo "$*" >> {folder}/calls
case $1 in
    enable) echo enabled > {folder}/state ;;
    disable) echo disabled > {folder}/state ;;
    is-enabled) cat {folder}/state ;;
    is-active) [ "$(cat {folder}/state)" = enabled ] && echo active || echo inactive ;;
esac
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add_command: AddCommand) -> Path:
    """A machine whose systemd is a script."""
    monkeypatch.setattr(stale_interfaces, "SCRIPT", str(tmp_path / "script"))
    monkeypatch.setattr(stale_interfaces, "UNIT", str(tmp_path / "unit"))
    (tmp_path / "state").write_text("disabled\n")
    add_command("systemctl", *SYSTEMCTL.format(folder=tmp_path).splitlines())
    return tmp_path


def calls(here: Path) -> list[str]:
    """Return the changes that systemd was asked for, and clear the record."""
    file = here / "calls"
    asked = [line for line in file.read_text().splitlines() if not line.startswith("is-")]
    file.unlink()
    return asked


def test_the_service_is_installed_once(here: Path, machine: LocalMachine) -> None:
    assert stale_interfaces.ensure(machine)
    assert calls(here) == ["disable --now tally-overlay", "daemon-reload",
                           "enable --now tally-overlay"]
    assert (here / "script").stat().st_mode & 0o777 == 0o755
    assert not stale_interfaces.ensure(machine)
    assert calls(here) == []


@pytest.mark.parametrize("file", ["script", "unit"])
@pytest.mark.parametrize("step", ["daemon-reload", "enable"])
def test_another_version_is_replaced_even_after_an_interruption(
        here: Path, machine: LocalMachine, monkeypatch: pytest.MonkeyPatch, file: str,
        step: str) -> None:
    stale_interfaces.ensure(machine)
    ours = (here / file).read_text()
    (here / file).write_text("of an earlier release\n")

    def broken_off(self: LocalMachine, command: Sequence[str], **options: Any) -> str:
        if step in command:
            raise KeyboardInterrupt
        return must(self, command, **options)
    must = LocalMachine.must
    with monkeypatch.context() as breaking, pytest.raises(KeyboardInterrupt):
        breaking.setattr(LocalMachine, "must", broken_off)
        stale_interfaces.ensure(machine)
    assert (here / file).read_text() == ours
    calls(here)

    assert stale_interfaces.ensure(machine)
    assert calls(here)[-2:] == ["daemon-reload", "enable --now tally-overlay"]
    assert not stale_interfaces.ensure(machine)
