"""A tree's version is version.txt, the build number and the exact content."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack.images.snapshot import snapshot
from stack.images.version import Version, read_base, renewal_of
from stack.machines.local import LocalMachine
from tests.support.failing import error_of
from tests.support.repository import Repository

pytestmark = pytest.mark.unit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def version_of(root: Path, **environ: str) -> Version:
    with snapshot(root, LocalMachine()) as taken:
        return taken.version(environ)


def files_of(root: Path) -> dict[str, str]:
    """Return the content of a snapshot's directory."""
    with snapshot(root, LocalMachine()) as taken:
        return {str(path.relative_to(taken.files)): path.read_text()
                for path in taken.files.rglob("*") if path.is_file()}


def test_a_version_is_written_with_a_plus_and_tagged_with_a_hyphen() -> None:
    version = Version("1.4.0", 57, COMMIT)
    assert (version.text, version.tag) == ("1.4.0+57", "1.4.0-57")


def test_a_marked_version_carries_its_mark_behind_the_number() -> None:
    version = Version("1.4.0", 57, COMMIT, "dirty.89abcdef")
    assert (version.text, version.tag) == ("1.4.0+57.dirty.89abcdef", "1.4.0-57.dirty.89abcdef")


def test_a_build_number_of_another_commit_gets_this_commits_mark() -> None:
    assert Version("1.4.0", 57, COMMIT).distinguished().text == "1.4.0+57.g0123456"


def test_a_changed_tree_with_a_used_number_keeps_its_mark() -> None:
    version = Version("1.4.0", 57, COMMIT, "dirty.89abcdef").distinguished()
    assert version.text == "1.4.0+57.g0123456.dirty.89abcdef"


def test_a_build_upon_a_renewed_base_carries_the_renewal_last() -> None:
    version = Version("1.4.0", 57, COMMIT).upon("20260301120000")
    assert (version.text, version.tag) == (
        "1.4.0+57.base.20260301120000", "1.4.0-57.base.20260301120000")
    changed = Version("1.4.0", 57, COMMIT, "dirty.89abcdef").upon("20260301120000")
    assert changed.distinguished().text \
        == "1.4.0+57.g0123456.dirty.89abcdef.base.20260301120000"
    assert version.upon("") == Version("1.4.0", 57, COMMIT)


@pytest.mark.parametrize(("version", "renewal"), [
    (Version("1.4.0", 57, COMMIT), ""), (Version("1.4.0", 57, COMMIT, "dirty.89abcdef"), ""),
    (Version("1.4.0", 57, COMMIT).upon("20260301120000"), "20260301120000")])
def test_a_recorded_version_says_upon_which_base_it_was_built(
        version: Version, renewal: str) -> None:
    assert renewal_of(version.text) == renewal


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


def test_a_staged_change_marks_the_version(repository: Repository) -> None:
    repository.write("new.html", "new")
    repository.git("add", "new.html")
    assert version_of(repository.root).mark.startswith("dirty.")


def test_an_undone_change_leaves_no_mark(repository: Repository) -> None:
    repository.write("version.txt", "1.4.0\n")
    assert version_of(repository.root).mark == ""


def test_an_ignored_file_is_not_part_of_the_tree(repository: Repository) -> None:
    repository.write(".env", "USER_NAME=Ada\n")
    assert version_of(repository.root).mark == ""
    assert set(files_of(repository.root)) == {"version.txt", ".gitignore"}


def test_a_committed_file_stays_part_of_the_tree_when_ignored(
        repository: Repository) -> None:
    repository.write("kept.log", "kept\n")
    repository.git("add", "--force", "kept.log")
    repository.commit("Keep a log")
    assert version_of(repository.root).mark == ""
    assert files_of(repository.root)["kept.log"] == "kept\n"


def test_the_settings_file_is_not_part_of_the_tree(repository: Repository) -> None:
    repository.write(".gitignore", Path(__file__, "../../../../.gitignore").resolve().read_text())
    repository.commit("Ignore what the project ignores")
    repository.write(".env", "USER_NAME=Ada\n")
    assert ".env" not in files_of(repository.root)


