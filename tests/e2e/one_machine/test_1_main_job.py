"""The main job: from a plain machine to a counted visit, and what is true afterwards."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from stack.images.version import read_base
from stack.inventory.settings import ROOT
from tests.e2e.site import Page, Site
from tests.lab import Machine, host

pytestmark = pytest.mark.lab

SERVICES = {"tally_app.1", "tally_app.2", "tally_postgres.1", "tally_socket-proxy", "tally_traefik"}


def test_a_visitor_is_counted_and_another_address_is_another_visitor(
        site: Site, take: partial[str]) -> None:
    one, other = take(), take()
    first, second, third = site.visit(one), site.visit(one), site.visit(other)
    assert (first.visits, second.visits, third.visits) == (1, 2, 1)
    assert third.visitors == first.visitors + 1 == second.visitors + 1


def test_the_version_is_version_txt_and_the_number_of_commits(site: Site) -> None:
    commits = site.sh("git rev-list --count HEAD").strip()
    commit = site.sh("git rev-parse HEAD").strip()
    assert json.loads(site.ask("/version").text) == {
        "version": f"{read_base(ROOT / 'version.txt')}+{commits}", "commit": commit}


def test_a_second_run_says_unchanged_and_restarts_nothing(site: Site) -> None:
    before, began = site.tasks(), time.monotonic()
    done = site.fab("bootstrap deploy")
    assert done.code == 0, done.stderr
    assert time.monotonic() - began < 15
    outcomes = {line[2:16].strip(): line[17:].split()[0] for line in done.stdout.splitlines()
                if line.startswith("  ") and not line.startswith(("  preflight", "  verdict"))}
    assert set(outcomes.values()) == {"unchanged"}, done.stdout
    assert {"docker", "base image", "images", "schema", "app", "traefik"} <= outcomes.keys()
    assert site.tasks() == before


def test_stack_ps_shows_one_running_task_per_replica_and_no_failure(site: Site) -> None:
    rows = [line.split("|") for line in site.sh(
        "docker stack ps tally --format '{{.Name}}|{{.DesiredState}}|{{.CurrentState}}|{{.Error}}'"
    ).splitlines()]
    assert {row[0].split(".")[0] if row[0].count(".") and len(row[0]) > 30 else row[0]
            for row in rows} == SERVICES
    # When two tasks on new networks start at once, Docker itself may fail to start one.
    ours = [row for row in rows if not row[3].strip('"').startswith("starting container failed")]
    assert len(ours) == len(SERVICES), rows
    assert all(row[1] == "Running" and row[2].startswith("Running") and not row[3]
               for row in ours), rows


def test_status_shows_the_version_and_that_all_is_well(site: Site) -> None:
    done = site.fab("status")
    assert done.code == 0, done.stderr
    assert f"serving  {site.version()}" in done.stdout
    assert "app           2/2" in done.stdout


def test_600_first_visits_at_once_are_all_counted(site: Site, address: str,
                                                  take: partial[str]) -> None:
    crowd = [take() for _ in range(100)]
    before = int(site.query("SELECT count(*) FROM visitors"))
    sources = [address] * 300 + crowd * 3
    with ThreadPoolExecutor(60) as pool:
        pages = list(pool.map(site.visit, sources))
    assert sorted(page.visits for page in pages[:300]) == list(range(1, 301))
    assert sorted(page.visits for page in pages[300:]) == sorted([1, 2, 3] * 100)
    rows = int(site.query("SELECT count(*) FROM visitors"))
    assert rows == before + 101
    assert site.visit(address) == Page(301, rows)
    assert int(site.query("SELECT sum(visits) FROM visitors")) >= 601


def test_a_forged_address_changes_nothing(site: Site, address: str) -> None:
    site.visit(address)
    for number, name in enumerate(("X-Forwarded-For", "X_Forwarded_For", "X-Real-Ip", "Forwarded")):
        page = site.visit(address, headers={name: "for=203.0.113.9" if name == "Forwarded"
                                            else "203.0.113.9"})
        assert page.visits == number + 2


def test_head_requests_and_health_checks_are_not_counted(site: Site, address: str) -> None:
    before = site.visit(address)
    for path, method in (("/", "HEAD"), ("/healthz", "GET"), ("/readyz", "GET"),
                         ("/version", "GET")):
        assert site.ask(path, source=address, method=method).status == 200
    assert site.ask("/", source=address, method="POST").status == 405
    assert site.visit(address) == Page(before.visits + 1, before.visitors)


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/./metrics", "/metrics/",
                                  "/metrics?x=1", "/METRICS"])
def test_metrics_are_not_reachable_from_outside(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status in {301, 302, 308, 404}
    assert "python_info" not in answer.text and "http_request" not in answer.text


@pytest.mark.alone
def test_everything_is_back_within_a_minute_after_a_reboot(site: Site, machine: Machine,
                                                           address: str) -> None:
    before = site.visit(address)
    machine.reboot()
    began = time.monotonic()
    after = site.visit_when_up(address, seconds=60)
    assert time.monotonic() - began < 60
    assert after == Page(before.visits + 1, before.visitors)
    host.wait_until(lambda: site.fab("status").code == 0, 60, "all well")
