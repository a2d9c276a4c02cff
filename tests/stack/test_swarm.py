"""A machine that can't manage the stack is refused with what to do."""

import pytest

from stack.swarm import Membership, check_membership
from tests.stack.failing import error_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("found", [
    Membership("inactive", manager=False, error=""),
    Membership("active", manager=True, error="")])
def test_a_manager_and_a_lone_machine_are_taken(found: Membership) -> None:
    check_membership(found)


def test_a_worker_is_refused() -> None:
    assert error_of(lambda: check_membership(Membership("active", False, ""))) == (
        "this machine is a worker in a Swarm that another machine manages: "
        "run ./fab there, or first leave it with: docker swarm leave")


@pytest.mark.parametrize(("found", "line"), [
    (Membership("locked", False, ""), "this machine's Swarm is locked (no reason given)"),
    (Membership("pending", False, "no peers"), "this machine's Swarm is pending (no peers)"),
    (Membership("error", False, "bad certificate"),
     "this machine's Swarm is error (bad certificate)"),
    (Membership("active", True, "no leader"), "this machine's Swarm is active (no leader)")])
def test_a_swarm_in_trouble_is_refused_with_its_reason(found: Membership, line: str) -> None:
    assert error_of(lambda: check_membership(found)) == f"{line}: see: docker info"
