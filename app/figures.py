"""The figures of a page."""

from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import NamedTuple

DAYS_SHOWN = 30


class Tally(NamedTuple):
    """The visitor's visits, all visitors, and new visitors per day, oldest first."""

    visits: int
    visitors: int
    today: date
    new_by_day: Mapping[date, int]


def utc_today() -> date:
    """Return the day by which visits are counted."""
    return datetime.now(timezone.utc).date()
