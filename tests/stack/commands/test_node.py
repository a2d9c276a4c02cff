"""A service is kept off a node and allowed back without any other change."""

from typing import Any

import pytest

from stack.engine.engine import Engine
from stack.engine.failures import ApiError
from stack.errors import OperatorError
from stack.swarm import nodes, services
from tests.support.engine_api import FakeEngine
from tests.support.failing import error_of

pytestmark = pytest.mark.unit

FORBIDDEN = "node.id!=n1"


class Busy(FakeEngine):
    """An engine that refuses some changes, as after somebody else's change."""

    refusals: int = 0
    why: str = "rpc error: code = Unknown desc = update out of sequence"

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if method == "POST" and self.refusals:
            self.refusals -= 1
            return 500, {"message": self.why}
        return super().answer(method, path, query, body)


@pytest.fixture
def fake() -> Busy:
    made = Busy()
    made.kinds["services"]["s"] = {"ID": "s", "Version": {"Index": 7}, "Spec": {
        "Name": "tally_app", "TaskTemplate": {"Placement": {"MaxReplicas": 2}}}}
    return made


def template(fake: FakeEngine) -> dict[str, Any]:
    found: dict[str, Any] = fake.kinds["services"]["s"]["Spec"]["TaskTemplate"]
    return found


def test_a_node_is_excluded_for_a_while(fake: Busy, engine: Engine) -> None:
    with services.elsewhere(engine, "app", "n1"):
        assert template(fake) == {"Placement": {"MaxReplicas": 2, "Constraints": [FORBIDDEN]}}
    assert template(fake) == {"Placement": {"MaxReplicas": 2}}


def test_somebody_elses_change_stays(
        fake: Busy, engine: Engine) -> None:
    with services.elsewhere(engine, "app", "n1"):
        template(fake)["ContainerSpec"] = {"Image": "app:2"}
        template(fake)["Placement"]["Constraints"].append("node.role==worker")
    assert template(fake) == {"ContainerSpec": {"Image": "app:2"}, "Placement": {
        "MaxReplicas": 2, "Constraints": ["node.role==worker"]}}


def test_a_node_that_was_left_excluded_is_allowed_again(
        fake: Busy, engine: Engine) -> None:
    template(fake)["Placement"]["Constraints"] = ["node.id!=n2", FORBIDDEN]
    assert [services.allow(engine, "app", "n1") for _ in range(2)] == [True, False]
    assert template(fake)["Placement"]["Constraints"] == ["node.id!=n2"]


def test_a_change_is_retried_after_somebody_elses(
        fake: Busy, engine: Engine) -> None:
    fake.refusals = 2
    assert services.constrain(engine, "app", lambda before: [*before, FORBIDDEN])
    assert template(fake)["Placement"]["Constraints"] == [FORBIDDEN]


def test_a_change_is_not_retried_forever(fake: Busy, engine: Engine) -> None:
    fake.refusals = 100
    assert error_of(lambda: services.constrain(engine, "app", lambda before: [FORBIDDEN]),
                    OperatorError) \
        == "could not update app: it kept changing (5 tries): ./fab status"


def test_a_change_that_is_refused_for_another_reason_is_an_error(
        fake: Busy, engine: Engine) -> None:
    fake.refusals, fake.why = 1, "the Swarm has no leader"
    with pytest.raises(ApiError):
        services.constrain(engine, "app", lambda before: [FORBIDDEN])


@pytest.mark.parametrize("refusals", [0, 4])
def test_a_nodes_change_is_retried_too(
        fake: Busy, engine: Engine, refusals: int) -> None:
    fake.kinds["nodes"] = {"n": {"ID": "n", "Version": {"Index": 3}, "Spec": {
        "Availability": "active", "Role": "worker"}}}
    fake.refusals = refusals
    assert nodes.set_availability(engine, "n", "drain")
    assert fake.kinds["nodes"]["n"]["Spec"] == {"Availability": "drain", "Role": "worker"}
    assert not nodes.set_availability(engine, "n", "drain")


def test_a_nodes_change_is_not_retried_forever(fake: Busy, engine: Engine) -> None:
    fake.kinds["nodes"] = {"n": {"ID": "n", "Version": {"Index": 3}, "Spec": {
        "Availability": "active"}}}
    fake.refusals = 100
    assert error_of(lambda: nodes.set_availability(engine, "n", "drain"), OperatorError) \
        == "could not update the node n: it kept changing (5 tries): ./fab status"
