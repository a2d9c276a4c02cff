"""The base image is pulled, or built from Debian's packages; a renewed one gets an id."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stack.engine.engine import Engine
from stack.images import base
from stack.images.base import BASE, Base
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture
def fake() -> FakeEngine:
    """An engine that reaches no registry."""
    return FakeEngine(failing=True)


def test_a_built_base_has_the_same_modes_under_any_umask(
        engine: Engine, machine: LocalMachine, add_command: AddCommand, tmp_path: Path) -> None:
    add_command("mmdebstrap", f'[ "$1" = --version ] || umask > {tmp_path}/umask')
    add_command("docker", "exit 0")
    before = os.umask(0o077)
    try:
        base.make_base(engine, machine)
    finally:
        os.umask(before)
    assert (tmp_path / "umask").read_text() == "0022\n"


# A docker command that keeps each image as a file: its path is the id, its text the label. The
# link `named` leads to the one that has the base's name.
DOCKER = """
images={folder}
case "$1 $2" in
"image inspect")
    image=$5; [ "$5" = {name} ] && image=$images/named
    [ -e "$image" ] || exit 1
    case "$4" in
    *Id*) readlink -f "$image";;
    *) [ "$image" -ef $images/named ] && echo 1 || echo 0;;
    esac;;
"image rm") rm "$3";;
import*)
    new=$images/$(ls $images | wc -l)
    case "$2" in --change=*) echo "${{2#--change=}}" > $new;; *) echo > $new;; esac
    ln -sf $new $images/named;;
esac
"""


@pytest.fixture
def images(tmp_path: Path, add_command: AddCommand) -> Path:
    """The images of a machine that can build a base."""
    folder = tmp_path / "images"
    folder.mkdir()
    add_command("docker", DOCKER.format(folder=folder, name=BASE))
    add_command("mmdebstrap", f'[ "$1" = --version ] || env > {tmp_path}/environ')
    return folder


def named(images: Path) -> Path:
    """Return the file of the image that has the base's name."""
    return (images / "named").resolve()


def test_a_renewed_base_is_labelled_with_its_renewal_and_replaces_the_one_of_before(
        engine: Engine, machine: LocalMachine, images: Path) -> None:
    base.make_base(engine, machine)
    first = named(images)
    assert first.read_text() == "\n"
    said = base.renew_base(machine)
    renewal = re.fullmatch(r"LABEL tally\.base=([0-9]{14})\n", named(images).read_text())
    assert renewal and renewal[1] in said
    assert not first.exists()


def test_a_base_can_be_renewed_again(
        engine: Engine, machine: LocalMachine, images: Path) -> None:
    base.renew_base(machine)
    first = named(images)
    base.renew_base(machine)
    assert not first.exists() and named(images).exists()


def test_no_two_bases_are_made_with_the_same_times(
        machine: LocalMachine, images: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    base.renew_base(machine)
    assert "SOURCE_DATE_EPOCH" not in (tmp_path / "environ").read_text()


@pytest.mark.parametrize("command", ["mmdebstrap", "docker"])
def test_a_failed_renewal_leaves_the_base_in_use(
        machine: LocalMachine, images: Path, add_command: AddCommand, command: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    base.renew_base(machine)
    before = named(images), named(images).read_text()
    breaks = 'case "$*" in *import*|*minbase*) echo "no space left" >&2; exit 1;; esac'
    add_command(command, breaks,
                DOCKER.format(folder=images, name=BASE) if command == "docker" else "")
    assert error_of(lambda: base.renew_base(machine)) == (
        "the base image could not be renewed; the one of before stays in use: "
        "make Debian's package mirror reachable, then ./fab bootstrap --renew-base")
    assert (named(images), named(images).read_text()) == before
    assert "no space left" in capsys.readouterr().out


MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_base_says_when_it_was_made_and_renewed() -> None:
    fake = FakeEngine({"images": {BASE: {
        "Id": "sha256:0123", "Created": "2026-03-01T12:00:00.123456789Z",
        "Config": {"Labels": {base.LABEL: "20260301120000"}}}}})
    with reached(fake) as engine:
        assert Base.read(engine) == Base(
            "sha256:0123", "20260301120000", MADE + timedelta(microseconds=123456))


def test_a_base_that_was_pulled_has_no_renewal() -> None:
    fake = FakeEngine({"images": {BASE: {
        "Id": "sha256:0123", "Created": "2026-03-01T12:00:00Z", "Config": {"Labels": None}}}})
    with reached(fake) as engine:
        assert Base.read(engine) == Base("sha256:0123", "", MADE)


def test_without_a_base_there_is_none() -> None:
    with reached(FakeEngine({"images": {}})) as engine:
        assert Base.read(engine) is None


@pytest.mark.parametrize(("passed", "age"), [
    (timedelta(days=12), timedelta(days=12)), (timedelta(minutes=-5), timedelta())])
def test_a_bases_age_is_never_negative(passed: timedelta, age: timedelta) -> None:
    assert Base("sha256:0123", "", MADE).age(MADE + passed) == age
