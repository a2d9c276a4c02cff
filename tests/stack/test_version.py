"""A tree's version is version.txt, the build number and the exact content."""

from pathlib import Path

import pytest

from stack.machine import LocalMachine
from stack.version import Version, read_base, snapshot
from tests.stack.failing import error_of
from tests.stack.repository import Repository

pytestmark = pytest.mark.unit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def version_of(root: Path, **environ: str) -> Version:
    with snapshot(root, LocalMachine()) as taken:
        return taken.version(environ)


def files_of(root: Path) -> dict[str, str]:
    """Return what a snapshot's directory holds."""
    with snapshot(root, LocalMachine()) as taken:
        return {str(path.relative_to(taken.files)): path.read_text()
                for path in taken.files.rglob("*") if path.is_file()}


def test_a_version_is_written_with_a_plus_and_tagged_with_a_hyphen() -> None:
    version = Version("1.4.0", 57, COMMIT)
    assert (version.text, version.tag) == ("1.4.0+57", "1.4.0-57")


def test_a_marked_version_carries_its_mark_behind_the_number() -> None:
    version = Version("1.4.0", 57, COMMIT, "dirty.89abcdef")
    assert (version.text, version.tag) == ("1.4.0+57.dirty.89abcdef", "1.4.0-57.dirty.89abcdef")


def test_a_number_taken_by_another_commit_is_told_apart_by_this_one() -> None:
    assert Version("1.4.0", 57, COMMIT).distinguished().text == "1.4.0+57.g0123456"


def test_a_changed_tree_with_a_taken_number_keeps_its_mark() -> None:
    version = Version("1.4.0", 57, COMMIT, "dirty.89abcdef").distinguished()
    assert version.text == "1.4.0+57.g0123456.dirty.89abcdef"


def test_a_clean_tree_is_numbered_by_its_commits(repository: Repository) -> None:
    head = repository.commit("Go on")
    assert version_of(repository.root) == Version("1.4.0", 2, head)


def test_a_changed_file_marks_the_version(repository: Repository) -> None:
    repository.write("version.txt", "1.5.0\n")
    with snapshot(repository.root, LocalMachine()) as taken:
        assert taken.dirty
        assert taken.version({}) == Version(
            "1.5.0", 1, repository.git("rev-parse", "HEAD"), f"dirty.{taken.tree[:8]}")


def test_other_changes_get_another_mark(repository: Repository) -> None:
    repository.write("page.html", "one")
    first = version_of(repository.root)
    repository.write("page.html", "two")
    assert first.mark.startswith("dirty.")
    assert first.mark != version_of(repository.root).mark


def test_an_untracked_file_marks_the_version(repository: Repository) -> None:
    repository.write("new.html", "new")
    assert version_of(repository.root).mark.startswith("dirty.")


def test_a_deleted_file_marks_the_version(repository: Repository) -> None:
    (repository.root / ".gitignore").unlink()
    assert version_of(repository.root).mark.startswith("dirty.")


def test_a_change_that_was_only_staged_marks_the_version(repository: Repository) -> None:
    repository.write("new.html", "new")
    repository.git("add", "new.html")
    assert version_of(repository.root).mark.startswith("dirty.")


def test_a_change_that_was_taken_back_leaves_no_mark(repository: Repository) -> None:
    repository.write("version.txt", "1.4.0\n")
    assert version_of(repository.root).mark == ""


def test_an_ignored_file_is_no_part_of_the_tree(repository: Repository) -> None:
    repository.write(".env", "USER_NAME=Ada\n")
    assert version_of(repository.root).mark == ""
    assert set(files_of(repository.root)) == {"version.txt", ".gitignore"}


def test_an_ignored_file_that_was_committed_stays_part_of_the_tree(
        repository: Repository) -> None:
    repository.write("kept.log", "kept\n")
    repository.git("add", "--force", "kept.log")
    repository.commit("Keep a log")
    assert version_of(repository.root).mark == ""
    assert files_of(repository.root)["kept.log"] == "kept\n"


def test_this_projects_settings_file_is_no_part_of_the_tree(repository: Repository) -> None:
    repository.write(".gitignore", Path(__file__, "../../../.gitignore").resolve().read_text())
    repository.commit("Ignore what the project ignores")
    repository.write(".env", "USER_NAME=Ada\n")
    assert ".env" not in files_of(repository.root)


def test_a_snapshot_holds_the_files_as_they_are_now(repository: Repository) -> None:
    repository.write("version.txt", "1.5.0\n")
    repository.write("app/new page.html", "new")
    (repository.root / ".gitignore").unlink()
    assert files_of(repository.root) == {"version.txt": "1.5.0\n", "app/new page.html": "new"}


