"""A deploy, successful or not, of a site with visitors.

Tests that also work on several machines are in tests/e2e/swarm.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import migrations, verdict
from tests.e2e.background import repeating
from tests.e2e.faults import said_cause
from tests.e2e.site import Page, Site, lines
from tests.lab import Machine, host

pytestmark = pytest.mark.lab


@contextmanager
def visitors(site: Site, address: str) -> Iterator[list[str]]:
    """Open the page 20 times a second during the block; the list collects the failures."""
    failures: list[str] = []

    def visit() -> None:
        try:
            site.visit(address)
        except (OSError, AssertionError) as error:
            failures.append(f"{time.time():.1f} {error!r}")

    with repeating(visit, pause=0.05):
        yield failures


def test_a_changed_template_is_a_new_build_and_keeps_the_visits(edited: Site, address: str) -> None:
    before, version = edited.visit(address), edited.version()
    kept = edited.tasks("postgres") | edited.tasks("traefik")
    edited.replace("app/templates/base.html", "</main>", "<p>A new line</p></main>")
    with visitors(edited, address) as failures:
        done = edited.fab("deploy --probe-budget 0")
    assert done.code == 0, done.stdout + done.stderr
    assert failures == []
    assert re.search(r"  probe +[0-9]{2,} requests, 0 failed, p50 ", done.stdout)
    assert edited.version().startswith(f"{version}.dirty.")
    assert "<p>A new line</p>" in edited.ask("/", source=address).text
    assert edited.visit(address).visits > before.visits + 10
    assert edited.tasks("postgres") | edited.tasks("traefik") == kept


def test_a_rollback_restores_the_previous_release(site: Site, address: str) -> None:
    assert ".dirty." in site.version()
    before = site.visit(address)
    with visitors(site, address) as failures:
        done = site.fab("rollback")
    assert done.code == 0, done.stdout + done.stderr
    assert failures == []
    assert ".dirty." not in site.version()
    assert site.visit(address).visits > before.visits


def test_releases_are_recorded_and_can_be_named(site: Site) -> None:
    listed = [line.split()[0] for line in site.fab("releases").stdout.splitlines()[1:]]
    assert len(listed) == 3 and listed[0] == listed[2] == site.version()
    refused = site.fab("rollback --to 9.9.9+9")
    assert (refused.code, lines(refused)) == (
        1, ["no release 9.9.9+9 is recorded: ./fab releases"])
    assert site.fab(f"rollback --to {listed[1]}").code == 0
    assert site.version() == listed[1]
    assert site.fab("rollback").code == 0
    assert site.version() == listed[0]


def test_lock_release_frees_somebody_elses_lock(site: Site) -> None:
    assert site.fab("lock.status").stdout == "free\n"
    site.sh("docker config create --label who=nobody --label since=1 --label expires=9999999999 "
            "tally-lock /etc/hostname")
    held = site.fab("deploy")
    assert held.code == 7
    assert "nobody has held the lock since 1970-01-01 00:00:01 UTC" in held.stderr
    assert site.fab("lock.release").code == 1
    assert site.fab("lock.release --yes").stdout.startswith("released the lock of nobody")
    assert site.fab("deploy").code == 0


def test_a_failing_migration_leaves_the_application_untouched(
        edited: Site, machine: Machine) -> None:
    version, tasks, before = edited.version(), edited.tasks(), verdict.definitions(machine)
    head = edited.query(migrations.HEAD)
    bad = migrations.step("9999", head, "SELECT * FROM a_table_that_is_not_there")
    edited.sh(f"cat > migrations/versions/9999_bad.py <<'END'\n{bad}END")
    done = edited.fab("deploy --json")
    assert "the running release is untouched" in said_cause(done, 3)
    assert "a_table_that_is_not_there" in done.stderr
    verdict.check_true(done, machine, [edited], before, version)
    assert edited.tasks() == tasks
    assert edited.query(migrations.HEAD) == head
    assert (edited.query(verdict.MIGRATING), edited.query(verdict.LOCKS)) == ("0", "0")
    assert "tally_migrate" not in edited.sh("docker service ls")


def test_an_application_that_is_never_healthy_is_rolled_back(
        edited: Site, machine: Machine, address: str) -> None:
    version, before = edited.version(), verdict.definitions(machine)
    edited.replace("stack/images/app/probe", "127.0.0.1/8000", "127.0.0.1/8001")
    # Otherwise Swarm would wait a minute.
    edited.replace("Dockerfile", "--start-period=60s", "--start-period=10s")
    with visitors(edited, address) as failures:
        done = edited.fab("deploy --json")
    said = said_cause(done, 4)
    assert "unhealthy" in said and f"{version} is restored and proven" in said
    assert failures == []
    verdict.check_true(done, machine, [edited], before, version)
    assert edited.fab("status").code == 0


def test_the_next_deploy_completes_one_that_was_killed(edited: Site, address: str) -> None:
    edited.replace("app/templates/base.html", "</main>", "<p>Killed once</p></main>")
    with visitors(edited, address) as failures:
        edited.shell("cd tally && (./fab deploy > /tmp/killed.log 2>&1 &) && "
                     "until grep -q 'update .*replacing' /tmp/killed.log; do sleep 0.1; done; "
                     "sleep 2; pkill --signal KILL --full 'fabfile[.]py deploy'", 120)
        held = edited.fab("deploy")
        assert held.code == 7, held.stdout + held.stderr
        assert "has held the lock since" in lines(held)[-1]
        assert edited.fab("lock.status").stdout.startswith("root@newcomer (pid ")
        # Otherwise it would expire after 45 s.
        edited.fab("lock.release --yes")
        done = edited.fab("deploy")
    assert done.code == 0, done.stdout + done.stderr
    assert "<p>Killed once</p>" in edited.ask("/").text
    assert failures == []


def test_the_page_is_503_without_its_database_and_recovers(site: Site, address: str) -> None:
    before, tasks = site.visit(address), site.tasks("app")
    site.sh("docker service scale --detach tally_postgres=0")
    host.wait_until(lambda: site.ask("/", method="HEAD").status == 503, 60, "end of the database")
    gone = site.ask("/", source=address)
    assert gone.status == 503 and "retry-after" in gone.headers
    assert site.ask("/healthz").status == 200
    assert site.ask("/readyz").status == 503
    time.sleep(10)
    assert site.tasks("app") == tasks
    site.sh("docker service scale --detach tally_postgres=1")
    after = site.visit_when_up(address, seconds=30)
    assert after == Page(before.visits + 1, before.visitors)
    assert site.tasks("app") == tasks
    assert site.fab("deploy").code == 0


def test_a_deploy_over_its_probe_budget_is_rolled_back(edited: Site) -> None:
    version = edited.version()
    # A task that stops at once still gets requests until Traefik has noticed.
    edited.replace("docker-stack.yml", 'DRAIN_SECONDS: "4"', 'DRAIN_SECONDS: "0"')
    edited.replace("stack/images/traefik/traefik.yml", "refreshSeconds: 1", "refreshSeconds: 2")
    done = edited.fab("deploy --probe-budget 0 --json")
    failed = verdict.report(done)["probe"]["failures"]
    assert said_cause(done, 4).startswith(
        f"the update failed: {failed} requests failed, the budget was 0")
    assert verdict.report(done)["restore_probe"]["requests"] > 0
    assert edited.version() == version
    listed = edited.fab("releases").stdout.splitlines()[1]
    assert f" {failed} of {verdict.report(done)['probe']['requests']} " in listed


def test_a_page_that_cannot_be_rendered_is_rolled_back(edited: Site, address: str) -> None:
    version = edited.version()
    edited.replace("app/templates/page.html", "{{ chart }}", "{{ chart.nothing.at_all }}")
    done = edited.fab("deploy")
    assert done.code == 4, done.stdout + done.stderr
    assert "serves /version at 127.0.0.1:80, but not the page" in lines(done)[-1]
    assert edited.version() == version
    assert edited.visit(address).visits >= 1
