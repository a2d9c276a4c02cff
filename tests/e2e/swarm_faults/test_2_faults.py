"""Deploys that fail for a real cause: each names it, and the running release stays up."""

import json
import logging
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e import migrations, verdict
from tests.e2e.cluster import entry, nothing_changed, on_all
from tests.e2e.faults import POSTGRES, Sample, Scene, failures, said_cause, watching, well
from tests.e2e.laptop import Laptop, new_laptop, quickest
from tests.lab import Lab, Machine, Result, host

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900), pytest.mark.usefixtures("restored")]

log = logging.getLogger(__name__)

CONTAINERS = "docker ps --quiet --filter label=com.docker.swarm.service.name=tally_"
REGISTRY = "docker ps --quiet --filter label=com.docker.swarm.service.name=tally-registry_registry"
ASK_REGISTRY = "curl --silent --show-error --fail --cacert /etc/docker/certs.d/{address}/ca.crt " \
    "--header 'Accept: application/vnd.docker.distribution.manifest.v2+json' " \
    "--header \"Authorization: Basic $(sed -n 's/.*\"auth\": \"\\([^\"]*\\)\".*/\\1/p' " \
    "/etc/tally/docker/config.json)\""
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
RECORDS = "docker config ls --quiet --filter label=tally.release | " \
    "xargs docker config inspect --format '{{json .Spec.Data}}'"
IMAGES = "docker image ls --format '{{.Repository}}:{{.Tag}}'"
# Another server takes port 80 as soon as Traefik has released it.
TAKE_PORT = f"""
systemd-run --quiet --unit=squatter --property=Restart=always --property=RestartSec=100ms \
    --property=StartLimitIntervalSec=0 python3 -m http.server 80
docker kill $({CONTAINERS}traefik)
until ss --no-header --listening --tcp --processes 'sport = :80' | grep python3; do sleep 0.1; done
"""
NODES = "docker node ls --quiet"
EXPIRY = "docker config inspect tally-lock --format '{{.Spec.Labels.expires}}'"
# Seconds between two renewals of the lock, and a margin.
RENEWED = 12
# The server ends a while after Docker, and so Swarm, has found the task healthy.
DIES_LATE = """server=$!
{ until [ -e /tmp/was-ready ]; do sleep 0.1; done; sleep 12; kill -KILL $server; } &
"""


def refusal(scene: Scene, arguments: str, machines: Sequence[Machine] = ()) -> str:
    """Run a command that must be refused before any change; return its error message.

    `machines` are those to compare before and after, by default all of them.
    """
    serving = scene.serving()
    with scene.visited(), nothing_changed(machines or scene.machines):
        done = scene.fab(f"{arguments} --json")
    cause = serving.cause(done, 1)
    assert "schema" not in [step["name"] for step in verdict.report(done)["steps"]]
    return cause


@pytest.mark.parametrize(("label", "service"), [("postgres", "postgres"), ("edge", "traefik")])
def test_a_missing_label_is_refused_and_bootstrap_restores_it(
        scene: Scene, label: str, service: str) -> None:
    serving = scene.serving()
    scene.holder.console("; ".join(f"docker node update --label-rm {label} {machine.name}"
                                   for machine in labelled(scene, label)))
    # Swarm stops tasks that may no longer run on their node.
    host.wait_until(lambda: not any(on_all(scene.machines, CONTAINERS + service)), 60,
                    f"end of {service}")

    with nothing_changed(scene.machines):
        done = scene.fab("deploy --json")

    assert said_cause(done, 1) == f"no node has the label {label}=true: ./fab bootstrap sets it"
    well(scene.fab("bootstrap"))
    for site in scene.edges:
        site.visit_when_up(scene.guests[0], 60)
    host.wait_until(lambda: scene.fab("status").code == 0, 60, "all well again")
    serving.check(done)


