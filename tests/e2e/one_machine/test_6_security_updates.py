"""Debian's security updates reach every image, and a rollback takes them back."""

import json

import pytest

from tests.e2e import verdict
from tests.e2e.faults import well
from tests.e2e.site import Site

pytestmark = pytest.mark.lab

BASE = "docker image inspect --format '{{.Id}}' localhost:1/tally/base:trixie"
IMAGES = "docker service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' " \
    "$(docker stack services tally --quiet)"
LABELS = f"docker image inspect --format '{{{{json .Config.Labels}}}}' $({IMAGES})"


def renewals(site: Site) -> set[str]:
    """Return the renewals of the bases upon which the services' images are built."""
    labels = [json.loads(line) or {} for line in site.sh(LABELS).splitlines()]
    return {found.get("tally.base", "") for found in labels}


def test_a_renewed_base_reaches_every_service_and_a_rollback_returns_to_the_one_of_before(
        site: Site, address: str) -> None:
    well(site.fab("deploy"))
    version, visits, before = site.version(), site.visit(address).visits, renewals(site)
    images, base = site.sh(IMAGES), site.sh(BASE).strip()

    assert "renewed with today's packages" in well(site.fab("bootstrap --renew-base")).stdout
    assert (site.version(), site.sh(IMAGES)) == (version, images)
    assert site.sh(BASE).strip() != base
    # No image needs its name any more, and its layers stay with those that were built upon it.
    site.sh(f"! docker image inspect {base}")

    said = verdict.report(well(site.fab("deploy --json")))
    renewal = said["version"].removeprefix(f"{version}.base.")
    assert renewal.isdecimal() and renewals(site) == {renewal} != before
    # Traefik and Postgres are replaced, too: one task each, so the site is away for a moment.
    assert said["probe"]["longest_gap"] < 30
    assert site.visit(address).visits == visits + 1
    shown = well(site.fab("status")).stdout.splitlines()
    assert f"release  {version}.base.{renewal}" in shown
    assert "base     Debian 13, made today" in shown

    well(site.fab("rollback"))
    assert (site.version(), site.sh(IMAGES), renewals(site)) == (version, images, before)
    assert site.visit(address).visits == visits + 2
