"""Older code runs on a newer schema: it serves while a deploy migrates, and after a rollback.

The previous release is the code before the newest revision, from git.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from app import create_app
from stack.state import revisions
from tests.app.conftest import migrated
from tests.support.repository import Repository
from tests.support.services import ROOT, Database, uwsgi

VERSIONS = "migrations/versions"
# The parts of a checkout in the image; the version tells which code answers.
PARTS = ("app", "migrations", "version.txt")
OLD_VERSION = "0.0.1"

LATER = '''"""a later release's step."""
import sqlalchemy as sa
from alembic import op
revision = "later"
down_revision = {head!r}


def upgrade():
    {step}
'''
EXPAND = """op.add_column("visitors", sa.Column("seen", sa.DateTime(timezone=True)))
    with op.get_context().autocommit_block():
        op.drop_index("visits", "visitors", if_exists=True, postgresql_concurrently=True)
        op.create_index("visits", "visitors", ["visits"], if_not_exists=True,
                        postgresql_concurrently=True)"""
CONTRACT = 'op.alter_column("visitors", "visits", new_column_name="times")'


def git(root: Path, *arguments: str) -> str:
    """Run git in a checkout; if it fails, fail the test with its error."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"the release before can't be had from git: {done.stderr.strip()}: "
                    "run the tests in a clone of the repository", pytrace=False)
    return done.stdout.strip()


def release_before(root: Path) -> str:
    """Return the commit whose code serves while the newest revision is applied.

    On the main branch, that is the last commit without the revision's file, or HEAD if
    the file isn't committed yet. If the revision came with the application itself, it is
    the commit that added both.
    """
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        pytest.fail("this clone is shallow, so it may lack the release before: "
                    "git fetch --unshallow (in GitLab CI: GIT_DEPTH: \"0\")", pytrace=False)
    added = git(root, "log", "--first-parent", "--diff-filter=A", "--max-count=1", "--format=%H",
                "--", newest_file(root))
    if not added:
        return git(root, "rev-parse", "HEAD")
    before = git(root, "log", "--first-parent", "--max-count=1", "--skip=1", "--format=%H", added)
    return before if before and git(root, "ls-tree", before, "app/") else added


def newest_file(root: Path) -> str:
    """Return the newest revision's file; alembic.ini has it begin with its ID."""
    newest = revisions.read(root / VERSIONS)[-1]
    file, = root.glob(f"{VERSIONS}/{newest.id}_*.py")
    return str(file.relative_to(root))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The previous release, unpacked, with a version that today's code doesn't have."""
    folder = tmp_path / "older"
    archive = tmp_path / "older.zip"
    git(ROOT, "archive", f"--output={archive}", release_before(ROOT), *PARTS)
    shutil.unpack_archive(archive, folder)
    (folder / "version.txt").write_text(OLD_VERSION + "\n")
    return folder


def later(folder: Path, step: str) -> Path:
    """Make a release of today's code with one more revision."""
    for part in ("app", "migrations"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    head = revisions.read(ROOT / VERSIONS)[-1].id
    (folder / VERSIONS / "later_step.py").write_text(LATER.format(head=head, step=step))
    return folder


def upgrade(release: Path, database: Database) -> None:
    """Migrate the database, like a release's migration job."""
    environ = {**os.environ, **database.environ(database.owner)}
    done = subprocess.run([sys.executable, "-m", "flask", "--app", "app", "db", "upgrade"],
                          cwd=release, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def serving(release: Path, database: Database) -> Iterator[str]:
    """Serve a release's code as in production; its version comes from its own file."""
    environ = database.environ(database.user)
    del environ["TALLY_VERSION"]
    with uwsgi(environ, "--chdir", str(release)) as site:
        yield site


def visit(site: str, client: str) -> int:
    return requests.get(site, headers={"X-Forwarded-For": client}, timeout=10).status_code


def readiness(site: str) -> tuple[int, str]:
    response = requests.get(f"{site}/readyz", timeout=10)
    return response.status_code, response.text


def page_of_today(database: Database, client: str) -> str:
    """Visit with today's code, and return the page."""
    app = create_app(database.environ(database.user))
    return app.test_client().get("/", headers={"X-Forwarded-For": client}).text


@pytest.mark.service
def test_the_previous_release_serves_and_counts_on_todays_schema(
    postgres_database: Database, older: Path
) -> None:
    migrated(postgres_database)
    with serving(older, postgres_database) as site:
        version = requests.get(f"{site}/version", timeout=10).json()["version"]
        assert version.startswith(OLD_VERSION)
        assert readiness(site) == (200, "ready\n")
        assert [visit(site, client) for client in ("192.0.2.1", "192.0.2.2", "192.0.2.1")] \
            == [200, 200, 200]
        page = page_of_today(postgres_database, "192.0.2.1")
        assert "visited this page 3 times. Total visitors: 2<" in page
        assert visit(site, "192.0.2.3") == 200
    assert "Total visitors: 3<" in page_of_today(postgres_database, "192.0.2.1")


@pytest.mark.service
def test_todays_release_serves_and_counts_on_a_later_schema(
    postgres_database: Database, tmp_path: Path
) -> None:
    upgrade(later(tmp_path / "later", EXPAND), postgres_database)
    client = create_app(postgres_database.environ(postgres_database.user)).test_client()
    assert client.get("/readyz").text == "ready\n"
    assert client.get("/").status_code == 200
    page = page_of_today(postgres_database, "192.0.2.1")
    assert "visited this page 1 time. Total visitors: 2<" in page


@pytest.mark.service
def test_readiness_cannot_detect_what_a_later_schema_removed(
    postgres_database: Database, tmp_path: Path
) -> None:
    upgrade(later(tmp_path / "later", CONTRACT), postgres_database)
    client = create_app(postgres_database.environ(postgres_database.user)).test_client()
    assert client.get("/").status_code == 503
    assert client.get("/readyz").text == "ready\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of an application at its first revision, independent of this user's git."""
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}.items():
        monkeypatch.setenv(name, value)
    made = Repository(tmp_path / "checkout")
    made.git("init", "--quiet", "--initial-branch=main")
    made.write("app/__init__.py", "")
    add_revision(made, "0001", None)
    made.commit("Begin")
    return made


def add_revision(repository: Repository, id: str, down: str | None) -> None:
    repository.write(f"{VERSIONS}/{id}_step.py", f"revision = {id!r}\ndown_revision = {down!r}\n")


@pytest.mark.unit
def test_the_previous_release_is_the_commit_before_the_newest_revision(
    repository: Repository,
) -> None:
    before = repository.commit("Change a page")
    add_revision(repository, "0002", "0001")
    repository.commit("Add a revision")
    repository.write(f"{VERSIONS}/0001_step.py", '"""edited."""\nrevision = "0001"\n'
                                                 "down_revision = None\n")
    repository.commit("Explain the first revision")
    assert release_before(repository.root) == before


@pytest.mark.unit
def test_a_revision_that_is_not_committed_comes_after_the_last_commit(
    repository: Repository,
) -> None:
    last = repository.commit("Change a page")
    add_revision(repository, "0002", "0001")
    assert release_before(repository.root) == last


@pytest.mark.unit
def test_the_release_before_a_merged_branch_is_on_the_main_branch(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create=branch")
    repository.commit("Begin the branch")
    add_revision(repository, "0002", "0001")
    repository.commit("Add a revision")
    repository.git("switch", "--quiet", "main")
    before = repository.commit("Change a page")
    repository.git("merge", "--quiet", "--no-ff", "--message=Merge", "branch")
    assert release_before(repository.root) == before


@pytest.mark.unit
def test_a_revision_of_the_first_commit_has_no_previous_release(
    repository: Repository,
) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.commit("Change a page")
    assert release_before(repository.root) == first


@pytest.mark.unit
def test_a_revision_added_with_the_application_has_no_previous_release(
    repository: Repository,
) -> None:
    repository.git("switch", "--quiet", "--orphan=empty")
    repository.commit("Begin with nothing")
    repository.write("app/__init__.py", "")
    add_revision(repository, "0001", None)
    first = repository.commit("Add the application")
    repository.commit("Change a page")
    assert release_before(repository.root) == first


@pytest.mark.unit
def test_a_shallow_clone_fails_and_says_what_to_do(repository: Repository, tmp_path: Path) -> None:
    repository.commit("Change a page")
    shallow = tmp_path / "shallow"
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(shallow))
    with pytest.raises(pytest.fail.Exception, match="^this clone is shallow, .* --unshallow "):
        release_before(shallow)


@pytest.mark.unit
def test_an_exported_tree_fails_and_says_what_to_do(repository: Repository) -> None:
    shutil.rmtree(repository.root / ".git")
    with pytest.raises(pytest.fail.Exception,
                       match="^the release before can't be had from git: fatal: .* in a clone"):
        release_before(repository.root)
