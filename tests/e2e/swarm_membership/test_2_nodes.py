"""The site stays up when nodes are added, drained, removed and lost."""

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from tests.e2e import crowd
from tests.e2e.cluster import entry, on_all
from tests.e2e.faults import Scene
from tests.e2e.laptop import Laptop
from tests.e2e.site import Site, lines
from tests.lab import Lab, Machine, Result, host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

log = logging.getLogger(__name__)

NODES = "docker node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'"
PLACES = "docker service ps tally_app --filter desired-state=running --format {{.Node}}"
# Including stopping tasks.
STATES = "docker service ps tally_app --format {{.CurrentState}}"
CONTAINERS = "docker ps --quiet --filter label=com.docker.swarm.service.name=tally_app"


@pytest.fixture(scope="module")
def five(laptop: Laptop, swarm: list[Machine], spare: list[Machine]) -> Iterator[list[Machine]]:
    """Three managers and two workers; one worker has to remain at the end."""
    laptop.choose([*(entry(machine) for machine in swarm),
                   *(entry(machine, "worker") for machine in spare)])
    well(laptop.fab("bootstrap --accept-new-host-keys"))
    yield [*swarm, *spare]
    laptop.choose([entry(machine) for machine in swarm])


@pytest.fixture
def edges(laptop: Laptop, five: list[Machine]) -> list[Site]:
    """The site at each manager's address."""
    return [Site(machine.address, laptop.shell) for machine in five[:3]]


@pytest.fixture(scope="module")
def strangers(lab: Lab) -> Iterator[list[str]]:
    """Unused client addresses, five at a time."""
    addresses = iter(lab.client_addresses[100:])
    return iter(lambda: [next(addresses) for _ in range(5)], [])


@pytest.fixture
def asked(laptop: Laptop, five: list[Machine]) -> Iterator[Machine]:
    """The manager that commands use, which runs none of the application's two tasks."""
    asked = next(machine for machine in five[:3] if machine.name not in places(five[0]))
    workers = [entry(machine, "worker") for machine in five[3:]]
    # Commands use the inventory's first manager.
    laptop.choose([entry(asked), *(entry(machine) for machine in five[:3] if machine is not asked),
                   *workers], ssh=key_for_openssh(laptop))
    yield asked
    laptop.choose([*(entry(machine) for machine in five[:3]), *workers])


def key_for_openssh(laptop: Laptop) -> dict[str, str]:
    """Return the key's setting: unlike ./fab, OpenSSH ignores HOME when it looks for keys."""
    return {"key": str(laptop.home / ".ssh/id_ed25519")}


def well(done: Result) -> str:
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def places(machine: Machine) -> list[str]:
    """Return the nodes of the application's tasks."""
    return sorted(machine.console(PLACES).stdout.split())


def running(machine: Machine) -> int:
    """Return how many of the application's tasks run, including stopping ones."""
    states = machine.console(STATES).stdout.splitlines()
    return sum(state.startswith("Running") for state in states)


def test_a_command_finds_its_container_on_another_node(
        laptop: Laptop, five: list[Machine], asked: Machine) -> None:
    found = dict(zip([machine.name for machine in five], on_all(five, CONTAINERS)))
    assert found[asked.name] == ""

    # A container's hostname is the beginning of its ID.
    said = well(laptop.fab("exec app -- cat /etc/hostname"))
    assert said.strip() in "".join(found.values()).split()
    logged = well(laptop.fab("logs app"))
    assert [name for name in places(asked) if f"@{name} | " not in logged] == []
    # In the order in which Docker received them, which is roughly when they were written.
    times = [datetime.fromisoformat(time) for time in re.findall(r'\| {"time": "([^"]+)"', logged)]
    assert len(times) > 10
    assert all(later > earlier - timedelta(seconds=1) for earlier, later in pairwise(times))


def test_a_log_is_followed_on_every_node(
        laptop: Laptop, edges: list[Site], asked: Machine) -> None:
    unseen = set(places(asked))
    with laptop.watching("logs", "app", "--follow", "--lines", "1") as run:
        assert run.read_until(lambda line: line.startswith("app."))
        for site in edges * 4:
            assert site.ask("/not-there").status == 404
        # Each node appears in turn, or the test times out.
        assert run.read_until(lambda line: not discarded(unseen, line))


