"""A node is forbidden and allowed to a service without anything else of it being touched."""

from collections.abc import Iterator
from typing import Any

import docker
import pytest
import requests

from stack import nodes
from stack.errors import OperatorError
from tests.stack.engine_api import Engine, reached
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit

FORBIDDEN = "node.id!=n1"


class Busy(Engine):
    """An engine that refuses some changes, as it does where somebody else was quicker."""

    refusals: int = 0
    why: str = "rpc error: code = Unknown desc = update out of sequence"

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        if method == "POST" and self.refusals:
            self.refusals -= 1
            return 500, {"message": self.why}
        return super().answer(method, path, query, body)


@pytest.fixture
def engine() -> Busy:
    made = Busy()
    made.kinds["services"]["s"] = {"ID": "s", "Version": {"Index": 7}, "Spec": {
        "Name": "tally_app", "TaskTemplate": {"Placement": {"MaxReplicas": 2}}}}
    return made


@pytest.fixture
def client(engine: Busy) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


def template(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.kinds["services"]["s"]["Spec"]["TaskTemplate"]
    return found


def test_a_node_is_forbidden_for_a_while(engine: Busy, client: docker.DockerClient) -> None:
    with nodes.elsewhere(client, "app", "n1"):
        assert template(engine) == {"Placement": {"MaxReplicas": 2, "Constraints": [FORBIDDEN]}}
    assert template(engine) == {"Placement": {"MaxReplicas": 2}}


def test_what_somebody_else_changed_meanwhile_stays(
        engine: Busy, client: docker.DockerClient) -> None:
    with nodes.elsewhere(client, "app", "n1"):
        template(engine)["ContainerSpec"] = {"Image": "app:2"}
        template(engine)["Placement"]["Constraints"].append("node.role==worker")
    assert template(engine) == {"ContainerSpec": {"Image": "app:2"}, "Placement": {
        "MaxReplicas": 2, "Constraints": ["node.role==worker"]}}


def test_a_node_that_was_left_forbidden_is_allowed_again(
        engine: Busy, client: docker.DockerClient) -> None:
    template(engine)["Placement"]["Constraints"] = ["node.id!=n2", FORBIDDEN]
    assert [nodes.allow(client, "app", "n1") for _ in range(2)] == [True, False]
    assert template(engine)["Placement"]["Constraints"] == ["node.id!=n2"]


def test_a_change_is_tried_again_if_somebody_else_was_quicker(
        engine: Busy, client: docker.DockerClient) -> None:
    engine.refusals = 2
    assert nodes.constrain(client, "app", lambda before: [*before, FORBIDDEN])
    assert template(engine)["Placement"]["Constraints"] == [FORBIDDEN]


def test_a_change_is_not_tried_for_ever(engine: Busy, client: docker.DockerClient) -> None:
    engine.refusals = 100
    assert error_of(lambda: nodes.constrain(client, "app", lambda before: [FORBIDDEN]),
                    OperatorError) == "app was changed again and again meanwhile: ./fab status"


def test_a_change_that_is_refused_for_another_reason_is_an_error(
        engine: Busy, client: docker.DockerClient) -> None:
    engine.refusals, engine.why = 1, "the Swarm has no leader"
    with pytest.raises(requests.HTTPError):
        nodes.constrain(client, "app", lambda before: [FORBIDDEN])
