"""An operator is told what an interruption leaves, what changed, and where the page is."""

import pytest

from stack import release
from stack.definition import Stack
from stack.errors import UpdateFailed

pytestmark = pytest.mark.unit

INTERRUPTED = ("interrupted in the middle of the update: "
               "./fab deploy completes it, ./fab rollback undoes it\n")


@pytest.mark.parametrize(("interruption", "code"), [
    (KeyboardInterrupt(), 130), (SystemExit(143), 143), (SystemExit(129), 129)])
def test_an_interrupted_update_says_what_it_leaves(
        capsys: pytest.CaptureFixture[str], interruption: BaseException, code: int) -> None:
    with pytest.raises(SystemExit) as raised, release.telling_if_interrupted():
        raise interruption
    assert (raised.value.code, capsys.readouterr().out) == (code, INTERRUPTED)


def test_an_update_that_failed_was_not_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UpdateFailed), release.telling_if_interrupted():
        raise UpdateFailed("the update failed")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("port", "address"), [
    (80, "http://localhost"), (8080, "http://localhost:8080"), ("80", "http://localhost")])
def test_people_are_told_the_address_of_what_was_deployed(
        capsys: pytest.CaptureFixture[str], port: int | str, address: str) -> None:
    release.say_where(Stack({"services": {"traefik": {"ports": [{"published": port}]}}}))
    assert capsys.readouterr().out == f"Tally runs at {address}\n"


def test_each_service_is_said_to_be_new_changed_or_as_it_was(
        capsys: pytest.CaptureFixture[str]) -> None:
    release.report_changes({"app": "1", "postgres": "1"},
                           {"traefik": "1", "postgres": "1", "app": "2"})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["app", "updated"], ["postgres", "unchanged"], ["traefik", "created"]]
