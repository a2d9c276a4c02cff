"""A deploy whose laptop dies or loses contact: no visitor notices, the next deploy completes it."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.e2e.cluster import on_all
from tests.e2e.faults import Scene, well
from tests.e2e.killing import ANEW, killed_at_every_step
from tests.lab import Machine, Result, host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("restored")]

# Packets are dropped silently, as by a lost network.
NO_SSH = """
nft 'table inet cut { chain arriving {
    type filter hook input priority -10; tcp dport 22 drop; }; }'
"""
END_SESSIONS = "pkill --signal KILL --full '[s]shd-session: deploy'"
# Seconds after which a lock expires without its holder.
LOCKED_FOR = 45
STEPS = ["machines", "preflight", "images …", "images", "schema …", "schema", "update …",
         "update", "verdict", "probe"]
SERVICES = ["app", "postgres", "socket-proxy", "traefik"]
# Missing if Swarm had already completed the earlier run's update, or continued it by itself.
OPTIONAL = {"waiting …", ANEW}


def test_a_deploy_killed_at_every_step_ends_proven_and_unnoticed(scene: Scene) -> None:
    scene.change_page("Killed at every step")
    serving = scene.serving()

    with scene.visited():
        steps = killed_at_every_step(scene.laptop, "deploy", awaited_locks=1)

    told = [step for step in steps if step not in OPTIONAL]
    assert told[:len(STEPS)] == STEPS
    # In the file's order if the release was already recorded.
    assert sorted(told[len(STEPS):]) == SERVICES
    assert all("Killed at every step" in site.ask().text for site in scene.edges)
    well(scene.fab("plan --exit-code"))
    serving.check(well(scene.fab("deploy --json")))
    well(scene.fab("status"))


def test_the_next_deploy_completes_one_that_lost_every_machine(
        scene: Scene) -> None:
    scene.change_page("Cut off from all")
    serving = scene.serving()

    with scene.visited(), scene.laptop.watching("deploy") as run:
        assert run.read_until(lambda line: line.startswith("  waiting")), run.printed
        cut = time.monotonic()
        with no_ssh(scene.machines):
            code = run.end(timeout=120)
            ended = time.monotonic() - cut
        # Its lock expires by itself.
        host.wait_until(lambda: scene.fab("lock.status").stdout == "free\n", LOCKED_FOR, "the lock")
        done = well(scene.fab("deploy --json"))

    assert (code, run.printed[-1]) == (
        5, "lost contact with the Swarm during the update; it continues on its own if it can: "
        "./fab status when it answers, then ./fab deploy")
    assert ended < 60
    serving.check(done)
    assert all("Cut off from all" in site.ask().text for site in scene.edges)


@contextmanager
def no_ssh(machines: Sequence[Machine]) -> Iterator[None]:
    """Block SSH to the machines, and nothing else."""
    on_all(machines, NO_SSH)
    try:
        yield
    finally:
        on_all(machines, "nft delete table inet cut")


def test_another_manager_replaces_one_whose_connection_breaks(scene: Scene) -> None:
    scene.change_page("Cut off from one")
    serving = scene.serving()

    with scene.visited(), scene.laptop.watching("deploy", "--json") as run:
        assert run.read_until(lambda line: line.startswith("  waiting")), run.printed
        scene.holder.console(END_SESSIONS)
        code = run.end(timeout=120)

    assert code == 0, run.printed
    assert not [line for line in run.printed if re.match("Traceback|Exception", line)], run.printed
    serving.check(Result(run.printed[-1], "", code))
    assert all("Cut off from one" in site.ask().text for site in scene.edges)