def labelled(scene: Scene, label: str) -> list[Machine]:
    """Return the machines whose nodes have a label."""
    names = scene.holder.console(
        f"docker node ls --filter node.label={label}=true --format {{{{.Hostname}}}}").stdout
    return [machine for machine in scene.machines if machine.name in names.split()]


def test_a_reservation_too_large_for_any_node_is_refused(scene: Scene) -> None:
    scene.replace("docker-stack.yml", "reservations: {memory: 256M}",
                  "reservations: {memory: 900G}")
    scene.replace("docker-stack.yml", "memory: 768M", "memory: 901G")

    said = refusal(scene, "deploy")

    assert said.startswith("docker-stack.yml: postgres: a task reserves 921600 MiB, ")
    assert "too much for" in said and said.endswith(": ./fab status shows the nodes")


def test_a_port_that_every_edge_already_uses_is_refused(scene: Scene) -> None:
    scene.change_page("At another port")
    scene.laptop.choose([entry(machine) for machine in scene.machines], ports={"http": 22})

    said = refusal(scene, "deploy")

    assert [line.partition(" is taken by sshd (pid ")[0] for line in said.splitlines()] == [
        f"port 22 of {machine.address}" for machine in scene.machines]


def test_a_port_taken_by_another_program_on_an_edge_is_refused(scene: Scene) -> None:
    serving, (_, berta, _) = scene.serving(), scene.machines
    with port_taken(scene, berta):
        with scene.visited(scene.edges_but(berta)), nothing_changed(scene.machines[::2]):
            done = scene.fab("deploy --json")
    said = said_cause(done, 1)
    assert said.startswith(f"port 80 of {berta.address} is taken by python3 (pid ")
    assert said.endswith("stop it, or choose another: echo HTTP_PORT=8080 >> .env")
    serving.check(done)


@contextmanager
def port_taken(scene: Scene, machine: Machine) -> Iterator[None]:
    """Give port 80 of a machine to another server."""
    machine.console(TAKE_PORT)
    try:
        yield
    finally:
        machine.console("systemctl stop squatter")
        host.wait_until(lambda: scene.fab("status").code == 0, 120, "Traefik there again")


def test_a_missing_registry_is_refused_until_bootstrap_restores_it(
        scene: Scene) -> None:
    scene.change_page("Without the registry")
    scene.holder.console("docker service scale --detach tally-registry_registry=0")
    host.wait_until(lambda: not scene.holder.console(REGISTRY).stdout, 60, "end of the registry")

    said = refusal(scene, "deploy")

    assert said == (f"the registry {scene.holder.address}:5000: nothing is listening there: ./fab "
                    "bootstrap repairs the Swarm's own; for another, correct the inventory")
    well(scene.fab("bootstrap"))
    serving = scene.serving()
    serving.check(well(scene.fab("deploy --json")))


def test_a_rollback_to_a_deleted_image_is_refused(scene: Scene) -> None:
    earlier = earlier_release(scene)
    with image_deleted(scene.holder, earlier.image):
        said = refusal(scene, f"rollback --to {earlier.version}")

    assert said == (f"the image {earlier.image} of {earlier.version} is gone: "
                    f"git checkout {earlier.commit[:12]} && ./fab deploy")


@dataclass(frozen=True)
class Release:
    """A release's record in the Swarm."""

    version: str
    commit: str
    image: str


def earlier_release(scene: Scene) -> Release:
    """Return an earlier proven release whose image is in the Swarm's own registry."""
    records = [json.loads(b64decode(json.loads(line)))
               for line in scene.holder.console(RECORDS).stdout.splitlines()]
    releases = [Release(record["version"], record["commit"],
                        record["content"]["services"]["app"]["image"]) for record in records]
    return next(release for release in releases if release.version != scene.serving().version
                and release.image.startswith(f"{scene.holder.address}:5000/tally/"))


