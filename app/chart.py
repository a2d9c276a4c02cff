"""Lay out the chart of new visitors a day, in the units of its SVG."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

WIDTH = 600
HEIGHT = 140
GAP = 4
# A day without new visitors keeps a stub, so that it reads as nought, not as no data.
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
    """All bars, oldest first, and the figures that describe them in words."""

    bars: tuple[Bar, ...]
    peak: Bar
    total: int
    width: int = WIDTH
    height: int = HEIGHT


def chart(new_by_day: Mapping[date, int], today: date, days: int) -> Chart:
    """Draw one bar a day up to today; days that are absent had no new visitor."""
    shown = [today - timedelta(days=ago) for ago in reversed(range(days))]
    highest = max(new_by_day.get(day, 0) for day in shown)
    pitch = WIDTH / days
    bars = tuple(
        bar(day, new_by_day.get(day, 0), highest, index * pitch, pitch)
        for index, day in enumerate(shown)
    )
    # Of equal peaks the latest, which says more to who looks today.
    peak = max(bars, key=lambda drawn: (drawn.visitors, drawn.day))
    return Chart(bars, peak, sum(drawn.visitors for drawn in bars))


def bar(day: date, visitors: int, highest: int, left: float, pitch: float) -> Bar:
    """Place one bar on the base line, as high as its share of the highest."""
    height = STUB + (HEIGHT - STUB) * visitors / max(highest, 1)
    return Bar(
        day, visitors, round(left + GAP / 2, 2), round(HEIGHT - height, 2), round(pitch - GAP, 2),
        round(height, 2),
    )
