"""One command renews all lock files with uv, in the order of their constraints."""

from pathlib import Path

import pytest
from invoke.exceptions import Exit

from tests.support.executables import executable
from tests.tooling import lock_files

pytestmark = pytest.mark.unit


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with all lock files, and a Python without uv."""
    for name in lock_files.NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.txt").write_text("old\n")
    monkeypatch.setattr(lock_files, "ROOT", tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    return tmp_path


def test_a_lock_file_has_hashes_for_all_platforms_and_names_no_index(project: Path) -> None:
    assert lock_files.command("requirements", upgrade=False) == [
        str(project / "bin" / "uv"), "pip", "compile", "--quiet", "--universal",
        "--python-version=3.11", "--generate-hashes", "--no-annotate", "--no-header",
        "--no-emit-index-url", "--output-file=requirements.txt", "requirements.in"]
    assert "--upgrade" in lock_files.command("requirements", upgrade=True)


def test_changed_files_are_reported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    executable(project / "bin" / "uv", f'echo "$*" >> {project}/said',
               'case "$*" in *requirements.txt*requirements.in) echo new > requirements.txt;; esac')
    lock_files.renew(upgrade=False)
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [["requirements.fab", "unchanged"], ["requirements", "changed"],
                     ["requirements.server", "unchanged"], ["requirements.test", "unchanged"],
                     ["bench/requirements", "unchanged"],
                     ["stack/images/traefik/requirements", "unchanged"]]
    assert len((project / "said").read_text().splitlines()) == 6


def test_the_first_failure_ends_it_with_uvs_error(
        project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    executable(project / "bin" / "uv", 'echo "no such package" >&2', "exit 1")
    with pytest.raises(Exit, match=r"requirements\.fab\.txt could not be renewed"):
        lock_files.renew(upgrade=False)
    assert "    no such package" in capsys.readouterr().out
