"""Lay out the chart of new visitors per day, in SVG units."""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from typing import NamedTuple

from markupsafe import Markup

WIDTH = 600
HEIGHT = 140
GAP = 4
# The height of a day without new visitors: a visible zero, not missing data.
STUB = 2


class Bar(NamedTuple):
    """One day's bar."""

    day: date
    visitors: int
    x: float
    y: float
    width: float
    height: float


class Chart(NamedTuple):
    """All bars, oldest first, and the figures for the text description."""

    bars: tuple[Bar, ...]
    peak: Bar
    total: int
    width: int = WIDTH
    height: int = HEIGHT


def chart(new_by_day: Mapping[date, int], today: date, days: int) -> Chart:
    """Return one bar per day up to today; absent days had no new visitors."""
    shown = days_until(today, days)
    counts = [new_by_day.get(day, 0) for day in shown]
    highest = max(counts)
    pitch = WIDTH / days
    bars = tuple([
        bar(day, visitors, highest, index * pitch, pitch)
        for index, (day, visitors) in enumerate(zip(shown, counts))
    ])
    # On a tie, the most recent day.
    peak = next(bar for bar in reversed(bars) if bar.visitors == highest)
    return Chart(bars, peak, sum([bar.visitors for bar in bars]))


def bar(day: date, visitors: int, highest: int, left: float, pitch: float) -> Bar:
    """Place one bar on the base line, with a height proportional to the highest."""
    height = STUB + (HEIGHT - STUB) * visitors / max(highest, 1)
    return Bar(
        day, visitors, round(left + GAP / 2, 2), round(HEIGHT - height, 2), round(pitch - GAP, 2),
        round(height, 2),
    )


@lru_cache(maxsize=1)
def days_until(today: date, days: int) -> tuple[date, ...]:
    """Return as many days as this, the last of which is today."""
    return tuple(today - timedelta(days=ago) for ago in reversed(range(days)))


@lru_cache(maxsize=64)
def label(day: date) -> str:
    """Format a date like 3 May."""
    return f"{day.day} {day:%b}"


def drawn(chart: Chart) -> Markup:
    """Return the bars in SVG, each with its title.

    Not by the template, which takes four times as long for thirty bars.
    """
    today = chart.bars[-1].day
    return Markup("".join([
        f'<rect x="{bar.x}" y="{bar.y}" width="{bar.width}" height="{bar.height}" rx="2"'
        f'{kind(bar, today)}><title>{label(bar.day)}: {bar.visitors}</title></rect>\n'
        for bar in chart.bars
    ]))


def kind(bar: Bar, today: date) -> str:
    """Return the attribute by which the style sheet colours a bar."""
    if bar.day == today:
        return ' class="today"'
    return "" if bar.visitors else ' class="none"'
