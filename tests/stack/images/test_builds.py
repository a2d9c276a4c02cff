"""A tag never moves, and an update replaces only the images that have changed."""

import hashlib
from pathlib import Path

import pytest

from stack.engine.cli import DockerCli
from stack.images import base, builds
from stack.images.base import BASE
from stack.images.builds import Build, build_all
from stack.images.snapshot import snapshot
from stack.images.version import Version
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand
from tests.support.executables import answering
from tests.support.failing import error_of
from tests.support.repository import SUPPORTING, Repository

pytestmark = pytest.mark.unit

VERSION = Version("1.4.0", 57, "0123456789abcdef0123456789abcdef01234567")
# The answer of a client that has BuildKit without a plugin.
CLIENT = ('case "$*" in *"buildx version"*) exit 1;; *Client.Version*) echo 20.10.24; exit;; esac',)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
BUILD = Build("app", "tally/app:1", ".", {"BASE": "b", "VERSION": "1 2"}, {"revision": "0123"})
REGISTRY = "192.0.2.11:5000/tally"


def plan(repository: Repository, version: Version = VERSION, base: str = "sha256:base",
         prefix: str = base.PREFIX,
         proxies: dict[str, str] | None = None) -> dict[str, Build]:
    with snapshot(repository.root, LocalMachine()) as taken:
        return builds.plan_builds(taken, version, base, prefix, proxies or {})


