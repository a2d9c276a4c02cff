"""The chart has a bar a day, to scale."""

from datetime import date

import pytest

from app.chart import HEIGHT, STUB, WIDTH, chart

pytestmark = pytest.mark.unit
TODAY = date(2024, 3, 1)


def test_each_day_has_a_bar_oldest_first() -> None:
    drawn = chart({}, TODAY, 3)
    assert [bar.day for bar in drawn.bars] == [date(2024, 2, 28), date(2024, 2, 29), TODAY]


def test_heights_are_shares_of_the_highest() -> None:
    drawn = chart({TODAY: 10, date(2024, 2, 29): 5}, TODAY, 3)
    assert [bar.height for bar in drawn.bars] == [STUB, (HEIGHT + STUB) / 2, HEIGHT]
    assert all(bar.y + bar.height == HEIGHT for bar in drawn.bars)


def test_bars_stay_inside_the_picture_and_apart() -> None:
    bars = chart({}, TODAY, 30).bars
    assert bars[0].x >= 0 and bars[-1].x + bars[-1].width <= WIDTH
    assert all(left.x + left.width < right.x for left, right in zip(bars, bars[1:]))


def test_the_total_and_the_latest_peak_describe_it() -> None:
    drawn = chart({TODAY: 1, date(2024, 2, 28): 4, date(2024, 2, 29): 4}, TODAY, 3)
    assert (drawn.total, drawn.peak.visitors, drawn.peak.day) == (9, 4, date(2024, 2, 29))


def test_days_before_the_first_bar_are_left_out() -> None:
    assert chart({date(2024, 1, 1): 7}, TODAY, 3).total == 0
