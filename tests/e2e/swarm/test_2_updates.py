"""Updates and rollbacks in a row: no visit fails, and every visit is counted once."""

import pytest

from tests.e2e import verdict
from tests.e2e.faults import Scene, well

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200), pytest.mark.usefixtures("restored")]

ROUNDS = 3


def test_visitors_never_notice_consecutive_updates_and_rollbacks(scene: Scene) -> None:
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