def tags(repository: Repository, version: Version = VERSION,
         base: str = "sha256:base") -> dict[str, str]:
    return {name: build.tag for name, build in plan(repository, version, base).items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_a_build_is_one_docker_command() -> None:
    assert BUILD.command(ca_bundle=False) == [
        "--build-arg=BASE=b", "--build-arg=VERSION=1 2", "--label=revision=0123",
        "--tag=tally/app:1", "."]


def test_a_hosts_ca_bundle_is_passed_as_a_secret() -> None:
    assert BUILD.command(ca_bundle=True) == [
        "--build-arg=BASE=b", "--build-arg=VERSION=1 2", "--label=revision=0123",
        "--secret=id=ca-bundle,src=/etc/ssl/certs/ca-certificates.crt", "--tag=tally/app:1", "."]


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


def test_images_for_a_registry_are_named_after_it(repository: Repository) -> None:
    repository.add_images()
    local = plan(repository)
    assert {name: build.tag for name, build in plan(repository, prefix=REGISTRY).items()} \
        == {name: build.tag.replace("localhost:1/tally", REGISTRY) for name, build in local.items()}


def test_each_service_has_one_image(repository: Repository) -> None:
    repository.add_images()
    assert set(plan(repository)) == {"app", *SUPPORTING}


def test_another_version_changes_only_the_apps_tag(repository: Repository) -> None:
    repository.add_images()
    after = tags(repository, Version("1.4.0", 58, VERSION.commit))
    assert changed(tags(repository), after) == {"app"}


def test_another_base_changes_each_supporting_images_tag(repository: Repository) -> None:
    repository.add_images()
    assert changed(tags(repository), tags(repository, base="sha256:other")) == set(SUPPORTING)


def test_a_renewed_base_changes_every_images_tag(repository: Repository) -> None:
    repository.add_images()
    after = tags(repository, VERSION.upon("20260301120000"), base="sha256:other")
    assert changed(tags(repository), after) == {"app", *SUPPORTING}
    assert after["app"] == "localhost:1/tally/app:1.4.0-57.base.20260301120000"


@pytest.mark.parametrize("name", SUPPORTING)
def test_a_change_in_a_folder_changes_only_its_images_tag(
        repository: Repository, name: str) -> None:
    repository.add_images()
    before = tags(repository)
    repository.write(f"stack/images/{name}/Dockerfile", "FROM other\n")
    assert changed(before, tags(repository)) == {name}


def test_a_file_that_becomes_executable_changes_its_images_tag(
        repository: Repository) -> None:
    repository.add_images()
    before = tags(repository)
    (repository.root / "stack/images/postgres/Dockerfile").chmod(0o755)
    assert changed(before, tags(repository)) == {"postgres"}


def test_a_change_elsewhere_changes_no_supporting_images_tag(repository: Repository) -> None:
    repository.add_images()
    before = tags(repository)
    repository.write("app/views.py", "changed = True\n")
    assert changed(before, tags(repository)) == set()


def test_every_build_uses_the_proxies(repository: Repository) -> None:
    repository.add_images()
    proxies = {name: f"http://192.0.2.1/{name}" for name in PROXIES}
    for build in plan(repository, proxies=proxies).values():
        assert {name: build.arguments[name] for name in PROXIES} == proxies


@pytest.mark.parametrize("path", [
    "Dockerfile", "app/templates/page.html", "stack/images/traefik/Dockerfile"])
def test_a_missing_file_is_found_before_the_build(
        repository: Repository, path: str) -> None:
    repository.add_images()
    (repository.root / path).unlink()
    missing = Path(path).parent if path.startswith("stack") else Path(path)
    assert error_of(lambda: plan(repository)) \
        == f"{missing} is missing: restore it with: git checkout -- {missing}"


@pytest.mark.parametrize("bundle", [True, False])
def test_images_are_built_where_their_files_are(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, bundle: bool) -> None:
    add_command("docker", *CLIENT, f'pwd -P >> {tmp_path}/said',
                f'echo "$DOCKER_BUILDKIT $*" >> {tmp_path}/said')
    monkeypatch.setattr(builds, "CA_BUNDLE", tmp_path / "ca.crt")
    if bundle:
        (tmp_path / "ca.crt").write_text("a certificate")
    files = tmp_path / "files"
    files.mkdir()
    build_all(DockerCli(machine), files, [BUILD])
    assert (tmp_path / "said").read_text().splitlines() == [str(files.resolve()), " ".join(
        ["1 build --progress=plain", *BUILD.command(bundle)])]


def test_a_failed_build_shows_the_end_of_its_output(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    docker = add_command("docker", *CLIENT, "seq 1 100; echo 'E: no [/route]' >&2; exit 1")
    assert error_of(lambda: build_all(DockerCli(machine), tmp_path, [BUILD])) == (
        f"tally/app:1 could not be built with {docker}: "
        "the end of its output is above; nothing was changed")
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"    {number}" for number in range(82, 101)] + ["    E: no [/route]"]


def test_all_images_are_tried_before_a_failure_is_reported(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("docker", *CLIENT, f'echo "$*" >> {tmp_path}/said',
                'case "$*" in *tally/app*) exit 1;; esac')
    builds = [Build(name, f"tally/{name}:1", ".", {}, {}) for name in ("app", "postgres")]
    assert error_of(lambda: build_all(DockerCli(machine), tmp_path, builds)) \
        .startswith("tally/app:1 could")
    assert len((tmp_path / "said").read_text().splitlines()) == 2


def registry_build(repository: Repository, base: str = "sha256:base") -> Build:
    with snapshot(repository.root, LocalMachine()) as taken:
        return builds.registry_build(taken, base)


def test_the_own_registrys_image_is_only_on_its_node(repository: Repository) -> None:
    repository.write("stack/images/registry/Dockerfile", "FROM base\n")
    build = registry_build(repository)
    assert build.tag.startswith("localhost:1/tally/registry:")
    assert (build.name, build.context, build.arguments, build.labels) \
        == ("registry", ".", {"BASE": BASE}, {})


def test_the_registry_keeps_its_tag_until_its_files_or_its_base_change(
        repository: Repository) -> None:
    repository.write("stack/images/registry/Dockerfile", "FROM base\n")
    repository.write("stack/images/registry/config.yml", "version: 0.1\n")
    first, again = registry_build(repository).tag, registry_build(repository).tag
    other_base = registry_build(repository, "sha256:other").tag
    repository.write("stack/images/registry/config.yml", "version: 0.2\n")
    assert first == again
    assert len({first, other_base, registry_build(repository).tag}) == 3


def listed(*images: str) -> tuple[str, ...]:
    """Return a docker script that has these images and removes all but those in use."""
    return ('case "$*" in', '"image ls"*)', *answering("\n".join(images)), ";;",
            '"image rm "*in-use*) exit 1;;', '"image rm "*) echo Untagged: "$3";;', "esac")


def test_only_images_that_are_neither_needed_nor_in_use_are_removed(
        machine: LocalMachine, add_command: AddCommand) -> None:
    add_command("docker", *listed(
        "localhost:1/tally/base trixie <none>", "localhost:1/tally/app 1.4.0-57 <none>",
        "localhost:1/tally/app 1.4.0-56 <none>", "localhost:1/tally/app in-use <none>",
        "localhost:1/tally/traefik 0123 <none>", "localhost:1/tallyho/app 1 <none>",
        "debian trixie-slim <none>"))
    removed = builds.tidy(machine, base.PREFIX, ["localhost:1/tally/app:1.4.0-57"])
    assert removed == ["localhost:1/tally/app:1.4.0-56", "localhost:1/tally/traefik:0123"]


def test_images_from_a_registry_are_known_by_their_digest(
        machine: LocalMachine, add_command: AddCommand) -> None:
    one, two, three = (f"sha256:{digit * 64}" for digit in "123")
    add_command("docker", *listed(
        f"{REGISTRY}/app <none> {one}", f"{REGISTRY}/app 1.4.0-57 {two}",
        f"{REGISTRY}/app <none> {three}", f"{REGISTRY}/postgres 0123 {three}"))
    removed = builds.tidy(machine, REGISTRY, [
        f"{REGISTRY}/app:1.4.0-56@{one}", f"{REGISTRY}/app@{two}"])
    assert removed == [f"{REGISTRY}/app@{three}", f"{REGISTRY}/postgres:0123"]


def test_nothing_is_removed_if_everything_is_needed(
        machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("docker", f'echo "$2" >> {tmp_path}/said',
                *listed("localhost:1/tally/app 1.4.0-57 <none>"))
    assert builds.tidy(machine, base.PREFIX, ["localhost:1/tally/app:1.4.0-57"]) == []
    assert (tmp_path / "said").read_text() == "ls\n"
