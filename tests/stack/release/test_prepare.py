"""A release is built upon the newest base image, or not at all."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from stack.images.base import Base
from stack.release import prepare
from stack.release.found import Found
from stack.state.releases import Record
from tests.stack.conftest import AddCommand
from tests.support.engine_api import FakeEngine
from tests.support.failing import error_of
from tests.support.targets import aiming_at

pytestmark = pytest.mark.unit

NEVER, EARLIER, LATER = "", "20260301120000", "20260401120000"
EMPTY = Found(None, (), {}, None, 0, 1450)


@pytest.fixture(autouse=True)
def docker(add_command: AddCommand) -> None:
    add_command("docker")


def upon(renewal: str) -> Base:
    return Base("sha256:0123", renewal, datetime(2026, 3, 1, tzinfo=UTC))


def released(renewal: str) -> Record:
    version = f"1.4.0+57.base.{renewal}" if renewal else "1.4.0+57"
    return Record(version, "0123456", "ada@example.org", 1.0, 12.5, {}, {})


def required(found: Found) -> Base:
    with aiming_at(FakeEngine()) as target:
        return prepare.require_base(target, found)


@pytest.mark.parametrize("now", [NEVER, EARLIER])
def test_the_first_release_is_built_upon_any_base(now: str) -> None:
    assert required(replace(EMPTY, base=upon(now))) == upon(now)


@pytest.mark.parametrize(("before", "now"), [
    (NEVER, NEVER), (NEVER, EARLIER), (EARLIER, EARLIER), (EARLIER, LATER)])
def test_a_release_is_built_upon_the_same_base_or_a_newer_one(before: str, now: str) -> None:
    assert required(replace(EMPTY, base=upon(now), history=(released(before),))) == upon(now)


@pytest.mark.parametrize(("before", "now"), [(EARLIER, NEVER), (LATER, EARLIER)])
def test_a_release_upon_an_older_base_is_refused(before: str, now: str) -> None:
    found = replace(EMPTY, base=upon(now), history=(released(before),))
    assert error_of(lambda: required(found)) == (
        f"1.4.0+57.base.{before} is built upon a newer base image than that of this machine: "
        "./fab bootstrap --renew-base")


def test_a_rollback_to_an_older_base_allows_that_base_again() -> None:
    found = replace(EMPTY, base=upon(EARLIER), history=(released(EARLIER), released(LATER)))
    assert required(found) == upon(EARLIER)


def test_a_missing_base_is_refused() -> None:
    assert error_of(lambda: required(EMPTY)) \
        == "the base image is missing on this machine: ./fab bootstrap makes it"
