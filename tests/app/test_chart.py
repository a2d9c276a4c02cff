"""The chart has one bar per day, to scale."""

from datetime import date

import pytest

from app.chart import HEIGHT, STUB, WIDTH, chart

pytestmark = pytest.mark.unit
TODAY = date(2024, 3, 1)


def test_each_day_has_a_bar_oldest_first() -> None:
    laid_out = chart({}, TODAY, 3)
    assert [bar.day for bar in laid_out.bars] == [date(2024, 2, 28), date(2024, 2, 29), TODAY]


def test_heights_are_shares_of_the_highest() -> None:
    laid_out = chart({TODAY: 10, date(2024, 2, 29): 5}, TODAY, 3)
    assert [bar.height for bar in laid_out.bars] == [STUB, (HEIGHT + STUB) / 2, HEIGHT]
    assert all(bar.y + bar.height == HEIGHT for bar in laid_out.bars)


def test_bars_stay_inside_the_picture_and_dont_overlap() -> None:
    bars = chart({}, TODAY, 30).bars
    assert bars[0].x >= 0 and bars[-1].x + bars[-1].width <= WIDTH
    assert all(left.x + left.width < right.x for left, right in zip(bars, bars[1:]))


def test_the_description_has_the_total_and_the_latest_peak() -> None:
    laid_out = chart({TODAY: 1, date(2024, 2, 28): 4, date(2024, 2, 29): 4}, TODAY, 3)
    assert (laid_out.total, laid_out.peak.visitors, laid_out.peak.day) == (9, 4, date(2024, 2, 29))


def test_days_before_the_first_bar_are_left_out() -> None:
    assert chart({date(2024, 1, 1): 7}, TODAY, 3).total == 0
