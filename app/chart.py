"""Lay out the chart of new visitors per day, in SVG units."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

WIDTH = 600
HEIGHT = 140
GAP = 4
# The height of a day without new visitors: a visible zero, not missing data.
STUB = 2


@dataclass(frozen=True)
class Bar:
    """One day's bar."""

    day: date
    visitors: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """All bars, oldest first, and the figures for the text description."""

    bars: tuple[Bar, ...]
    peak: Bar
    total: int
    width: int = WIDTH
    height: int = HEIGHT


def chart(new_by_day: Mapping[date, int], today: date, days: int) -> Chart:
    """Return one bar per day up to today; absent days had no new visitors."""
    shown = [today - timedelta(days=ago) for ago in reversed(range(days))]
    highest = max(new_by_day.get(day, 0) for day in shown)
    pitch = WIDTH / days
    bars = tuple(
        bar(day, new_by_day.get(day, 0), highest, index * pitch, pitch)
        for index, day in enumerate(shown)
    )
    # On a tie, the most recent day.
    peak = max(bars, key=lambda bar: (bar.visitors, bar.day))
    return Chart(bars, peak, sum(bar.visitors for bar in bars))


def bar(day: date, visitors: int, highest: int, left: float, pitch: float) -> Bar:
    """Place one bar on the base line, with a height proportional to the highest."""
    height = STUB + (HEIGHT - STUB) * visitors / max(highest, 1)
    return Bar(
        day, visitors, round(left + GAP / 2, 2), round(HEIGHT - height, 2), round(pitch - GAP, 2),
        round(height, 2),
    )
