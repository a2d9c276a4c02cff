"""Only one bootstrap at a time changes a machine."""

from pathlib import Path

import pytest

from stack import bootstrap
from stack.errors import Locked
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "LOCK", tmp_path / "bootstrap.lock")


def test_a_second_bootstrap_is_sent_away() -> None:
    with bootstrap.alone():
        assert error_of(bootstrap.alone().__enter__, Locked) == (
            "another ./fab bootstrap is at work on this machine: try again when it has ended")


def test_a_bootstrap_that_failed_keeps_nobody_waiting() -> None:
    with pytest.raises(ZeroDivisionError), bootstrap.alone():
        raise ZeroDivisionError
    with bootstrap.alone():
        assert bootstrap.LOCK.exists()
