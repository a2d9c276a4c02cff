"""The lock says who holds it, since when, and when it has expired."""

import os
import socket
import time

import pytest

from stack.lock import LIFETIME, RENEWAL, Holder, whoami

pytestmark = pytest.mark.unit

NAMES = ("CI_JOB_URL", "SUDO_USER", "USER")
THIS_RUN = f"@{socket.gethostname()} (pid {os.getpid()})"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_a_pipelines_run_is_named_by_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example.org/tally/-/jobs/7")
    monkeypatch.setenv("USER", "runner")
    assert whoami() == "https://gitlab.example.org/tally/-/jobs/7"


def test_a_run_under_sudo_is_named_by_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setenv("USER", "root")
    assert whoami() == f"ada{THIS_RUN}"


def test_another_run_is_named_by_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada")
    assert whoami() == f"ada{THIS_RUN}"


def test_a_nameless_user_is_named_by_number() -> None:
    assert whoami() == f"{os.getuid()}{THIS_RUN}"


def test_a_holder_is_named_with_the_time_in_utc() -> None:
    assert str(Holder("id", "ada@laptop", since=0, expires=45)) \
        == "ada@laptop since 1970-01-01 00:00:00 UTC"


@pytest.mark.parametrize(("seconds", "expired"), [(-1, True), (60, False)])
def test_a_lock_expires(seconds: float, expired: bool) -> None:
    assert Holder("id", "ada", 0, time.time() + seconds).expired is expired


def test_a_renewal_may_fail_and_be_made_up_for() -> None:
    assert LIFETIME >= 3 * RENEWAL
