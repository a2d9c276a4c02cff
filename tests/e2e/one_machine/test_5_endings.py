"""The stack is destroyed and deployed again."""

from collections.abc import Iterator

import pytest

from tests.e2e import migrations, verdict
from tests.e2e.faults import said_cause
from tests.e2e.site import Page, Site, changes, lines
from tests.lab import Machine, Result

pytestmark = pytest.mark.lab


def left(site: Site) -> str:
    """List what is left of the stack, including containers and networks.

    The record of the data's schema stays with the data.
    """
    return site.sh("docker service ls --quiet; docker ps --all --quiet; "
                   "docker network ls --quiet --filter name=tally_; "
                   "docker config ls --format '{{.Name}}' | sed '/^tally-schema-/d'")


def test_destroy_keeps_the_data_and_the_next_deploy_continues_counting(
        site: Site, address: str) -> None:
    assert site.fab("deploy").code == 0
    before = site.visit(address)
    gone = site.fab("destroy --yes")
    assert gone.code == 0, gone.stderr
    assert left(site) == ""
    again = site.fab("destroy --yes")
    assert again.code == 0 and "removed" not in again.stdout
    done = site.fab("deploy")
    assert done.code == 0, done.stderr
    assert site.visit(address) == Page(before.visits + 1, before.visitors)


def test_a_lost_secret_is_refused_then_remade_and_no_visit_is_lost(
        site: Site, address: str) -> None:
    before = site.visit(address)
    site.fab("destroy --yes")
    site.sh("docker secret rm $(docker secret ls --quiet --filter label=tally.secret=app-password)")
    refused = site.fab("deploy")
    assert refused.code == 1 and left(site) == ""
    assert lines(refused) == ["the secret app-password is missing in the Swarm: "
                              "./fab bootstrap makes it"]
    done = site.fab("bootstrap deploy")
    assert done.code == 0, done.stderr
    assert "made app-password" in done.stdout
    assert site.visit(address) == Page(before.visits + 1, before.visitors)


def test_a_lost_volume_is_refused_instead_of_starting_empty(site: Site) -> None:
    site.sh("docker service rm tally_postgres && "
            "until docker volume rm tally_postgres-data; do sleep 1; done")
    for command in ("deploy", "bootstrap deploy"):
        refused = site.fab(command)
        assert refused.code == 1, refused.stdout
        assert lines(refused)[-1].startswith(
            "the volume tally_postgres-data is gone, and with it all visits: restore it")


def test_destroy_with_data_starts_from_zero(site: Site, address: str) -> None:
    gone = site.fab("destroy --data --yes")
    assert gone.code == 0, gone.stderr
    assert left(site) == ""
    assert site.sh("docker volume ls --quiet; docker secret ls --quiet; "
                   "docker config ls --quiet") == ""
    done = site.fab("bootstrap deploy")
    assert done.code == 0, done.stderr
    assert site.visit(address) == Page(1, 1)


def migrate(site: Site, head: str, name: str, sql: str, contracts: str = "") -> None:
    """Add a migration to the clone."""
    text = migrations.step(name, head, sql, contracts=contracts)
    site.sh(f"cat > migrations/versions/{name}.py <<'END'\n{text}END")


def well(done: Result) -> str:
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def test_a_rollback_passes_an_added_table_but_not_a_dropped_one(
        edited: Site, machine: Machine, address: str) -> None:
    first = edited.version()
    migrate(edited, edited.query(migrations.HEAD), "adds", "CREATE TABLE remarks (said text)")
    well(edited.fab("deploy"))
    second = edited.version()
    said = well(edited.fab("rollback"))
    assert "the schema stays at adds, ahead of it by 1; no migration is marked as breaking" in said
    assert edited.version() == first
    visits = edited.visit(address).visits

    migrate(edited, "adds", "drops", "DROP TABLE remarks", contracts="it reads the table remarks")
    early = edited.fab("deploy --json")
    assert said_cause(early, 1) == (
        f"migration drops removes what {first} may need (it reads the table remarks): "
        "first deploy a release whose last migration is adds")
    well(edited.fab(f"rollback --to {second}"))
    well(edited.fab("deploy"))
    third, before = edited.version(), verdict.definitions(machine)

    late = edited.fab("rollback --json")
    assert said_cause(late, 1) == (
        f"{second} can't run on the current schema: migration drops breaks it (it reads the table "
        "remarks): fix it with a new release, or choose a newer one: ./fab releases")
    verdict.check_true(late, machine, [edited], before, third)
    assert edited.query(migrations.HEAD) == "drops"
    assert edited.visit(address).visits == visits + 1


