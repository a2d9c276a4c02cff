"""Build the images that the stack runs, each under a tag that never moves."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from stack import console, install
from stack.engine import DockerCli
from stack.errors import Refused
from stack.machine import LocalMachine
from stack.version import Snapshot, Version

# Swarm asks an image's registry for it at each start of a task, even when the
# image is there. These images are local: a registry that refuses at once keeps
# the start quick, and nobody's public repository can take the image's place.
PREFIX = "localhost:1/tally"
BASE = f"{PREFIX}/base:trixie"
PUBLIC_BASE = "debian:trixie-slim"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# Each is built from the folder of its name in stack/images.
SUPPORTING = ("postgres", "traefik", "socket-proxy")
REVISION = "org.opencontainers.image.revision"
VERSION = "org.opencontainers.image.version"
# Documentation in packages is of no use in a container.
LEAN = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/locale/*", "path-include=/usr/share/doc/*/copyright")


@dataclass(frozen=True)
class Build:
    """One image to build: where from, under which tag, with which arguments."""

    name: str
    tag: str
    context: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]

    def command(self) -> list[str]:
        """Return what follows `docker build`, to be run in the exported tree."""
        options = [f"--build-arg={name}={value}" for name, value in self.arguments.items()]
        options += [f"--label={name}={value}" for name, value in self.labels.items()]
        if CA_BUNDLE.exists():
            options.append(f"--secret=id=ca-bundle,src={CA_BUNDLE}")
        return [*options, f"--tag={self.tag}", self.context]


def make_base(client: docker.DockerClient, machine: LocalMachine) -> str:
    """Pull the base image, or build it from Debian's packages; return what was done.

    Raises Refused if neither is possible.
    """
    try:
        client.images.get_registry_data(PUBLIC_BASE)
        client.images.pull(PUBLIC_BASE).tag(BASE)
    except (DockerException, requests.RequestException):
        _build_base(client, machine)
        return "built from Debian's packages, as no container registry answers"
    return f"pulled {PUBLIC_BASE}"


def _build_base(client: docker.DockerClient, machine: LocalMachine) -> None:
    if not machine.run(["mmdebstrap", "--version"]).ok:
        install.packages(machine, "mmdebstrap", "debian-archive-keyring")
    with tempfile.TemporaryDirectory(prefix="tally-base-") as scratch:
        archive = str(Path(scratch, "base.tar"))
        options = [f"--dpkgopt={option}" for option in LEAN]
        done = machine.run(["mmdebstrap", "--quiet", "--variant=minbase", *options,
                            "trixie", archive])
        if not done.ok:
            console.block(done.stderr.splitlines()[-10:])
            raise Refused("the base image can be neither pulled nor built",
                          "make a container registry or Debian's package mirror reachable, "
                          "then ./fab bootstrap")
        repository, tag = BASE.rsplit(":", 1)
        client.api.import_image_from_file(archive, repository=repository, tag=tag)


def image_id(client: docker.DockerClient, tag: str) -> str:
    """Return the id of a local image, or "" if there is none of that name."""
    try:
        return str(client.images.get(tag).id)
    except ImageNotFound:
        return ""


def resolve(client: docker.DockerClient, version: Version) -> Version:
    """Return the version under which this commit can be built.

    Two branches may count to the same number; the one that comes second is
    told apart by its commit, so that a tag never moves.
    """
    try:
        image = client.images.get(f"{PREFIX}/app:{version.tag}")
    except ImageNotFound:
        return version
    return version if image.labels.get(REVISION) == version.commit else version.distinguished()


def plan(snapshot: Snapshot, version: Version, base: str) -> dict[str, Build]:
    """Return what each service is built from; `base` is the base image's id.

    The supporting images are named by their content, so that an update of the
    application leaves Postgres and Traefik running.
    """
    common = {"BASE": BASE, **{name: os.environ[name] for name in (
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if name in os.environ}}
    labels = {VERSION: version.text, REVISION: version.commit}
    snapshot.content("app/templates/page.html")
    snapshot.content("Dockerfile")
    builds = {"app": Build("app", f"{PREFIX}/app:{version.tag}", ".", {
        **common, "VERSION": version.text, "COMMIT": version.commit}, labels)}
    for name in SUPPORTING:
        content = snapshot.content(f"stack/images/{name}")
        snapshot.content(f"stack/images/{name}/Dockerfile")
        key = hashlib.sha256(f"{content} {base}".encode()).hexdigest()[:12]
        builds[name] = Build(name, f"{PREFIX}/{name}:{key}", f"stack/images/{name}", common, {})
    return builds


def missing(client: docker.DockerClient, builds: Iterable[Build]) -> list[Build]:
    """Return the images that are yet to be built."""
    return [build for build in builds if not image_id(client, build.tag)]


def build(cli: DockerCli, snapshot: Snapshot, builds: list[Build]) -> None:
    """Build images side by side; raises Refused after the end of the builder's output."""
    builder = cli.builder()
    with ThreadPoolExecutor(max_workers=len(builds)) as pool:
        results = list(pool.map(
            lambda each: cli.build(*each.command(), cwd=snapshot.files), builds))
    for each, done in zip(builds, results):
        if not done.ok:
            console.block((done.stdout + done.stderr).strip().splitlines()[-20:])
            raise Refused(f"{each.tag} could not be built with {builder}",
                          "the end of its output is above; nothing was changed")


def tally_images(client: docker.DockerClient) -> list[str]:
    """Return the tags of every image that was built here, the base aside."""
    return sorted(tag for image in client.images.list() for tag in image.tags
                  if tag.startswith(f"{PREFIX}/") and tag != BASE)


def remove(client: docker.DockerClient, tags: list[str]) -> list[str]:
    """Remove images by tag, except those in use; return what was removed."""
    removed = []
    for tag in tags:
        try:
            client.images.remove(tag)
        except APIError as error:
            if error.status_code != 409:
                raise
        else:
            removed.append(tag)
    return removed
