"""Render docker-stack.yml with the operator's choices."""

import os
from collections.abc import Mapping

from stack.images.builds import Build
from stack.images.snapshot import Snapshot
from stack.inventory.settings import Settings
from stack.release.found import Found
from stack.release.target import Target
from stack.swarm import secrets, stackfile
from stack.swarm.stackfile import Stack

STACK_FILE = "docker-stack.yml"


def render(target: Target, snapshot: Snapshot, found: Found, names: Mapping[str, str]) -> Stack:
    """Return the stack with every variable filled in; `names` are the services' images.

    Raises Refused without one of the secrets.
    """
    secrets.require_all(found.secrets)
    return stackfile.load(snapshot.files / STACK_FILE,
                          variables(target.settings, found, {**names, **target.chosen}))


def references(target: Target, builds: Mapping[str, Build]) -> dict[str, str]:
    """Return the image reference that each service runs."""
    return {name: target.store.reference(each.tag) for name, each in builds.items()}


def variables(settings: Settings, found: Found,
              images: Mapping[str, str]) -> dict[str, str | int]:
    """Return the value of each variable in docker-stack.yml."""
    return {
        **{f"{name.upper().replace('-', '_')}_IMAGE": image for name, image in images.items()},
        "APP_PASSWORD": found.secrets["app-password"],
        "OWNER_PASSWORD": found.secrets["owner-password"],
        "VISITOR_KEY": found.secrets["visitor-key"],
        "HTTP_PORT": settings.http_port,
        "HTTPS_PORT": settings.https_port,
        "APP_REPLICAS": settings.app_replicas or found.replicas,
        "USER_NAME": settings.user_name,
        "USER_URL": settings.user_url,
        "DOCKER_GID": str(found.socket_group),
        "OVERLAY_MTU": str(found.mtu),
    }


def proxies(target: Target) -> Mapping[str, str]:
    """Return this machine's proxy settings; other machines have their own."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if target.fleet.local else ()
    return {name: os.environ[name] for name in names if name in os.environ}
