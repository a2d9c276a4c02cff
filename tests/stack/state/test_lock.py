"""One command at a time holds the lock; others are told, and it is always released."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace

import pytest

from stack import waiting
from stack.engine.engine import Engine
from stack.errors import Locked
from stack.state import lock
from stack.state.lock import LIFETIME, RENEWAL, Holder, hold, holder, whoami
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

NAMES = ("CI_JOB_URL", "SUDO_USER", "USER")
THIS_RUN = f"@{socket.gethostname()} (pid {os.getpid()})"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWAL", 0.01)
    monkeypatch.setattr(lock, "MARGIN", 0.05)


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def expiry(engine: Engine) -> float:
    held = holder(engine)
    assert held
    return held.expires


def taken(fake: FakeEngine, expires: float) -> None:
    """Let somebody else hold the lock until this Unix time."""
    fake.kinds["configs"]["theirs"] = {"ID": "theirs", "Spec": {"Name": "tally-lock", "Labels": {
        "who": "ada@laptop", "since": "0", "expires": str(expires)}}}


def test_a_pipelines_run_is_named_by_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example.org/tally/-/jobs/7")
    monkeypatch.setenv("USER", "runner")
    assert whoami() == "https://gitlab.example.org/tally/-/jobs/7"


def test_a_run_under_sudo_is_named_by_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_lock_outlives_two_failed_renewals() -> None:
    assert LIFETIME >= 3 * RENEWAL


def test_the_lock_names_its_holder_and_is_free_afterwards(engine: Engine) -> None:
    begun = time.time()
    with hold(engine):
        held = holder(engine)
        assert held and held.who == whoami()
        assert begun <= held.since <= time.time()
        assert held.expires == pytest.approx(held.since + LIFETIME)
    assert holder(engine) is None


def test_a_second_command_is_told_who_holds_the_lock(
        fake: FakeEngine, engine: Engine) -> None:
    taken(fake, expires=time.time() + 30)
    assert error_of(hold(engine).__enter__, Locked) == (
        "ada@laptop has held the lock since 1970-01-01 00:00:00 UTC; it expires 45 s after its "
        "holder's last renewal: try again when that command has ended")
    assert set(fake.kinds["configs"]) == {"theirs"}


def test_a_dead_holders_lock_is_taken_over(
        fake: FakeEngine, engine: Engine, renewed_often: None) -> None:
    taken(fake, expires=time.time() - 1)
    with hold(engine) as held:
        assert [each["Spec"]["Labels"]["who"] for each in fake.kinds["configs"].values()] \
            == [whoami()]
        held.require()


def test_a_renewed_lock_stays_its_holders_whatever_our_clock_says(
        fake: FakeEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(fake, expires=time.time() - 100)
    labels = fake.kinds["configs"]["theirs"]["Spec"]["Labels"]
    monkeypatch.setattr(waiting, "time", SimpleNamespace(
        time=time.time, monotonic=time.monotonic,
        sleep=lambda seconds: labels.update(expires=str(time.time() - 90))))
    assert error_of(hold(engine).__enter__, Locked) == (
        "ada@laptop still renews the lock, though it has expired by "
        "this computer's clock: correct the clocks; ./fab bootstrap names the wrong ones")
    assert set(fake.kinds["configs"]) == {"theirs"}


def test_a_config_with_the_same_prefix_is_not_the_lock(
        fake: FakeEngine, engine: Engine) -> None:
    fake.kinds["configs"]["other"] = {"ID": "other", "Spec": {
        "Name": "tally-lock-2", "Labels": {}}}
    assert holder(engine) is None


def test_a_failed_command_releases_the_lock(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), hold(engine):
        raise ZeroDivisionError
    assert holder(engine) is None


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def deadly(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that ends a command, but not the tests."""
    number: signal.Signals = request.param
    before = signal.signal(number, survive)
    yield number
    signal.signal(number, before)


def survive(number: int, frame: FrameType | None) -> None:
    """Receive a signal and continue."""


def test_a_cancelled_command_ends_and_releases_the_lock(
        engine: Engine, deadly: signal.Signals) -> None:
    with pytest.raises(SystemExit) as raised, hold(engine):
        os.kill(os.getpid(), deadly)
        time.sleep(1)
    assert (raised.value.code, holder(engine)) == (128 + deadly, None)
    assert signal.getsignal(deadly) is survive


def test_a_signal_that_nohup_ignores_stays_ignored(engine: Engine) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with hold(engine):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_wakes_up_notices_its_lost_lock_at_once(
        fake: FakeEngine, engine: Engine) -> None:
    with hold(engine) as held:
        fake.kinds["configs"].clear()
        assert ended(held.require)


def test_a_lock_is_renewed_while_it_is_held(
        engine: Engine, renewed_often: None) -> None:
    with hold(engine) as held:
        first = expiry(engine)
        wait_for(lambda: expiry(engine) > first)
        held.require()


def test_a_faltering_engine_is_asked_again(
        fake: FakeEngine, engine: Engine, renewed_often: None) -> None:
    with hold(engine) as held:
        first = expiry(engine)
        fake.failing = True
        time.sleep(0.05)
        fake.failing = False
        wait_for(lambda: expiry(engine) > first)
        held.require()


def ended(call: Callable[[], object]) -> bool:
    """Return whether a call ends the command because its lock is lost."""
    try:
        call()
    except Locked as error:
        return str(error) == ("this command lost the deploy lock (not renewed for 45 s, or "
                              "released): ./fab status, then ./fab deploy")
    return False


def test_a_command_without_its_lock_ends_and_leaves_the_new_one_alone(
        fake: FakeEngine, engine: Engine, renewed_often: None) -> None:
    with hold(engine) as held:
        fake.kinds["configs"].clear()
        taken(fake, expires=time.time() + 30)
        wait_for(lambda: ended(held.require))
    assert set(fake.kinds["configs"]) == {"theirs"}


def test_a_lost_engine_doesnt_hide_the_commands_result(fake: FakeEngine) -> None:
    with pytest.raises(ZeroDivisionError), reached(fake) as engine, hold(engine):
        fake.failing = True
        raise ZeroDivisionError