def test_a_snapshot_holds_the_files_as_they_are_now(repository: Repository) -> None:
    repository.write("version.txt", "1.5.0\n")
    repository.write("app/new page.html", "new")
    (repository.root / ".gitignore").unlink()
    assert files_of(repository.root) == {"version.txt": "1.5.0\n", "app/new page.html": "new"}


def test_a_change_after_the_snapshot_is_not_in_it(repository: Repository) -> None:
    with snapshot(repository.root, LocalMachine()) as taken:
        repository.write("version.txt", "1.5.0\n")
        repository.write("new.html", "new")
        assert taken.version({}).text == "1.4.0+1"
        assert (taken.files / "version.txt").read_text() == "1.4.0\n"
        assert not (taken.files / "new.html").exists()


def test_a_snapshot_keeps_executable_bits(repository: Repository) -> None:
    repository.write("serve", "#!/bin/sh\n")
    (repository.root / "serve").chmod(0o755)
    with snapshot(repository.root, LocalMachine()) as taken:
        assert (taken.files / "serve").stat().st_mode & 0o111 == 0o111


def test_a_folders_hash_depends_only_on_its_content(repository: Repository) -> None:
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


def test_a_laptop_and_ci_give_a_commit_the_same_number(
        repository: Repository, tmp_path: Path) -> None:
    first = version_of(repository.root, CI="true", CI_PIPELINE_IID="121")
    head = repository.commit("Go on")
    laptop = Repository(tmp_path / "laptop")
    laptop.git("clone", "--quiet", str(repository.root), ".")
    pipelines = [version_of(repository.root, CI="true", CI_PIPELINE_IID=number)
                 for number in ("3", "122", "123")]
    assert {version_of(laptop.root), *pipelines} == {Version("1.4.0", 2, head)}
    assert first.build < version_of(laptop.root).build


def test_a_merge_has_a_higher_number_than_what_it_merges(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "feature")
    feature = [repository.commit(f"Feature {number}") for number in range(3)]
    repository.git("checkout", "--quiet", "main")
    repository.commit("Meanwhile")
    on_main = version_of(repository.root)
    repository.git("merge", "--quiet", "--no-ff", "--message=Merge", "feature")
    merged = version_of(repository.root)
    repository.git("checkout", "--quiet", feature[-1])
    assert merged.build > max(on_main.build, version_of(repository.root).build)


@pytest.mark.parametrize("environ", [{}, {"CI": "true", "CI_PIPELINE_IID": "57"}])
def test_a_shallow_clone_is_not_counted(
        repository: Repository, tmp_path: Path, environ: dict[str, str]) -> None:
    repository.commit("Go on")
    clone = Repository(tmp_path / "shallow")
    clone.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", ".")
    assert error_of(lambda: version_of(clone.root, **environ)) == (
        "this clone is shallow, so its commits can't be counted: "
        'git fetch --unshallow (in GitLab CI: GIT_DEPTH: "0"), or set BUILD_NUMBER')


def test_a_shallow_clone_may_be_given_a_number(repository: Repository, tmp_path: Path) -> None:
    head = repository.commit("Go on")
    clone = Repository(tmp_path / "shallow")
    clone.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", ".")
    assert version_of(clone.root, BUILD_NUMBER="57") == Version("1.4.0", 57, head)


