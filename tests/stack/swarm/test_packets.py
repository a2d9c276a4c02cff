"""The overlay networks send packets that the network between the machines takes."""

from dataclasses import replace
from typing import Any

import pytest

from stack.errors import Refused
from stack.swarm import packets
from stack.swarm.fleet import Member
from stack.swarm.names import NAMESPACE
from stack.swarm.networks import MTU_OPTION
from tests.stack.bootstrap.test_networks import Elsewhere, fleet
from tests.support.engine_api import FakeEngine, reached
from tests.support.failing import error_of
from tests.support.targets import HERE

pytestmark = pytest.mark.unit


def pair(private: str) -> list[Member]:
    """Return two machines on a network of 1450 bytes, or 1300 behind its router."""
    return [replace(member, machine=Elsewhere()) for member in fleet("192.0.2.1", private)]


def engine_with(*options: dict[str, str] | None) -> FakeEngine:
    """Return an engine with the stack's networks, and one of somebody else's."""
    fake = FakeEngine()
    networks: list[dict[str, Any]] = [
        {"Id": f"n{number}", "Name": f"tally_{number}", "Options": each,
         "Labels": {NAMESPACE: "tally"}} for number, each in enumerate(options)]
    fake.kinds["networks"] = {each["Id"]: each for each in networks}
    fake.kinds["networks"]["ingress"] = {"Id": "ingress", "Name": "ingress", "Options": {}}
    return fake


def mtu(fake: FakeEngine, members: list[Member]) -> int:
    with reached(fake) as engine:
        return packets.overlay_mtu(engine, members)


@pytest.mark.parametrize(("private", "expected"), [
    ("192.0.2.2", 1400), ("198.51.100.7", 1250)])
def test_new_networks_leave_room_for_their_headers(private: str, expected: int) -> None:
    assert mtu(engine_with(), pair(private)) == expected


def test_one_machine_has_dockers_usual_size() -> None:
    assert mtu(engine_with(), [HERE]) == packets.USUAL == 1450


def test_networks_that_exist_keep_their_size() -> None:
    assert mtu(engine_with(None, {}), [HERE]) == 1450
    assert mtu(engine_with({MTU_OPTION: "1200"}), pair("192.0.2.2")) == 1200


@pytest.mark.parametrize("options", [None, {}, {MTU_OPTION: "1450"}])
def test_networks_whose_packets_are_too_large_are_refused(options: dict[str, str] | None) -> None:
    assert error_of(lambda: mtu(engine_with(options), pair("192.0.2.2")), Refused) == (
        "tally_0 sends packets of 1450 bytes, and the network between the machines takes 1450, "
        "50 of them for headers: large answers would never arrive: "
        "./fab destroy, which keeps the data, then ./fab deploy")
