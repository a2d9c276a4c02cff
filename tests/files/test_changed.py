"""A tool checks a file again only after a change that could matter."""

from pathlib import Path

import pytest

from tests.files import changed
from tests.files.changed import only_changed

pytestmark = pytest.mark.style


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two sources."""
    monkeypatch.setattr(changed, "ROOT", tmp_path)
    for name in ("setup.cfg", "one.py", "two.py"):
        (tmp_path / name).write_text(name)
    return tmp_path


def checked(checkout: Path) -> list[str]:
    with only_changed("flake8", ["one.py", "two.py"], "setup.cfg", checkout) as names:
        return names


def test_a_file_that_passed_is_not_checked_again_until_it_changes(checkout: Path) -> None:
    assert checked(checkout) == ["one.py", "two.py"]
    assert checked(checkout) == []

    (checkout / "two.py").write_text("changed")
    assert checked(checkout) == ["two.py"]


def test_other_settings_check_every_file_again(checkout: Path) -> None:
    checked(checkout)
    (checkout / "setup.cfg").write_text("changed")

    assert checked(checkout) == ["one.py", "two.py"]


def test_files_that_did_not_pass_are_checked_again(checkout: Path) -> None:
    with pytest.raises(ValueError), \
            only_changed("flake8", ["one.py"], "setup.cfg", checkout):
        raise ValueError

    assert checked(checkout) == ["one.py", "two.py"]