@contextmanager
def image_deleted(registry: Machine, image: str) -> Iterator[None]:
    """Delete an image from the Swarm's own registry; put it back at the end."""
    address, path = image.split("/", 1)
    name, _, digest = path.partition("@")
    repository, _, tag = name.partition(":")
    ask = ASK_REGISTRY.format(address=address)
    url = f"https://{address}/v2/{repository}/manifests/"
    registry.console(f"{ask} {url}{digest} > /root/manifest")
    registry.console(f"{ask} --request DELETE {url}{digest}")
    try:
        yield
    finally:
        registry.console(f"{ask} --request PUT --data-binary @/root/manifest "
                         f"--header 'Content-Type: {MANIFEST}' {url}{tag}")


def test_an_image_of_the_inventory_is_looked_up_before_any_change(
        scene: Scene) -> None:
    nodes = [entry(machine) for machine in scene.machines]
    scene.change_page("With another's image")
    container = scene.serving().definitions["tally_traefik"]["TaskTemplate"]["ContainerSpec"]
    there = container["Image"].partition("@")[0]

    scene.laptop.choose(nodes, images={"traefik": f"{there}-missing"})
    said = refusal(scene, "deploy")
    assert said.startswith(f"the image {there}-missing can't be found (")

    # Its digest is that of the running image.
    scene.laptop.choose(nodes, images={"traefik": there})
    assert "traefik:" not in well(scene.fab("plan")).stdout


def test_a_full_disk_is_reported_before_any_change(scene: Scene) -> None:
    scene.change_page("On a full disk")
    anna, berta, carla = scene.machines
    berta.fill_disk(leave_bytes=500 * 1024 * 1024)
    try:
        # Not berta: reading the file that fills its disk would take a minute.
        said = refusal(scene, "deploy", [anna, carla])
    finally:
        berta.free_disk()

    assert said == (f"/var/lib/docker on {berta.address} has 0.5 GiB free, at least 1 GiB are "
                    "needed: make room, with docker system prune for example")


def test_a_wrong_clock_is_reported_before_any_change(scene: Scene) -> None:
    scene.change_page("By a wrong clock")
    berta = scene.machines[1]
    berta.fake_clock(3600)
    try:
        said = refusal(scene, "deploy")
    finally:
        berta.real_clock()

    assert said == f"{berta.address}: its clock is 60 min ahead: see timedatectl on it"


def test_a_lost_quorum_is_refused_until_it_is_back(scene: Scene) -> None:
    serving, (anna, berta, carla) = scene.serving(), scene.machines
    scene.change_page("Without a quorum")
    for machine in (berta, carla):
        machine.cut_network()
    try:
        host.wait_until(lambda: anna.console(NODES, check=False).code != 0, 60, "end of the quorum")
        with nothing_changed([anna]):
            done = scene.fab("deploy --json")
    finally:
        for machine in (berta, carla):
            machine.restore_network()

    host.wait_until(lambda: scene.fab("status").code == 0, 120, "all well again")
    assert serving.cause(done, 1) == (
        "the Swarm has no leader: quorum is lost, or an election is under way: "
        "bring a majority back online, then the same command again")
    serving.check(well(scene.fab("deploy --json")))


def test_a_hanging_migration_times_out_and_leaves_nothing_behind(scene: Scene) -> None:
    serving, tasks, head = scene.serving(), scene.tasks("app"), scene.query(migrations.HEAD)
    scene.write("migrations/versions/9999_hanging.py", migrations.step(
        "9999", head, "SELECT pg_sleep(600)", prints="waiting for ever"))
    told = scene.laptop.home / "told"

    with scene.visited(), ThreadPoolExecutor(1) as pool:
        deploy = pool.submit(scene.fab, f"deploy --json 2> {told}", env="DEPLOY_TIMEOUT=40")
        host.wait_until(lambda: deploy.done() or scene.query(verdict.MIGRATING) != "0", 120,
                        "a migration")
        assert not deploy.done(), deploy.result()
        expiry = lock_expiry(scene)
        time.sleep(RENEWED)
        assert lock_expiry(scene) > expiry
        # The migration still hangs.
        assert "waiting for ever" in told.read_text() and not deploy.done()
        done = replace(deploy.result(), stderr=told.read_text())

    said = serving.cause(done, 3)
    assert said.startswith("the migration timed out (its task was running: started)")
    assert "the running release is untouched" in said
    assert done.stderr.count("waiting for ever") == 1
    # Swarm gives a container ten seconds to stop.
    host.wait_until(lambda: scene.query(verdict.MIGRATING) == "0", 30,
                    "end of the migration's sessions")
    assert scene.query(verdict.LOCKS) == "0"
    assert (scene.tasks("app"), scene.query(migrations.HEAD)) == (tasks, head)
    assert "tally_migrate" not in scene.holder.console("docker service ls").stdout


