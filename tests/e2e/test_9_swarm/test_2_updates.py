"""Update after update, and back again: nobody is turned away, and every visit is counted once."""

import pytest

from tests.e2e import verdict
from tests.e2e.faults import Scene, well

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200), pytest.mark.usefixtures("restored")]

ROUNDS = 3


def test_of_updates_and_rollbacks_in_a_row_no_visitor_notices_one(scene: Scene) -> None:
    first = scene.serving()
    with scene.visited(least=ROUNDS * 400):
        for number in range(ROUNDS):
            scene.change_page(f"Update {number}")
            first.check(well(scene.fab("deploy --probe-budget 0 --json")))
            assert all(f"Update {number}" in site.ask().text for site in scene.edges)

            updated, back = scene.serving(), well(scene.fab("rollback --json"))
            updated.check(back)
            assert verdict.report(back)["probe"]["failures"] == 0
            assert scene.serving() == first
