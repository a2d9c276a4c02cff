"""Let one command at a time change the stack, from any machine.

The lock is a Swarm config: Raft makes creating one by name atomic, and every
laptop and pipeline sees it. It expires unless its holder renews it, so that a
killed deploy doesn't hold it forever.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from types import FrameType
from typing import NoReturn

from stack import progress, waiting
from stack.engine.engine import Engine
from stack.engine.failures import Conflict, EngineError, Missing
from stack.errors import Locked

NAME = "tally-lock"
LIFETIME = 45.0  # seconds without a renewal
RENEWAL = 10.0  # seconds between renewals
MARGIN = 3.0  # seconds that a renewal may take


@dataclass(frozen=True)
class Holder:
    """The lock's holder, its start, and its expiry unless renewed."""

    config_id: str
    who: str
    since: float
    expires: float

    @property
    def expired(self) -> bool:
        return time.time() > self.expires

    @property
    def began(self) -> str:
        return _utc(self.since)

    @property
    def until(self) -> str:
        return _utc(self.expires)

    def __str__(self) -> str:
        return f"{self.who} since {self.began}"


def describe(found: Holder | None) -> str:
    """Say who holds the lock; an expired lock is free."""
    return "free" if found is None or found.expired else str(found)


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def whoami() -> str:
    """Name this run for other operators: its pipeline, or user and host."""
    if os.environ.get("CI_JOB_URL"):
        return os.environ["CI_JOB_URL"]
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    return f"{user}@{socket.gethostname()} (pid {os.getpid()})"


def holder(engine: Engine) -> Holder | None:
    """Return the lock's current holder, or None."""
    config = engine.configs.named(NAME)
    if config is None:
        return None
    return Holder(config.id, config.labels["who"], float(config.labels["since"]),
                  float(config.labels["expires"]))


def free(engine: Engine, found: Holder) -> None:
    """Take the lock from its holder, which notices before its next change."""
    _remove(engine, found.config_id)


class Lock:
    """A held lock, renewed by a thread."""

    def __init__(self, engine: Engine, config_id: str) -> None:
        self._engine = engine
        self._config_id = config_id
        self._done = threading.Event()
        self._renewer = threading.Thread(target=self._renew_until_done, daemon=True)
        self._renewer.start()

    def require(self) -> None:
        """Raise Locked if the lock was lost, for example while the laptop slept."""
        try:
            self._engine.configs.inspect(self._config_id)
        except Missing as error:
            raise Locked("this command lost the deploy lock "
                         f"(not renewed for {LIFETIME:.0f} s, or released)",
                         "./fab status, then ./fab deploy") from error

    def release(self) -> None:
        """Stop renewing and free the lock; without an engine it expires by itself."""
        self._done.set()
        self._renewer.join(timeout=RENEWAL)
        with suppress(EngineError):
            _remove(self._engine, self._config_id)

    def _renew_until_done(self) -> None:
        while not self._done.wait(RENEWAL):
            try:
                _renew(self._engine, self._config_id)
            except Missing:
                return
            except EngineError:
                # The next renewal retries.
                continue


@contextmanager
def hold(engine: Engine) -> Iterator[Lock]:
    """Hold the lock; raises Locked if another command holds it.

    A cancelled pipeline or a closed terminal frees it too.
    """
    # A signal ignored because of nohup stays ignored.
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        held = Lock(engine, _acquire(engine))
        try:
            yield held
        finally:
            held.release()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _acquire(engine: Engine) -> str:
    now = time.time()
    labels = {"who": whoami(), "since": str(now), "expires": str(now + LIFETIME)}
    while True:
        try:
            return engine.configs.create(NAME, b"lock", labels)
        except Conflict:
            other = holder(engine)
        if other and not other.expired:
            raise Locked(f"{other.who} has held the lock since {other.began}; it expires "
                         f"{LIFETIME:.0f} s after its holder's last renewal",
                         "try again when that command has ended")
        if other:
            _take_over(engine, other)


def _take_over(engine: Engine, other: Holder) -> None:
    """Remove an expired lock, unless its holder is still alive."""
    progress.line(f"the lock of {other.who} expired at {other.until}: "
                  "checking whether it is renewed")
    if _is_alive(engine, other):
        raise Locked(f"{other.who} still renews the lock, though it has expired by this computer's "
                     "clock", "correct the clocks; ./fab bootstrap names the wrong ones")
    _remove(engine, other.config_id)


def _is_alive(engine: Engine, expired: Holder) -> bool:
    """Return whether an expired lock is still renewed: clocks may differ."""
    now = waiting.until(lambda: holder(engine), RENEWAL + MARGIN,
                        done=lambda now: now != expired, every=1)
    return now is not None and now.config_id == expired.config_id \
        and now.expires != expired.expires


def _renew(engine: Engine, config_id: str) -> None:
    """Extend the expiry."""
    engine.configs.add_labels(config_id, {"expires": str(time.time() + LIFETIME)})


def _remove(engine: Engine, config_id: str) -> None:
    with suppress(Missing):
        engine.configs.remove(config_id)