def lock_expiry(scene: Scene) -> float:
    """Return when the deploy lock expires, in Unix time."""
    return float(scene.holder.console(EXPIRY).stdout)


def test_an_application_that_dies_after_becoming_healthy_is_rolled_back(scene: Scene) -> None:
    serving = scene.serving()
    scene.replace("stack/images/app/serve", "server=$!\n", DIES_LATE)

    with scene.visited(may_fail=True):
        done = scene.fab("deploy --json")

    said = serving.cause(done, 4)
    assert f"{serving.version} is restored and proven" in said
    assert "app: " in said and "137" in said


def test_two_bad_deploys_in_a_row_leave_the_last_good_release(scene: Scene) -> None:
    serving, known = scene.serving(), remembered(scene)
    # Otherwise the migration, which runs the same code, would fail first.
    scene.replace("docker-stack.yml", "command: [flask, db, upgrade]", "command: ['true']")
    # So that a restore has to undo more than the application's image.
    scene.replace("docker-stack.yml", "pids: 50}", "pids: 60}")
    env = f"USER_NAME=Mallory APP_REPLICAS={len(scene.tasks('app')) + 1}"
    planned = well(scene.fab("plan", env=env)).stdout.splitlines()
    assert {"app: environment.USER_NAME", "app: deploy.replicas",
            "socket-proxy: deploy.resources.limits.pids"} <= {
        " ".join(line.split()[:2]) for line in planned}
    for reason in ("broken once", "broken twice"):
        scene.replace("app/__init__.py", "def create_app(",
                      f"raise RuntimeError({reason!r})\n\n\ndef create_app(")
        with scene.visited():
            done = scene.fab("deploy --json", env=env)
        said = serving.cause(done, 4)
        assert f"{serving.version} is restored and proven" in said
        assert reason in done.stderr
        assert verdict.report(done)["previous"] == serving.version
        scene.replace("app/__init__.py", f"raise RuntimeError({reason!r})\n\n\n", "")

    listed = remembered(scene)
    assert [words[OUTCOME] for words in listed[:2]] == ["restored"] * 2
    assert all("non-zero exit" in " ".join(words) for words in listed[:2])
    assert [words for words in listed if words[OUTCOME] == "proven"] \
        == [words for words in known if words[OUTCOME] == "proven"]
    well(scene.fab("status"))


# The column after a version, a day, a time, a number and its unit.
OUTCOME = 5


def remembered(scene: Scene) -> list[list[str]]:
    """Return the words of each line of ./fab releases."""
    return [line.split() for line in well(scene.fab("releases")).stdout.splitlines()[1:]]


@pytest.mark.parametrize("field", ["env", "image"])
def test_a_manual_change_is_shown_and_undone(scene: Scene, field: str) -> None:
    well(scene.fab("deploy"))
    serving = scene.serving()
    well(scene.fab("plan --exit-code"))
    told = {"env": "USER_NAME=Mallory",
            "image": earlier_release(scene).image.partition("@")[0]}[field]
    option = {"env": "--env-add", "image": "--image"}[field]
    scene.holder.console("docker --config /etc/tally/docker service update --quiet --detach "
                         f"--with-registry-auth {option} {told} tally_app")

    shown = scene.fab("plan --exit-code")
    with scene.visited():
        done = well(scene.fab("deploy --json"))

    assert shown.code == 2, shown.stdout + shown.stderr
    by_hand = shown.stdout.partition("Changed by hand")[2].splitlines()
    assert [line for line in by_hand if line.startswith("  app: ") and told.split("=")[-1] in line]
    serving.check(done)
    assert scene.serving() == serving
    assert not [site for site in scene.edges for _ in range(4) if "Mallory" in site.ask().text]