def discarded(unseen: set[str], line: str) -> set[str]:
    """Remove the node that logged a request for the missing page; return the rest."""
    if '"/not-there"' in line:
        unseen.discard(line.partition(" | ")[0].partition("@")[2])
    return unseen


def test_scaling_out_gives_every_node_a_task_and_fails_no_visit(
        laptop: Laptop, five: list[Machine], edges: list[Site],
        strangers: Iterator[list[str]]) -> None:
    with crowd.crowd(edges, next(strangers)) as visitors:
        well(laptop.fab("scale app=7"))

    crowd.check(visitors, least=200)
    assert len(places(five[0])) == running(five[0]) == 7
    assert set(places(five[0])) == {machine.name for machine in five}


def test_scaling_in_leaves_every_node_a_task_and_fails_no_visit(
        laptop: Laptop, five: list[Machine], edges: list[Site],
        strangers: Iterator[list[str]]) -> None:
    with crowd.crowd(edges, next(strangers)) as visitors:
        well(laptop.fab("scale app=5"))
        # Stopping tasks still serve for a while.
        host.wait_until(lambda: running(five[0]) == 5, 60, "end of the others")

    crowd.check(visitors, least=100)
    # Swarm removes tasks from the nodes with the most.
    assert places(five[0]) == sorted(machine.name for machine in five)


def test_a_deploy_keeps_the_scaled_number_of_tasks(
        laptop: Laptop, five: list[Machine]) -> None:
    well(laptop.fab("deploy"))

    assert len(places(five[0])) == 5
    assert "nothing to do" in well(laptop.fab("plan --exit-code"))


def test_a_plan_shows_manual_changes(
        laptop: Laptop, five: list[Machine]) -> None:
    five[0].console("docker service scale --detach tally_app=4")

    shown = laptop.fab("plan --exit-code")
    assert shown.code == 2, shown.stdout + shown.stderr
    assert "by hand" in shown.stdout and "5" in shown.stdout and "4" in shown.stdout

    well(laptop.fab("deploy"))
    assert len(places(five[0])) == 5


def test_draining_empties_a_node_and_fails_no_visit(
        laptop: Laptop, five: list[Machine], edges: list[Site],
        strangers: Iterator[list[str]]) -> None:
    anna, dora = five[0], five[3]
    assert dora.name in places(anna)

    with crowd.crowd(edges, next(strangers)) as visitors:
        well(laptop.fab(f"node.drain {dora.address}"))

    crowd.check(visitors, least=200)
    assert dora.name not in places(anna) and len(places(anna)) == 5
    assert dora.console("docker ps --quiet").stdout == ""
    assert "nothing to do" in well(laptop.fab("plan --exit-code"))
    well(laptop.fab(f"node.activate {dora.address}"))
    assert f"{dora.name} Ready Active" in anna.console(NODES).stdout


def test_a_removed_manager_leaves_nothing_behind(
        laptop: Laptop, five: list[Machine], edges: list[Site],
        strangers: Iterator[list[str]]) -> None:
    anna, emma = five[0], five[4]
    laptop.choose([entry(machine) for machine in five])
    well(laptop.fab("bootstrap"))
    assert f"{emma.name} Ready Active Reachable" in anna.console(NODES).stdout
    # Commands use the inventory's first manager, which this command demotes.
    laptop.choose([entry(machine) for machine in (emma, *five[:4])])

    with crowd.crowd(edges, next(strangers)) as visitors:
        well(laptop.fab(f"node.remove {emma.address}"))

    crowd.check(visitors, least=200)
    assert emma.name not in anna.console(NODES).stdout
    assert emma.console("docker info --format {{.Swarm.LocalNodeState}}").stdout == "inactive\n"
    for machine in five[:4]:
        assert emma.address not in machine.console("cat /etc/tally/peers").stdout
    laptop.choose([*(entry(machine) for machine in five[:3]), entry(five[3], "worker")])
    well(laptop.fab("bootstrap"))
    well(laptop.fab("status"))


@pytest.mark.parametrize("command", ["node.drain", "node.remove"])
def test_the_node_with_the_data_cannot_be_drained_or_removed(
        laptop: Laptop, five: list[Machine], command: str) -> None:
    done = laptop.fab(f"{command} {five[0].address}")

    assert done.code == 1
    assert lines(done)[-1].startswith(f"{five[0].name} holds the database, which can't move: ")
    assert f"{five[0].name} Ready Active" in five[0].console(NODES).stdout


