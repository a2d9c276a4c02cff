"""Revisions are read from their files, in order; none is skipped or invented."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from stack.errors import Refused
from stack.inventory.settings import ROOT
from stack.state import revisions
from stack.state.revisions import Revision

pytestmark = pytest.mark.unit

CONTRACTS = '\ncontracts = "0.9 and older write the column visits.day"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "migrations" / "versions"
    path.mkdir(parents=True)
    return path


def add(folder: Path, id: str, down: str | None, more: str = "") -> None:
    folder.joinpath(f"{id}.py").write_text(
        f'"""A step."""\nimport absent_here\nrevision = {id!r}\ndown_revision = {down!r}{more}\n')


def refusal(folder: Path) -> str:
    """Return the error of reading the folder."""
    with pytest.raises(Refused) as refused:
        revisions.read(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_projects_revisions_are_alembics() -> None:
    alembic = list(ScriptDirectory(str(ROOT / "migrations")).walk_revisions())

    assert [(one.id, one.down) for one in revisions.read(ROOT / "migrations" / "versions")] \
        == [(script.revision, script.down_revision) for script in reversed(alembic)]


def test_they_are_ordered_from_first_to_newest_whatever_their_names(folder: Path) -> None:
    add(folder, "aaa", "mmm")
    add(folder, "mmm", "zzz")
    add(folder, "zzz", None)

    assert revisions.read(folder) == (
        Revision("zzz", None), Revision("mmm", "zzz"), Revision("aaa", "mmm"))


def test_a_revision_says_that_it_contracts(folder: Path) -> None:
    add(folder, "1", None)
    add(folder, "2", "1", CONTRACTS)

    assert [one.contracts for one in revisions.read(folder)] \
        == ["", "0.9 and older write the column visits.day"]


def test_values_may_have_annotations_and_several_parts(folder: Path) -> None:
    folder.joinpath("1.py").write_text(
        'revision: str = "1"\ndown_revision: str | None = None\nbranch_labels: str\n'
        'contracts = ("0.9 and older "\n             "write a column")\n')

    assert revisions.read(folder) == (Revision("1", None, "0.9 and older write a column"),)


def test_a_name_inside_a_function_doesnt_count(folder: Path) -> None:
    add(folder, "1", None, '\ndef upgrade():\n    revision = "2"\n    contracts = "all"')

    assert revisions.read(folder) == (Revision("1", None),)


def test_files_that_alembic_skips_are_skipped(folder: Path) -> None:
    add(folder, "1", None)
    folder.joinpath("__init__.py").write_text("")
    folder.joinpath("notes.txt").write_text("none")
    # An editor's lock file is a broken link.
    folder.joinpath(".#1.py").symlink_to("ada@example.org")

    assert revisions.read(folder) == (Revision("1", None),)


def test_a_project_without_revisions_has_none(tmp_path: Path) -> None:
    assert revisions.read(tmp_path / "migrations" / "versions") == ()


def test_revisions_unknown_to_an_older_release_came_after_it() -> None:
    one, two, three = Revision("1", None), Revision("2", "1"), Revision("3", "2", "all")

    assert revisions.newer_than((one, two, three), {"1"}) == (two, three)
    assert revisions.newer_than((one, two, three), {"1", "2", "3"}) == ()
    assert revisions.newer_than((one,), {"1", "2"}) == ()


def test_two_successors_of_a_revision_are_refused(folder: Path) -> None:
    add(folder, "1", None)
    add(folder, "2", "1")
    add(folder, "3", "1")

    assert refusal(folder) == ("migrations/versions/3.py: 2 and 3 both come after 1: "
                               "change the down_revision of the later one")


def test_two_first_revisions_are_refused(folder: Path) -> None:
    add(folder, "1", None)
    add(folder, "2", None)

    assert refusal(folder).startswith("migrations/versions/2.py: 1 and 2 both come first: ")


def test_a_revision_after_a_missing_one_is_refused(folder: Path) -> None:
    add(folder, "1", None)
    add(folder, "3", "2")

    assert refusal(folder) == (
        "migrations/versions/3.py: down_revision is 2, but no file has that revision: "
        "restore the file, or name the newest revision")


@pytest.mark.parametrize("down", [
    {"1": "1"}, {"1": "2", "2": "1"}, {"0": None, "1": "3", "2": "1", "3": "2"}])
def test_a_cycle_is_refused(folder: Path, down: dict[str, str | None]) -> None:
    for id, before in down.items():
        add(folder, id, before)

    ids = ", ".join(sorted(down.keys() - {"0"}))
    assert refusal(folder) == (
        f"migrations/versions/1.py: down_revision forms a cycle: {ids}: "
        "set it to the revision that was newest before")


def test_two_files_of_one_revision_are_refused(folder: Path) -> None:
    add(folder, "1", None)
    folder.joinpath("1_again.py").write_bytes(folder.joinpath("1.py").read_bytes())

    assert refusal(folder) == ("migrations/versions/1_again.py: 1.py already has revision 1: "
                               "rename one of the two")


@pytest.mark.parametrize("name", ["revision", "down_revision"])
def test_a_revision_without_a_required_name_is_refused(folder: Path, name: str) -> None:
    add(folder, "1", None)
    path = folder / "1.py"
    path.write_text(path.read_text().replace(f"\n{name} = ", "\nother = "))

    assert refusal(folder) \
        == f"migrations/versions/1.py: {name} is missing: write it as Alembic does"


@pytest.mark.parametrize("line", [
    'down_revision = ("1", "2")', "down_revision = 1", 'down_revision = ""',
    "down_revision = BASE", 'down_revision = f"{BASE}"'])
def test_merges_and_computed_values_are_refused(folder: Path, line: str) -> None:
    add(folder, "1", None)
    folder.joinpath("2.py").write_text(f'revision = "2"\n{line}\n')

    assert refusal(folder) == ("migrations/versions/2.py: down_revision should be the one "
                               "revision before it, a plain string, or None")


@pytest.mark.parametrize("value", ["True", '""', '" "', "None", "REASON"])
def test_a_contraction_without_its_reason_is_refused(folder: Path, value: str) -> None:
    add(folder, "1", None, f"\ncontracts = {value}")

    assert refusal(folder) == (
        "migrations/versions/1.py: contracts should say what older releases can no longer do, "
        'such as contracts = "0.9 and older write the column visits.day"')


@pytest.mark.parametrize("content", [b"revision = \n", b'"""\xff"""\n', b"a\0b\n"])
def test_a_file_that_python_cannot_read_is_refused(folder: Path, content: bytes) -> None:
    add(folder, "1", None)
    folder.joinpath("2.py").write_bytes(content)

    assert refusal(folder).startswith("migrations/versions/2.py, line 1: ")


def test_a_file_that_nobody_can_open_is_refused(folder: Path) -> None:
    folder.joinpath("1.py").symlink_to("nowhere")

    assert refusal(folder) \
        == "migrations/versions/1.py can't be read: No such file or directory"
