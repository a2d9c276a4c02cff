"""One command at a time holds the lock, says so to others, and never leaves it behind."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace

import docker
import pytest

from stack import lock
from stack.errors import Locked
from stack.lock import LIFETIME, RENEWAL, Holder, holder, hold, whoami
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

NAMES = ("CI_JOB_URL", "SUDO_USER", "USER")
THIS_RUN = f"@{socket.gethostname()} (pid {os.getpid()})"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEWAL", 0.01)
    monkeypatch.setattr(lock, "MARGIN", 0.05)


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def expiry(client: docker.DockerClient) -> float:
    held = holder(client)
    assert held
    return held.expires


def taken(engine: Engine, expires: float) -> None:
    """Let somebody hold the lock until then, in Unix time."""
    engine.kinds["configs"]["theirs"] = {"ID": "theirs", "Spec": {"Name": "tally-lock", "Labels": {
        "who": "ada@laptop", "since": "0", "expires": str(expires)}}}


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


def test_the_lock_names_its_holder_and_is_free_afterwards(client: docker.DockerClient) -> None:
    begun = time.time()
    with hold(client):
        held = holder(client)
        assert held and held.who == whoami()
        assert begun <= held.since <= time.time()
        assert held.expires == pytest.approx(held.since + LIFETIME)
    assert holder(client) is None


def test_a_second_command_is_told_who_holds_the_lock(
        engine: Engine, client: docker.DockerClient) -> None:
    taken(engine, expires=time.time() + 30)
    assert error_of(hold(client).__enter__, Locked) == (
        "ada@laptop since 1970-01-01 00:00:00 UTC holds the lock; it is freed 45 s after a killed "
        "command's last sign of life: try again when it has ended")
    assert set(engine.kinds["configs"]) == {"theirs"}


def test_a_dead_holders_lock_is_taken_over(
        engine: Engine, client: docker.DockerClient, renewed_often: None) -> None:
    taken(engine, expires=time.time() - 1)
    with hold(client) as held:
        assert [each["Spec"]["Labels"]["who"] for each in engine.kinds["configs"].values()] \
            == [whoami()]
        held.require()


def test_a_lock_that_has_expired_by_our_clock_and_is_renewed_stays_its_holders(
        engine: Engine, client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    taken(engine, expires=time.time() - 100)
    labels = engine.kinds["configs"]["theirs"]["Spec"]["Labels"]
    monkeypatch.setattr(lock, "time", SimpleNamespace(
        time=time.time, monotonic=time.monotonic,
        sleep=lambda seconds: labels.update(expires=str(time.time() - 90))))
    assert error_of(hold(client).__enter__, Locked) == (
        "ada@laptop since 1970-01-01 00:00:00 UTC holds the lock, though it would have expired by "
        "this computer's clock: set the clocks that are wrong; ./fab bootstrap names them")
    assert set(engine.kinds["configs"]) == {"theirs"}


def test_another_config_whose_name_begins_alike_is_no_lock(
        engine: Engine, client: docker.DockerClient) -> None:
    engine.kinds["configs"]["other"] = {"ID": "other", "Spec": {
        "Name": "tally-lock-2", "Labels": {}}}
    assert holder(client) is None


def test_a_command_that_fails_frees_the_lock(client: docker.DockerClient) -> None:
    with pytest.raises(ZeroDivisionError), hold(client):
        raise ZeroDivisionError
    assert holder(client) is None


@pytest.fixture(params=[signal.SIGTERM, signal.SIGHUP])
def deadly(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that ends a command, but not the tests."""
    number: signal.Signals = request.param
    before = signal.signal(number, survive)
    yield number
    signal.signal(number, before)


def survive(number: int, frame: FrameType | None) -> None:
    """Take a signal and go on."""


def test_a_cancelled_command_ends_and_frees_the_lock(
        client: docker.DockerClient, deadly: signal.Signals) -> None:
    with pytest.raises(SystemExit) as raised, hold(client):
        os.kill(os.getpid(), deadly)
        time.sleep(1)
    assert (raised.value.code, holder(client)) == (128 + deadly, None)
    assert signal.getsignal(deadly) is survive


def test_what_nohup_ignores_stays_ignored(client: docker.DockerClient) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with hold(client):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_that_just_woke_up_sees_at_once_that_it_lost_its_lock(
        engine: Engine, client: docker.DockerClient) -> None:
    with hold(client) as held:
        engine.kinds["configs"].clear()
        assert ended(held.require)


def test_a_lock_is_renewed_while_it_is_held(
        client: docker.DockerClient, renewed_often: None) -> None:
    with hold(client) as held:
        first = expiry(client)
        wait_for(lambda: expiry(client) > first)
        held.require()


def test_an_engine_that_falters_is_asked_again(
        engine: Engine, client: docker.DockerClient, renewed_often: None) -> None:
    with hold(client) as held:
        first = expiry(client)
        engine.failing = True
        time.sleep(0.05)
        engine.failing = False
        wait_for(lambda: expiry(client) > first)
        held.require()


def ended(call: Callable[[], object]) -> bool:
    """Tell whether a call ends the command because its lock is lost."""
    try:
        call()
    except Locked as error:
        return str(error) == ("this command lost the lock: it was asleep or cut off for more "
                              "than 45 s: ./fab status, then ./fab deploy")
    return False


def test_a_command_that_lost_its_lock_ends_and_leaves_the_new_holders_alone(
        engine: Engine, client: docker.DockerClient, renewed_often: None) -> None:
    with hold(client) as held:
        engine.kinds["configs"].clear()
        taken(engine, expires=time.time() + 30)
        wait_for(lambda: ended(held.require))
    assert set(engine.kinds["configs"]) == {"theirs"}


def test_an_engine_that_is_gone_doesnt_hide_how_the_command_ended(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), reached(engine) as client, hold(client):
        engine.failing = True
        raise ZeroDivisionError