def test_exec_ssh_and_logs_find_their_node(
        laptop: Laptop, five: list[Machine]) -> None:
    laptop.choose([*(entry(machine) for machine in five[:3]), entry(five[3], "worker")],
                  ssh=key_for_openssh(laptop))
    assert "postgres" in well(laptop.fab("exec postgres -- cat /proc/1/comm"))
    assert well(laptop.fab(f"ssh {five[1].address} -- hostname")) == f"{five[1].name}\n"
    assert "database system is ready" in well(laptop.fab("logs postgres"))


def test_a_deploy_survives_the_loss_of_a_worker(
        scene: Scene, five: list[Machine]) -> None:
    dora = five[3]
    assert dora.name in places(five[0])
    try:
        lost_in_the_middle(scene, dora, "Without a worker")
        assert len(places(five[0])) == 5 and dora.name not in places(five[0])
    finally:
        dora.boot()
    wait_well(scene.laptop, 180)


def test_the_swarm_survives_the_loss_of_its_leader(
        scene: Scene, five: list[Machine], strangers: Iterator[list[str]]) -> None:
    leader, laptop = elsewhere_led(scene.laptop, five), scene.laptop
    others = scene.edges_but(leader)
    try:
        lost_in_the_middle(scene, leader, "Without a leader")
        said = laptop.fab("status")
        assert said.code == 1 and f"{leader.address}: no " in said.stderr
        scene.change_page("Long without a leader")
        deployed = well(laptop.fab("deploy"))
        assert f"missing        {leader.address}: " in deployed
        with crowd.crowd(others, next(strangers)) as visitors:
            host.wait_until(lambda: sum(visitor.answered for visitor in visitors) >= 100, 60,
                            "a hundred visits")
        crowd.check(visitors, least=100)
        assert "Long without a leader" in others[0].ask("/").text
        assert len(places(five[0])) == 5 and leader.name not in places(five[0])
        refused = laptop.fab(f"node.remove {third(five, leader).address}")
        assert refused.code == 1 and "a majority must remain" in refused.stderr
    finally:
        leader.boot()
    wait_well(laptop, 180)


def lost_in_the_middle(scene: Scene, lost: Machine, line: str) -> None:
    """Cut a machine's power while a deploy replaces tasks; check the deploy's report.

    Requests to a task on that machine may fail, but are counted at most once.
    """
    left = replace(scene, edges=scene.edges_but(lost), lost=frozenset({lost.name}))
    scene.change_page(line)
    serving = left.serving()
    with left.visited(may_fail=True), scene.laptop.watching("deploy", "--json") as run:
        assert run.read_until(lambda line: line.startswith("  waiting")), run.printed
        lost.lose_power()
        code = run.end(timeout=400)
    log.info("%s lost its power in the middle: exit %d", lost.name, code)
    assert code in (0, 4), run.printed
    serving.check(Result(run.printed[-1], "", code))
    assert (line in left.edges[0].ask().text) == (code == 0)


def wait_well(laptop: Laptop, seconds: float) -> None:
    """Wait until ./fab status succeeds; fail with its last output."""
    deadline = time.monotonic() + seconds
    while (done := laptop.fab("status")).code != 0 and time.monotonic() < deadline:
        time.sleep(1)
    well(done)


def elsewhere_led(laptop: Laptop, five: list[Machine]) -> Machine:
    """Return the leader, after moving leadership away from the machine with the data."""
    anna, berta = five[:2]
    if led(berta) == anna.name:
        anna.console("systemctl restart docker")
        host.wait_until(lambda: led(berta) not in ("", anna.name), 60, "another leader")
        wait_well(laptop, 120)
    return next(machine for machine in five if machine.name == led(berta))


def led(manager: Machine) -> str:
    """Return the leader's name, according to a manager."""
    # There is none during an election.
    return next((line.split()[0] for line in manager.console(NODES, check=False).stdout.splitlines()
                 if "Leader" in line), "")


def third(five: list[Machine], leader: Machine) -> Machine:
    """Return the manager that is neither the leader nor the machine with the data."""
    return next(machine for machine in five[1:3] if machine is not leader)