def test_a_change_after_the_snapshot_is_no_part_of_it(repository: Repository) -> None:
    with snapshot(repository.root, LocalMachine()) as taken:
        repository.write("version.txt", "1.5.0\n")
        repository.write("new.html", "new")
        assert taken.version({}).text == "1.4.0+1"
        assert (taken.files / "version.txt").read_text() == "1.4.0\n"
        assert not (taken.files / "new.html").exists()


def test_a_snapshot_keeps_what_is_executable(repository: Repository) -> None:
    repository.write("serve", "#!/bin/sh\n")
    (repository.root / "serve").chmod(0o755)
    with snapshot(repository.root, LocalMachine()) as taken:
        assert (taken.files / "serve").stat().st_mode & 0o111 == 0o111


def test_a_folders_content_differs_only_with_what_is_in_it(repository: Repository) -> None:
    repository.write("stack/images/traefik/Dockerfile", "FROM one\n")
    repository.write("app/views.py", "one\n")
    with snapshot(repository.root, LocalMachine()) as taken:
        before = taken.content("stack/images/traefik"), taken.content("app")
    repository.write("app/views.py", "two\n")
    with snapshot(repository.root, LocalMachine()) as taken:
        after = taken.content("stack/images/traefik"), taken.content("app")
    assert before[0] == after[0] and before[1] != after[1]


def test_a_missing_path_is_refused(repository: Repository) -> None:
    with snapshot(repository.root, LocalMachine()) as taken:
        assert error_of(lambda: taken.content("app/templates")) \
            == "app/templates is missing: restore it with: git checkout -- app/templates"


@pytest.mark.parametrize("change", ["nothing", "a change", "an untracked file", "a staged file"])
def test_the_repository_is_never_written_to(repository: Repository, change: str) -> None:
    repository.add_images()
    if change == "a change":
        repository.write("version.txt", "1.5.0\n")
    elif change != "nothing":
        repository.write("new.html", "new")
    if change == "a staged file":
        repository.git("add", "new.html")
    before = repository.state()
    with snapshot(repository.root, LocalMachine()) as taken:
        assert taken.version({}).build == 2
        assert taken.content("Dockerfile")
        assert (taken.files / "Dockerfile").is_file()
    assert repository.state() == before


def test_the_scratch_files_are_gone_afterwards(repository: Repository) -> None:
    with snapshot(repository.root, LocalMachine()) as taken:
        scratch = taken.files.parent
        assert scratch.is_dir()
    assert not scratch.exists()