def test_a_linked_work_tree_is_a_checkout(repository: Repository, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    repository.git("worktree", "add", "--quiet", "--detach", str(linked))
    (linked / "new.html").write_text("new")
    before = repository.state()
    assert version_of(linked).mark.startswith("dirty.")
    assert set(files_of(linked)) == {"version.txt", ".gitignore", "new.html"}
    assert repository.state() == before


def test_a_chosen_build_number_takes_the_place_of_the_count(repository: Repository) -> None:
    assert version_of(repository.root, BUILD_NUMBER="7").build == 7


def test_an_empty_build_number_counts_as_none(repository: Repository) -> None:
    assert version_of(repository.root, BUILD_NUMBER="").build == 1


@pytest.mark.parametrize("number", ["57a", "-1", "1.5", " 7", "٧", "1" * 19])
def test_an_invalid_build_number_is_refused(
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


def test_a_long_text_is_quoted_partly(tmp_path: Path) -> None:
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


def test_an_excluded_path_is_literal_and_not_a_pattern(repository: Repository) -> None:
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


def test_excluding_a_file_leaves_the_repository_unchanged(repository: Repository) -> None:
    repository.write("inventory.yml", "name: production\n")
    repository.commit("Add the inventory")
    repository.write("inventory.yml", "name: staging\n")
    before = repository.state()
    apart_of(repository.root, repository.root / "inventory.yml")
    assert repository.state() == before


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Set this process's umask; afterwards it is as before."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022, 0o002])
def test_modes_come_from_git_and_not_from_the_umask(
        repository: Repository, umask: Callable[[int], int], mask: int) -> None:
    umask(mask)
    repository.write("app/pages/page.html", "page\n")
    repository.write("app/serve", "#!/bin/sh\n")
    (repository.root / "app/serve").chmod(0o700)
    repository.commit("Add an application")
    with snapshot(repository.root, LocalMachine()) as taken:
        modes = {str(path.relative_to(taken.files)): path.stat().st_mode & 0o7777
                 for path in (taken.files, *taken.files.rglob("*"))}
    assert modes == {".": 0o755, "app": 0o755, "app/pages": 0o755, "app/pages/page.html": 0o644,
                     "app/serve": 0o755, "version.txt": 0o644, ".gitignore": 0o644}


def test_a_snapshot_keeps_links_and_bytes(repository: Repository) -> None:
    content = bytes(range(256)) * 3 + b"\r\n\n"
    (repository.root / "image.png").write_bytes(content)
    (repository.root / "empty").touch()
    (repository.root / "caf\u00e9").symlink_to("version.txt")
    with snapshot(repository.root, LocalMachine()) as taken:
        assert (taken.files / "image.png").read_bytes() == content
        assert (taken.files / "empty").read_bytes() == b""
        assert (taken.files / "caf\u00e9").readlink() == Path("version.txt")


# The settings and the attributes with which git converts files as it checks them out.
CONVERSIONS: list[tuple[dict[str, str], str]] = [
    ({"core.autocrlf": "true"}, ""),
    ({"core.autocrlf": "true", "core.safecrlf": "true"}, ""),
    ({"core.eol": "crlf"}, "* text\n"),
    ({}, "* text eol=crlf\n"),
    ({}, "* ident\n")]
# Set later, it is a change of the checkout, since git never applied it.
FILTER = ({"filter.turned.smudge": "tac", "filter.turned.clean": "tac"}, "serve filter=turned\n")
SCRIPT = "#!/bin/sh\n# $Id$\nexec flask\n"


@pytest.mark.parametrize(("conversion", "after"), [
    *((each, after) for each in CONVERSIONS for after in (False, True)),
    (FILTER, False)])
def test_a_clone_exports_what_git_keeps(
        repository: Repository, tmp_path: Path,
        conversion: tuple[dict[str, str], str], after: bool) -> None:
    settings, attributes = conversion
    repository.write("serve", SCRIPT)
    repository.write(".gitattributes", attributes)
    head = repository.commit("Add a script")
    clone = Repository(tmp_path / "clone")
    options = [] if after else [f"--config={key}={value}" for key, value in settings.items()]
    clone.git("clone", "--quiet", *options, str(repository.root), ".")
    for key, value in settings.items():
        clone.git("config", key, value)
    assert version_of(clone.root) == Version("1.4.0", 2, head)
    with snapshot(clone.root, LocalMachine()) as taken:
        assert (taken.files / "serve").read_bytes() == SCRIPT.encode()
        assert (taken.files / "version.txt").read_bytes() == b"1.4.0\n"


def test_a_persons_own_configuration_has_no_say(
        repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.write("serve", SCRIPT)
    head = repository.commit("Add a script")
    (tmp_path / "attributes").write_text("* text eol=crlf\n")
    (tmp_path / "gitconfig").write_text(
        f"[core]\nautocrlf = true\nattributesFile = {tmp_path}/attributes\n"
        "quotePath = true\n[color]\nui = always\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert version_of(repository.root) == Version("1.4.0", 2, head)
    assert files_of(repository.root)["serve"] == SCRIPT
