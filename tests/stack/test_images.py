"""Images are named so that a tag never moves and an update replaces only what changed."""

import hashlib
from pathlib import Path

import pytest

from stack import images
from stack.engine import DockerCli
from stack.images import BASE, Build
from stack.machine import LocalMachine
from stack.version import Version, snapshot
from tests.stack.conftest import AddCommand
from tests.stack.failing import error_of
from tests.stack.repository import SUPPORTING, Repository

pytestmark = pytest.mark.unit

VERSION = Version("1.4.0", 57, "0123456789abcdef0123456789abcdef01234567")
# A client's answer to the question for its version.
CLIENT = ('case "$*" in *Client.Version*) echo 20.10.24; exit;; esac',)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def plan(repository: Repository, version: Version = VERSION,
         base: str = "sha256:base") -> dict[str, Build]:
    with snapshot(repository.root, LocalMachine()) as taken:
        return images.plan(taken, version, base)


def tags(repository: Repository, version: Version = VERSION,
         base: str = "sha256:base") -> dict[str, str]:
    return {name: build.tag for name, build in plan(repository, version, base).items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def build_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, bundle: bool) -> list[str]:
    """Return a build's command on a host with or without a CA bundle."""
    path = tmp_path / "ca.crt"
    if bundle:
        path.write_text("a certificate")
    monkeypatch.setattr(images, "CA_BUNDLE", path)
    return Build("app", "tally/app:1", ".", {"BASE": "b", "VERSION": "1 2"},
                 {"revision": "0123"}).command()


def test_a_build_is_one_docker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_with(tmp_path, monkeypatch, bundle=False) == [
        "--build-arg=BASE=b", "--build-arg=VERSION=1 2", "--label=revision=0123",
        "--tag=tally/app:1", "."]