def test_a_detached_head_is_a_commit_like_any_other(repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.commit("Go on")
    repository.git("checkout", "--quiet", first)
    assert version_of(repository.root) == Version("1.4.0", 1, first)


def test_a_shallow_clone_has_its_number_from_ci(repository: Repository, tmp_path: Path) -> None:
    head = repository.commit("Go on")
    clone = Repository(tmp_path / "shallow")
    clone.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", ".")
    assert version_of(clone.root, CI_PIPELINE_IID="57") == Version("1.4.0", 57, head)


def test_a_shallow_clone_is_not_counted(repository: Repository, tmp_path: Path) -> None:
    repository.commit("Go on")
    clone = Repository(tmp_path / "shallow")
    clone.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", ".")
    assert error_of(lambda: version_of(clone.root)) == (
        "this clone is shallow, so its commits can't be counted: "
        "git fetch --unshallow, or set BUILD_NUMBER")


def test_a_linked_work_tree_is_a_checkout(repository: Repository, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    repository.git("worktree", "add", "--quiet", "--detach", str(linked))
    (linked / "new.html").write_text("new")
    before = repository.state()
    assert version_of(linked).mark.startswith("dirty.")
    assert set(files_of(linked)) == {"version.txt", ".gitignore", "new.html"}
    assert repository.state() == before


def test_the_build_number_comes_before_the_pipelines(repository: Repository) -> None:
    assert version_of(repository.root, BUILD_NUMBER="7", CI_PIPELINE_IID="57").build == 7
    assert version_of(repository.root, CI_PIPELINE_IID="57").build == 57


def test_an_empty_build_number_counts_as_none(repository: Repository) -> None:
    assert version_of(repository.root, BUILD_NUMBER="", CI_PIPELINE_IID="").build == 1


@pytest.mark.parametrize("number", ["57a", "-1", "1.5", " 7", "٧", "1" * 19])
def test_a_build_number_that_is_no_number_is_refused(
        repository: Repository, number: str) -> None:
    assert error_of(lambda: version_of(repository.root, BUILD_NUMBER=number)) \
        == f"BUILD_NUMBER={number!r}: it should be a number"


@pytest.mark.parametrize("text", ["1.4.0", "1.4.0\n", "0.0.1\n", "10.20.30\n"])
def test_version_txt_is_major_minor_patch(tmp_path: Path, text: str) -> None:
    (tmp_path / "version.txt").write_text(text)
    assert read_base(tmp_path / "version.txt") == text.strip()


@pytest.mark.parametrize("text", [
    "", "1.4", "v1.4.0", "1.4.0.1", "01.4.0", "1.1٢.3", "1.4.0-rc1", "1.4.0+57", "1.4.0\n1.5.0"])
def test_any_other_version_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "version.txt").write_text(text)
    assert error_of(lambda: read_base(tmp_path / "version.txt")) == (
        f"version.txt: {text!r} isn't a version: it should be MAJOR.MINOR.PATCH, such as 1.4.0")


def test_a_long_text_is_quoted_in_part(tmp_path: Path) -> None:
    (tmp_path / "version.txt").write_text("9" * 1000)
    assert error_of(lambda: read_base(tmp_path / "version.txt")).startswith(
        f"version.txt: '{'9' * 40}' isn't a version: ")


@pytest.mark.parametrize("content", [None, b"\xff\xfe1.4.0"])
def test_an_unreadable_version_names_how_to_restore_it(
        tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "version.txt").write_bytes(content)
    assert error_of(lambda: read_base(tmp_path / "version.txt")) \
        == "version.txt can't be read: git checkout -- version.txt"


def test_a_folder_without_a_repository_is_refused(repository: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    error = error_of(lambda: version_of(folder))
    assert error.startswith(f"{folder} isn't a git checkout with a commit (fatal: ")
    assert error.endswith("): clone the repository, or: git init && git add . && git commit")


def test_a_repository_without_a_commit_is_refused(repository: Repository, tmp_path: Path) -> None:
    empty = Repository(tmp_path / "empty")
    empty.git("init", "--quiet")
    assert error_of(lambda: version_of(empty.root)).startswith(
        f"{empty.root} isn't a git checkout with a commit")


def test_a_machine_without_git_is_told_how_to_get_it(
        repository: Repository, no_commands: Path) -> None:
    assert error_of(lambda: version_of(repository.root)) \
        == "git isn't installed: apt-get install git"


def apart_of(root: Path, *apart: Path) -> tuple[bool, dict[str, str]]:
    """Return whether a snapshot without some files differs from the commit, and its files."""
    with snapshot(root, LocalMachine(), apart) as taken:
        return taken.dirty, {str(path.relative_to(taken.files)): path.read_text()
                             for path in taken.files.rglob("*") if path.is_file()}


def test_an_operators_own_file_is_no_change(repository: Repository) -> None:
    repository.write("inventory.yml", "name: production\n")
    dirty, files = apart_of(repository.root, repository.root / "inventory.yml")
    assert not dirty
    assert set(files) == {"version.txt", ".gitignore"}


def test_an_operators_own_file_is_released_as_it_was_committed(repository: Repository) -> None:
    repository.write("hosts/inventory.yml", "name: production\n")
    repository.commit("Add the inventory")
    repository.write("hosts/inventory.yml", "name: staging\n")
    dirty, files = apart_of(repository.root, repository.root / "hosts" / "inventory.yml")
    assert not dirty
    assert files["hosts/inventory.yml"] == "name: production\n"


def test_an_operators_own_file_hides_no_other_change(repository: Repository) -> None:
    for name in ("inventory.yml", "hosts/inventory.yml", "inventoryX.yml"):
        repository.write(name, "name: production\n")
    dirty, files = apart_of(repository.root, repository.root / "inventory.yml")
    assert dirty
    assert set(files) == {"version.txt", ".gitignore", "hosts/inventory.yml", "inventoryX.yml"}


def test_a_file_apart_is_named_not_matched(repository: Repository) -> None:
    for name in ("*.yml", "page.yml"):
        repository.write(name, "text\n")
    _, files = apart_of(repository.root, repository.root / "*.yml")
    assert set(files) == {"version.txt", ".gitignore", "page.yml"}


def test_an_operators_own_file_may_be_elsewhere_or_missing(
        repository: Repository, tmp_path: Path) -> None:
    apart = [tmp_path / "elsewhere" / "inventory.yml", repository.root / "known_hosts"]
    assert not apart_of(repository.root, *apart)[0]


def test_an_operators_own_file_may_be_ignored(repository: Repository) -> None:
    repository.write(".env", "USER_NAME=Ada\n")
    assert not apart_of(repository.root, repository.root / ".env")[0]


def test_a_file_apart_leaves_the_repository_as_it_was(repository: Repository) -> None:
    repository.write("inventory.yml", "name: production\n")
    repository.commit("Add the inventory")
    repository.write("inventory.yml", "name: staging\n")
    before = repository.state()
    apart_of(repository.root, repository.root / "inventory.yml")
    assert repository.state() == before
