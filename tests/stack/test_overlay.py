"""The service that removes lost interfaces is brought once, and whole."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stack import overlay
from stack.machine import LocalMachine
from tests.stack.conftest import AddCommand

pytestmark = pytest.mark.unit

# Remembers what was asked of it, and what it was told to enable or disable.
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
    monkeypatch.setattr(overlay, "SCRIPT", str(tmp_path / "script"))
    monkeypatch.setattr(overlay, "UNIT", str(tmp_path / "unit"))
    (tmp_path / "state").write_text("disabled\n")
    add_command("systemctl", *SYSTEMCTL.format(folder=tmp_path).splitlines())
    return tmp_path


def calls(here: Path) -> list[str]:
    """Return the changes that systemd was asked for, and forget them."""
    file = here / "calls"
    asked = [line for line in file.read_text().splitlines() if not line.startswith("is-")]
    file.unlink()
    return asked


def test_it_is_brought_once(here: Path, machine: LocalMachine) -> None:
    assert overlay.ensure(machine)
    assert calls(here) == ["disable --now tally-overlay", "daemon-reload",
                           "enable --now tally-overlay"]
    assert (here / "script").stat().st_mode & 0o777 == 0o755
    assert not overlay.ensure(machine)
    assert calls(here) == []


@pytest.mark.parametrize("file", ["script", "unit"])
@pytest.mark.parametrize("step", ["daemon-reload", "enable"])
def test_another_version_is_replaced_even_if_that_is_broken_off(
        here: Path, machine: LocalMachine, monkeypatch: pytest.MonkeyPatch, file: str,
        step: str) -> None:
    overlay.ensure(machine)
    ours = (here / file).read_text()
    (here / file).write_text("of an earlier release\n")

    def broken_off(self: LocalMachine, command: Sequence[str], **options: Any) -> str:
        if step in command:
            raise KeyboardInterrupt
        return must(self, command, **options)
    must = LocalMachine.must
    with monkeypatch.context() as breaking, pytest.raises(KeyboardInterrupt):
        breaking.setattr(LocalMachine, "must", broken_off)
        overlay.ensure(machine)
    assert (here / file).read_text() == ours
    calls(here)

    assert overlay.ensure(machine)
    assert calls(here)[-2:] == ["daemon-reload", "enable --now tally-overlay"]
    assert not overlay.ensure(machine)
