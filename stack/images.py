"""Build the images that the stack runs, each under a tag that never moves."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

import docker
import requests
from docker.errors import DockerException, ImageNotFound

from stack import console, install
from stack.engine import DockerCli
from stack.errors import Refused
from stack.machine import Machine
from stack.version import Snapshot, Version

# Swarm asks an image's registry for it at each start of a task, even when the
# image is there. These images are local: a registry that refuses at once keeps
# the start quick, and nobody's public repository can take the image's place.
PREFIX = "localhost:1/tally"
BASE = f"{PREFIX}/base:trixie"
PUBLIC_BASE = "debian:trixie-slim"
CA_BUNDLE = PurePosixPath("/etc/ssl/certs/ca-certificates.crt")
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

    def command(self, ca_bundle: bool) -> list[str]:
        """Return what follows `docker build`, to be run in the exported tree.

        The build host's CA bundle, if it has one, lets pip through an inspecting proxy.
        """
        options = [f"--build-arg={name}={value}" for name, value in self.arguments.items()]
        options += [f"--label={name}={value}" for name, value in self.labels.items()]
        if ca_bundle:
            options.append(f"--secret=id=ca-bundle,src={CA_BUNDLE}")
        return [*options, f"--tag={self.tag}", self.context]


def make_base(client: docker.DockerClient, machine: Machine) -> str:
    """Pull the base image, or build it from Debian's packages; return what was done.

    Raises Refused if neither is possible.
    """
    try:
        client.images.get_registry_data(PUBLIC_BASE)
        client.images.pull(PUBLIC_BASE).tag(BASE)
    except (DockerException, requests.RequestException):
        _build_base(machine)
        return "built from Debian's packages, as no container registry answers"
    return f"pulled {PUBLIC_BASE}"


# Given the image's name, then mmdebstrap's options.
BUILD_BASE = """
set -eu
folder=$(mktemp --directory /var/tmp/tally-base.XXXXXX)
trap 'rm -rf "$folder"' EXIT
name=$1; shift
mmdebstrap --quiet --variant=minbase "$@" trixie "$folder/base.tar"
docker import "$folder/base.tar" "$name"
"""


def _build_base(machine: Machine) -> None:
    if not machine.run(["mmdebstrap", "--version"]).ok:
        install.packages(machine, "mmdebstrap", "debian-archive-keyring")
    options = [f"--dpkgopt={option}" for option in LEAN]
    done = machine.run(["sh", "-c", BUILD_BASE, "build", BASE, *options])
    if not done.ok:
        console.block(done.stderr.splitlines()[-10:])
        raise Refused("the base image can be neither pulled nor built",
                      "make a container registry or Debian's package mirror reachable, "
                      "then ./fab bootstrap")


def image_id(client: docker.DockerClient, tag: str) -> str:
    """Return the id of a local image, or "" if there is none of that name."""
    try:
        return str(client.images.get(tag).id)
    except ImageNotFound:
        return ""


def resolve(client: docker.DockerClient, version: Version, prefix: str) -> Version:
    """Return the version under which this commit can be built.

    Two branches may count to the same number; the one that comes second is
    told apart by its commit, so that a tag never moves.
    """
    try:
        image = client.images.get(f"{prefix}/app:{version.tag}")
    except ImageNotFound:
        return version
    return version if image.labels.get(REVISION) == version.commit else version.distinguished()


def plan(snapshot: Snapshot, version: Version, base: str, prefix: str,
         proxies: Mapping[str, str]) -> dict[str, Build]:
    """Return what each service is built from; `base` is the base image's id.

    The supporting images are named by their content, so that an update of the
    application leaves Postgres and Traefik running.
    """
    common = {"BASE": BASE, **proxies}
    labels = {VERSION: version.text, REVISION: version.commit}
    snapshot.content("app/templates/page.html")
    snapshot.content("Dockerfile")
    builds = {"app": Build("app", f"{prefix}/app:{version.tag}", ".", {
        **common, "VERSION": version.text, "COMMIT": version.commit}, labels)}
    for name in SUPPORTING:
        content = snapshot.content(f"stack/images/{name}")
        snapshot.content(f"stack/images/{name}/Dockerfile")
        key = hashlib.sha256(f"{content} {base}".encode()).hexdigest()[:12]
        builds[name] = Build(name, f"{prefix}/{name}:{key}", f"stack/images/{name}", common, {})
    return builds


def registry_build(folder: Path, base: str) -> Build:
    """Return what the Swarm's own registry is built from, a folder of its own.

    Its image is kept on its node alone: nobody could fetch it from itself.
    """
    key = hashlib.sha256(base.encode())
    for path in sorted(folder.iterdir()):
        key.update(path.read_bytes())
    return Build("registry", f"{PREFIX}/registry:{key.hexdigest()[:12]}", ".", {"BASE": BASE}, {})


def build(cli: DockerCli, files: PurePath, builds: list[Build]) -> None:
    """Build images side by side; raises Refused after the end of the builder's output.

    `files` is the exported tree, on the machine that builds.
    """
    builder, ca_bundle = cli.builder, cli.machine.run(["test", "-e", str(CA_BUNDLE)]).ok
    with ThreadPoolExecutor(max_workers=len(builds)) as pool:
        results = list(pool.map(
            lambda each: cli.build(*each.command(ca_bundle), cwd=files), builds))
    for each, done in zip(builds, results):
        if not done.ok:
            console.block((done.stdout + done.stderr).strip().splitlines()[-20:])
            raise Refused(f"{each.tag} could not be built with {builder}",
                          "the end of its output is above; nothing was changed")


# Given the names of images; those in use stay, and so does what isn't there.
REMOVE = 'for name; do docker image rm "$name" > /dev/null 2>&1 && echo "$name"; done; true'


def tidy(machine: Machine, prefix: str, needed: Iterable[str]) -> list[str]:
    """Remove a machine's images of this stack, except those named and those in use.

    What was fetched by digest has no tag; `needed` names images by tag, by digest or both.
    """
    kept = {_bare(reference) for reference in needed}
    listed = machine.must(["docker", "image", "ls", "--digests", "--no-trunc",
                           "--format={{.Repository}} {{.Tag}} {{.Digest}}"])
    unneeded = []
    for repository, tag, digest in (line.split() for line in listed.splitlines()):
        name = f"{repository}:{tag}" if tag != "<none>" else f"{repository}@{digest}"
        if repository.startswith(f"{prefix}/") and f"{repository}@{digest}" not in kept \
                and name not in kept and name != BASE:
            unneeded.append(name)
    said = machine.must(["sh", "-c", REMOVE, "remove", *unneeded]) if unneeded else ""
    return sorted(said.split())


def _bare(reference: str) -> str:
    """Return repository@digest for what is named by tag and digest, the only way it is listed."""
    return re.sub(r":[^:/@]+@", "@", reference)
