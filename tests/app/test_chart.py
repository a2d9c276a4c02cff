"""The chart has one bar per day, to scale."""

from datetime import date
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient

from app.chart import HEIGHT, STUB, WIDTH, chart, drawn

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


def test_each_bar_is_drawn_to_scale_with_its_day_and_its_count() -> None:
    yesterday = date(2024, 2, 29)
    svg = ElementTree.fromstring(f"<svg>{drawn(chart({TODAY: 12, yesterday: 6}, TODAY, 3))}</svg>")
    assert [(rect.get("class"), rect.get("height"), rect.findtext("title")) for rect in svg] == [
        ("none", str(float(STUB)), "28 Feb: 0"), (None, str((HEIGHT + STUB) / 2), "29 Feb: 6"),
        ("today", str(float(HEIGHT)), "1 Mar: 12"),
    ]


def test_the_page_says_in_words_what_the_chart_shows(client: FlaskClient) -> None:
    for address in ("192.0.2.1", "192.0.2.2"):
        page = client.get("/", headers={"X-Forwarded-For": address}).text
    assert 'role="img" aria-labelledby="chart-title chart-description"' in page
    assert "with 2; 2 so far today.</desc>" in page
    assert page.count("<rect ") == 30 and page.count(": 2</title></rect>") == 1