def test_a_failed_first_deploy_says_so_and_the_next_succeeds(
        edited: Site, machine: Machine, address: str) -> None:
    edited.fab("destroy --data --yes")
    edited.replace("stack/images/app/serve", "--ini uwsgi.ini", "--ini nothing.ini")
    ready = edited.fab("bootstrap")
    assert ready.code == 0, ready.stdout + ready.stderr
    failed = edited.fab("deploy --json")
    assert "there is no earlier release to restore" in said_cause(failed, 5)
    assert "nothing.ini" in failed.stderr
    check_left_as_it_failed(failed, machine)
    edited.restore_files()
    done = edited.fab("deploy")
    assert done.code == 0, done.stderr
    assert edited.visit(address) == Page(1, 1)


def check_left_as_it_failed(failed: Result, machine: Machine) -> None:
    """Check that Docker agrees with the report: the failed release, and no other."""
    said = verdict.report(failed)
    assert said["previous"] is None
    image = verdict.definitions(machine)["tally_app"]["TaskTemplate"]["ContainerSpec"]["Image"]
    assert image.rpartition(":")[2] == said["version"].replace("+", "-")
    running = {name for name, task in verdict.tasks(machine)
               if task["Status"]["State"] == "running"}
    assert "tally_postgres" in running and "tally_app" not in running
    assert machine.console("docker config ls --quiet --filter label=tally.release").stdout == ""


# Does what Docker sometimes does when it stops (moby/libnetwork#1765). The interface usually goes
# with the namespace that it was moved to, which the next start removes.
LOSE = """
umount /run/docker/netns/* && rm /run/docker/netns/*
until ip -oneline link show type vxlan | grep --only-matching 'vx-{number:06x}-[0-9a-z]*'; do
    ip link add vx-{number:06x}-abcde type vxlan id {number} dstport 4789 || sleep 0.2
done
"""


def lose_interface(site: Site, machine: Machine) -> str:
    """Stop Docker and make it lose the interface of the network edge; return its name."""
    number = int(site.sh("docker network inspect tally_edge --format "
                         "'{{index .Options \"com.docker.network.driver.overlay.vxlanid_list\"}}'"))
    site.sh("systemctl stop docker.socket docker.service")
    return machine.run(LOSE.format(number=number), timeout=30).stdout.strip()


@pytest.fixture
def strangers(machine: Machine) -> Iterator[None]:
    """An interface that isn't Docker's; it has to survive the test."""
    machine.run("ip link add vxlan7 type vxlan id 7 dstport 4790")
    yield
    machine.run("ip link delete vxlan7")


@pytest.mark.usefixtures("strangers")
def test_bootstrap_restarts_docker_and_removes_its_stale_interfaces(
        site: Site, machine: Machine, address: str) -> None:
    before = site.visit(address)
    name = lose_interface(site, machine)
    refused = site.fab("deploy")
    assert refused.code == 1
    assert "./fab bootstrap" in lines(refused)[-1]
    done = site.fab("bootstrap")
    assert done.code == 0, done.stderr
    assert "started" in done.stdout
    assert site.visit_when_up(address, 60) == Page(before.visits + 1, before.visitors)
    assert f"removing {name}, which" in machine.run(
        "journalctl --unit=tally-overlay --output=cat").stdout


def test_bootstrap_repairs_tally_overlay(
        site: Site, machine: Machine) -> None:
    for fault in ("echo >> /usr/local/sbin/tally-overlay", "systemctl disable tally-overlay",
                  "systemctl stop tally-overlay",
                  "chmod -x /usr/local/sbin/tally-overlay; systemctl restart tally-overlay"):
        machine.run(fault)
        done = site.fab("bootstrap")
        assert done.code == 0, done.stderr
        assert "now removes stale interfaces" in done.stdout, fault
    again = site.fab("bootstrap")
    assert (again.code, changes(again)) == (0, [])
    assert machine.run("systemctl is-active tally-overlay").stdout == "active\n"
