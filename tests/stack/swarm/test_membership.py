"""A machine that can't manage the stack is refused, with the next command."""

from pathlib import Path

import pytest

from stack.machines.local import LocalMachine
from stack.swarm.membership import LOOPBACK, Membership, check_membership
from stack.swarm.volume import has_volume, prepare_volume
from tests.stack.conftest import AddCommand
from tests.support.failing import error_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("found", [
    Membership("inactive", manager=False, error=""),
    Membership("active", manager=True, error="")])
def test_a_manager_and_a_lone_machine_are_accepted(found: Membership) -> None:
    check_membership(found)


def test_another_machine_is_called_by_its_name() -> None:
    assert error_of(lambda: check_membership(Membership("locked"), "192.0.2.11")) \
        == "the Swarm of 192.0.2.11 is locked (no reason given): see: docker info"


def test_a_worker_is_refused() -> None:
    assert error_of(lambda: check_membership(Membership("active", False, ""))) == (
        "this machine is a worker in a Swarm that another machine manages: "
        "run ./fab there, or first leave it with: docker swarm leave")


@pytest.mark.parametrize(("found", "line"), [
    (Membership("locked", False, ""), "the Swarm of this machine is locked (no reason given)"),
    (Membership("pending", False, "no peers"), "the Swarm of this machine is pending (no peers)"),
    (Membership("error", False, "bad certificate"),
     "the Swarm of this machine is error (bad certificate)"),
    (Membership("active", True, "no leader"), "the Swarm of this machine is active (no leader)")])
def test_a_swarm_in_trouble_is_refused_with_its_reason(found: Membership, line: str) -> None:
    assert error_of(lambda: check_membership(found)) == f"{line}: see: docker info"


def test_a_swarm_without_a_majority_is_refused_with_the_remedy() -> None:
    docker_says = ("rpc error: code = Unknown desc = The swarm does not have a leader. It's "
                   "possible that too few managers are online.")
    assert error_of(lambda: check_membership(Membership("active", True, docker_says))) == (
        "the Swarm has no leader: quorum is lost, or an election is under way: "
        "bring a majority back online, then the same command again")


# As Docker 20.10 and 26.1 answer.
ALONE = {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False,
         "Error": "", "RemoteManagers": None}
MANAGER = {"NodeID": "n1", "NodeAddr": "192.0.2.11", "LocalNodeState": "active",
           "ControlAvailable": True, "Error": "",
           "RemoteManagers": [{"NodeID": "n1", "Addr": "192.0.2.11:2377"},
                              {"NodeID": "n2", "Addr": "[2001:db8::2]:2377"}],
           "Nodes": 3, "Managers": 2, "Cluster": {"ID": "c1", "Spec": {"Name": "default"}}}
WORKER = {**MANAGER, "NodeID": "n3", "NodeAddr": LOOPBACK, "ControlAvailable": False,
          "Cluster": None}


def test_a_machine_in_no_swarm_is_not_a_member() -> None:
    assert Membership.read(ALONE) == Membership()
    assert not Membership.read(ALONE).member


def test_a_manager_knows_its_swarm() -> None:
    found = Membership.read(MANAGER)
    assert found == Membership("active", True, "", "n1", "192.0.2.11", "c1")
    assert found.member


def test_a_worker_doesnt_know_its_swarm() -> None:
    assert Membership.read(WORKER) == Membership("active", False, "", "n3", LOOPBACK, "")


def test_a_joining_machine_is_a_member() -> None:
    assert Membership.read({**ALONE, "LocalNodeState": "pending"}).member


@pytest.fixture
def volume(add_command: AddCommand, tmp_path: Path) -> Path:
    """The data volume's folder; the docker command has no engine."""
    folder = tmp_path / "volume"
    folder.mkdir(mode=0o755)
    add_command("docker", f'echo "$*" >> {tmp_path}/said',
                f'[ "$2" != inspect ] || echo {folder}')
    add_command("chown", f'echo "chown $*" >> {tmp_path}/said')
    return folder


def test_an_empty_volume_is_marked_once_for_its_owner(
        machine: LocalMachine, volume: Path, tmp_path: Path) -> None:
    assert prepare_volume(machine)
    assert [path.name for path in volume.iterdir()] == ["initdb-allowed"]
    assert volume.stat().st_mode & 0o777 == 0o700
    said = (tmp_path / "said").read_text().splitlines()
    assert (said[0], said[-1]) == (
        "volume create tally_postgres-data", "chown 10070:10070 . initdb-allowed")
    assert not prepare_volume(machine)


def test_a_volume_with_a_database_is_never_marked(machine: LocalMachine, volume: Path) -> None:
    (volume / "17").mkdir()
    (volume / "17" / "PG_VERSION").write_text("17\n")
    assert not prepare_volume(machine)
    assert [path.name for path in volume.iterdir()] == ["17"]


@pytest.mark.parametrize(("code", "there"), [(0, True), (1, False)])
def test_a_volume_exists_if_docker_lists_it(
        machine: LocalMachine, add_command: AddCommand, code: int, there: bool) -> None:
    add_command("docker", f'[ "$*" = "volume inspect tally_postgres-data" ] && exit {code}')
    assert has_volume(machine) is there