@pytest.mark.alone
def test_postgres_killed_under_load_is_back_within_ten_seconds(scene: Scene) -> None:
    tasks, (anna, berta, carla) = scene.tasks("app"), scene.edges
    with (scene.visited(may_fail=True) as visitors, watching(anna, "/healthz") as alive,
          watching(berta, "/readyz") as ready, watching(carla, "/") as page):
        host.wait_until(lambda: len(page) > 10, 30, "visitors")
        killed = time.monotonic()
        scene.holder.console(f"docker kill {POSTGRES}")
        host.wait_until(lambda: bool(unwell(page) and unwell(ready)), 30,
                        "pages without a database")
        host.wait_until(lambda: not unwell(page[-20:]) and not unwell(ready[-20:]), 60,
                        "pages with a database")

    assert {sample.status for sample in alive} == {200}
    assert {sample.status for sample in ready} == {sample.status for sample in page} == {200, 503}
    assert not [failure for failure in failures(visitors) if "AssertionError 503:" not in failure]
    longest = max(sample.took for sample in [*alive, *ready, *page])
    recovered = max(sample.asked for sample in unwell(ready) + unwell(page)) - killed
    log.info("Postgres was back after %.1f s, the slowest answer took %.1f s", recovered, longest)
    assert longest < 10 and recovered < 10
    assert scene.tasks("app") == tasks


def unwell(samples: Sequence[Sample]) -> list[Sample]:
    """Return the answers that weren't 200."""
    return [sample for sample in samples if sample.status != 200]


@pytest.mark.alone
def test_a_second_deploy_from_another_clone_ends_at_once(
        scene: Scene, colleague: Laptop) -> None:
    serving, images = scene.serving(), set(scene.holder.console(IMAGES).stdout.split())
    scene.change_page("The first of two")
    refused: list[Result] = []

    with scene.visited(), ThreadPoolExecutor(1) as pool:
        first = pool.submit(scene.fab, "deploy --json")
        host.wait_until(lambda: colleague.fab("lock.status").stdout != "free\n", 60, "the lock")
        whole = quickest(3, lambda: refused.append(colleague.fab("deploy --json")))
        assert not first.done()
        done = well(first.result())

    for each in refused:
        assert "has held the lock since" in said_cause(each, 7)
    # Not counting the start of Python, whose time depends on the other deploy's load.
    seconds = min(verdict.report(each)["seconds"] for each in refused)
    log.info("the second of two deploys ended after %.1f s, %.1f s in all", seconds, whole)
    assert seconds < 2
    serving.check(done)
    version = verdict.report(done)["version"]
    brought = set(scene.holder.console(IMAGES).stdout.split()) - images
    assert {image.rpartition(":")[2] for image in brought} <= {version.replace("+", "-")}
    assert scene.fab("releases").stdout.splitlines()[1].split()[0] == version
    assert all("The first of two" in site.ask().text for site in scene.edges)


@pytest.fixture
def colleague(scene: Scene, repository: Path, lab: Lab,
              tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """Another operator's laptop, with a different change in its clone."""
    laptop = new_laptop(tmp_path_factory.mktemp("laptop") / "colleague", repository,
                        lab.private_key)
    for path in (laptop.inventory, laptop.known_hosts):
        path.write_text((scene.laptop.folder / path.name).read_text())
    page = laptop.folder / "app/templates/base.html"
    page.write_text(page.read_text().replace("</main>", "<p>The second of two</p></main>"))
    # The first run prepares its environment.
    well(laptop.fab("--list"))
    return laptop