def test_a_hosts_ca_bundle_is_lent_as_a_secret(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_with(tmp_path, monkeypatch, bundle=True) == [
        "--build-arg=BASE=b", "--build-arg=VERSION=1 2", "--label=revision=0123",
        f"--secret=id=ca-bundle,src={tmp_path}/ca.crt", "--tag=tally/app:1", "."]


def test_the_app_is_built_from_the_whole_tree_under_its_version(repository: Repository) -> None:
    repository.add_images()
    assert plan(repository)["app"] == Build(
        "app", "localhost:1/tally/app:1.4.0-57", ".",
        {"BASE": BASE, "VERSION": "1.4.0+57", "COMMIT": VERSION.commit},
        {"org.opencontainers.image.version": "1.4.0+57",
         "org.opencontainers.image.revision": VERSION.commit})


@pytest.mark.parametrize("name", SUPPORTING)
def test_a_supporting_image_is_built_from_its_folder_under_its_content(
        repository: Repository, name: str) -> None:
    repository.add_images()
    folder = repository.git("rev-parse", f"HEAD:stack/images/{name}")
    key = hashlib.sha256(f"{folder} sha256:base".encode()).hexdigest()[:12]
    assert plan(repository)[name] == Build(
        name, f"localhost:1/tally/{name}:{key}", f"stack/images/{name}", {"BASE": BASE}, {})


def test_each_service_has_one_image(repository: Repository) -> None:
    repository.add_images()
    assert set(plan(repository)) == {"app", *SUPPORTING}


def test_another_version_gives_only_the_app_another_tag(repository: Repository) -> None:
    repository.add_images()
    after = tags(repository, Version("1.4.0", 58, VERSION.commit))
    assert changed(tags(repository), after) == {"app"}


def test_another_base_gives_each_supporting_image_another_tag(repository: Repository) -> None:
    repository.add_images()
    assert changed(tags(repository), tags(repository, base="sha256:other")) == set(SUPPORTING)


@pytest.mark.parametrize("name", SUPPORTING)
def test_a_change_in_a_folder_gives_only_its_image_another_tag(
        repository: Repository, name: str) -> None:
    repository.add_images()
    before = tags(repository)
    repository.write(f"stack/images/{name}/Dockerfile", "FROM other\n")
    assert changed(before, tags(repository)) == {name}


def test_a_file_that_becomes_executable_gives_its_image_another_tag(
        repository: Repository) -> None:
    repository.add_images()
    before = tags(repository)
    (repository.root / "stack/images/postgres/Dockerfile").chmod(0o755)
    assert changed(before, tags(repository)) == {"postgres"}


def test_a_change_elsewhere_gives_no_supporting_image_another_tag(repository: Repository) -> None:
    repository.add_images()
    before = tags(repository)
    repository.write("app/views.py", "changed = True\n")
    assert changed(before, tags(repository)) == set()


def test_every_build_goes_through_the_proxies(
        repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.add_images()
    for name in PROXIES:
        monkeypatch.setenv(name, f"http://192.0.2.1/{name}")
    for build in plan(repository).values():
        assert {name: build.arguments[name] for name in PROXIES} \
            == {name: f"http://192.0.2.1/{name}" for name in PROXIES}


@pytest.mark.parametrize("path", [
    "Dockerfile", "app/templates/page.html", "stack/images/traefik/Dockerfile"])
def test_what_an_image_cant_do_without_is_missed_before_the_build(
        repository: Repository, path: str) -> None:
    repository.add_images()
    (repository.root / path).unlink()
    missing = Path(path).parent if path.startswith("stack") else Path(path)
    assert error_of(lambda: plan(repository)) \
        == f"{missing} is missing: restore it with: git checkout -- {missing}"


def test_images_are_built_in_the_snapshots_files(
        repository: Repository, add_command: AddCommand, tmp_path: Path) -> None:
    repository.add_images()
    repository.write(".env", "USER_NAME=Ada\n")
    add_command("docker", *CLIENT, f'pwd >> {tmp_path}/said; ls -A >> {tmp_path}/said',
                f'echo "$DOCKER_BUILDKIT $*" >> {tmp_path}/said')
    with snapshot(repository.root, LocalMachine()) as taken:
        build = Build("app", "tally/app:1", ".", {}, {})
        images.build(DockerCli(LocalMachine(), str(tmp_path / "commands")), taken, [build])
        where, *files, command = (tmp_path / "said").read_text().splitlines()
        assert where == str(taken.files)
    assert set(files) == {".gitignore", "Dockerfile", "app", "stack", "version.txt"}
    assert command == " ".join(["1 --host unix:///var/run/docker.sock build --progress=plain",
                                *build.command()])


def test_a_failed_build_shows_the_end_of_its_output(
        repository: Repository, add_command: AddCommand, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    docker = add_command("docker", *CLIENT, "seq 1 100; echo 'E: no [/route]' >&2; exit 1")
    cli = DockerCli(LocalMachine(), str(docker.parent))
    with snapshot(repository.root, LocalMachine()) as taken:
        build = Build("app", "tally/app:1", ".", {}, {})
        assert error_of(lambda: images.build(cli, taken, [build])) == (
            f"tally/app:1 could not be built with {docker}: "
            "the end of its output is above; nothing was changed")
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"    {number}" for number in range(82, 101)] + ["    E: no [/route]"]


def test_all_images_are_tried_before_one_that_failed_is_named(
        repository: Repository, add_command: AddCommand, tmp_path: Path) -> None:
    docker = add_command("docker", *CLIENT, f'echo "$*" >> {tmp_path}/said',
                         'case "$*" in *tally/app*) exit 1;; esac')
    cli = DockerCli(LocalMachine(), str(docker.parent))
    builds = [Build(name, f"tally/{name}:1", ".", {}, {}) for name in ("app", "postgres")]
    with snapshot(repository.root, LocalMachine()) as taken:
        assert error_of(lambda: images.build(cli, taken, builds)).startswith("tally/app:1 could")
    assert len((tmp_path / "said").read_text().splitlines()) == 2
