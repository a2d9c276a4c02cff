"""A plan of a real Swarm shows what a deploy would do, and changes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import migrations
from tests.e2e.cluster import nothing_changed
from tests.e2e.faults import POSTGRES, Scene, well
from tests.e2e.site import lines
from tests.lab import Result

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600), pytest.mark.usefixtures("restored")]

# The same password under another name, as after a new password was made.
ANOTHER = "docker exec {container} cat /run/secrets/app-password | " \
    "docker secret create --label tally.secret=app-password tally-app-password-another -"


def groups(done: Result) -> dict[str, list[str]]:
    """Return a plan's lines by their heading; the plan must have found something."""
    assert done.code == 2, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    heading = ""
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            found[heading].append(line.strip())
        else:
            heading = line
            found.setdefault(heading, [])
    return found


def test_migrations_are_shown_with_their_sql_and_none_is_run(scene: Scene) -> None:
    head = scene.query(migrations.HEAD)
    scene.write("migrations/versions/9999_remarks.py", migrations.step(
        "9999", head, "CREATE TABLE remarks (said text)", says="keep what visitors say."))

    # The application's image generates the SQL.
    early = scene.fab("plan --sql")
    assert early.code == 1
    assert lines(early)[-1].endswith(": ./fab build, then ./fab plan --sql")
    well(scene.fab("build"))
    with nothing_changed(scene.machines):
        found = groups(scene.fab("plan --sql --exit-code"))

    assert found["Migrations"] == ["9999: keep what visitors say."]
    assert "CREATE TABLE remarks (said text);" in found["SQL"]
    assert found["Tasks that are replaced"] == ["app: new tasks start first, no gap"]
    assert scene.query(migrations.HEAD) == head


def test_a_new_secret_is_shown_with_the_tasks_it_replaces(scene: Scene) -> None:
    well(scene.fab("deploy"))
    with another_password(scene), nothing_changed(scene.machines):
        found = groups(scene.fab("plan --exit-code"))

    change, = found["Changes"]
    assert change.startswith("secret app-password: name ")
    assert change.endswith("tally-app-password-another")
    assert sorted(found["Tasks that are replaced"]) == [
        "app: new tasks start first, no gap",
        "postgres: old tasks stop first, pages return 503 for a few seconds"]
    well(scene.fab("plan --exit-code"))


@contextmanager
def another_password(scene: Scene) -> Iterator[None]:
    """Add a newer secret than the one that the running release uses."""
    scene.holder.console(ANOTHER.format(container=POSTGRES))
    try:
        yield
    finally:
        scene.holder.console("docker secret rm tally-app-password-another")


def test_a_deploy_replaces_exactly_the_tasks_of_the_plan(scene: Scene) -> None:
    services = ["app", "postgres", "socket-proxy", "traefik"]
    serving, before = scene.serving(), {service: scene.tasks(service) for service in services}

    told = groups(scene.fab("plan --exit-code", env="USER_NAME=Ada"))["Tasks that are replaced"]
    serving.check(well(scene.fab("deploy --json", env="USER_NAME=Ada")))

    replaced = [service for service in services if scene.tasks(service) != before[service]]
    assert [line.partition(":")[0] for line in told] == replaced == ["app"]
    assert not scene.tasks("app") & before["app"]
