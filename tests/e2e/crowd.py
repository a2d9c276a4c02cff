"""Visitors who keep coming while something is changed, and know what they were told."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.e2e.site import Site

PAUSE = 0.1  # seconds from one visit of a visitor to the next


@dataclass
class Visitor:
    """One client address, what it was answered last, and what went wrong."""

    address: str
    answered: int = 0
    last: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def crowd(sites: Sequence[Site], addresses: Sequence[str]) -> Iterator[list[Visitor]]:
    """Let visitors open the page at all of the addresses in turn; five make 50 requests/s.

    Each address has to be new to the site. At the end nobody waits for an answer any more.
    """
    visitors = [Visitor(address) for address in addresses]
    done = threading.Event()
    threads = [threading.Thread(target=_come, args=(done, visitor, sites)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        yield visitors
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _come(done: threading.Event, visitor: Visitor, sites: Sequence[Site]) -> None:
    for site in itertools.cycle(sites):
        if done.wait(PAUSE):
            return
        began = time.monotonic()
        try:
            visitor.last = site.visit(visitor.address).visits
            visitor.answered += 1
        except (OSError, http.client.HTTPException, AssertionError) as error:
            visitor.failures.append(f"{site.address} after {time.monotonic() - began:.1f} s: "
                                    f"{type(error).__name__} {error}"[:200])


def check(visitors: Sequence[Visitor], least: int) -> None:
    """See that nobody was turned away and every answered visit was counted once."""
    assert [failure for visitor in visitors for failure in visitor.failures] == []
    assert [visitor.last for visitor in visitors] == [visitor.answered for visitor in visitors]
    assert sum(visitor.answered for visitor in visitors) >= least
