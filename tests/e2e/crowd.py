"""Visitors who keep opening the page during a change, and remember the answers."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.e2e.site import Site

INTERVAL = 0.1  # seconds between the starts of a visitor's visits, however long answers take


@dataclass
class Visitor:
    """One client address, its last answer, and its failures."""

    address: str
    answered: int = 0
    last: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def crowd(sites: Sequence[Site], addresses: Sequence[str]) -> Iterator[list[Visitor]]:
    """Let visitors open the page at each site in turn; five visitors make 50 requests/s.

    Each address has to be new to the site. When the block ends, every visit has its answer.
    """
    visitors = [Visitor(address) for address in addresses]
    done = threading.Event()
    began = time.monotonic()
    # Evenly spread: visits at the same time would leave gaps in which nobody looks.
    starts = [began + INTERVAL * place / len(visitors) for place in range(len(visitors))]
    threads = [threading.Thread(target=_come, args=(done, visitor, sites, start))
               for visitor, start in zip(visitors, starts)]
    for thread in threads:
        thread.start()
    try:
        yield visitors
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _come(done: threading.Event, visitor: Visitor, sites: Sequence[Site], due: float) -> None:
    for site in itertools.cycle(sites):
        if done.wait(due - time.monotonic()):
            return
        began = time.monotonic()
        try:
            visitor.last = site.visit(visitor.address).visits
            visitor.answered += 1
        except (OSError, http.client.HTTPException, AssertionError) as error:
            visitor.failures.append(f"{site.address} after {time.monotonic() - began:.1f} s: "
                                    f"{type(error).__name__} {error}"[:200])
        # After a late answer, the next visit follows at once; missed visits aren't repeated.
        due = max(due + INTERVAL, time.monotonic())


def check(visitors: Sequence[Visitor], least: int) -> None:
    """Check that no visit failed and every answered visit was counted once."""
    assert [failure for visitor in visitors for failure in visitor.failures] == []
    assert [visitor.last for visitor in visitors] == [visitor.answered for visitor in visitors]
    assert sum(visitor.answered for visitor in visitors) >= least
