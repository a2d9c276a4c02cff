"""Build the images that the stack runs, each under a tag that never moves."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

from stack import progress
from stack.engine.cli import DockerCli
from stack.engine.engine import Engine
from stack.errors import Refused
from stack.images.base import BASE, CA_BUNDLE, PREFIX
from stack.images.snapshot import Snapshot
from stack.images.version import Version
from stack.machines import docker_command
from stack.machines.machine import Machine

# The application's own list, a path on each line.
REQUIRED = "app/required-files"
# Each is built from the folder with its name in stack/images.
SUPPORTING = ("postgres", "traefik", "socket-proxy")
REGISTRY = "registry"
REVISION = "org.opencontainers.image.revision"
VERSION = "org.opencontainers.image.version"


@dataclass(frozen=True)
class Build:
    """One image to build: its context, tag, arguments and labels."""

    name: str
    tag: str
    context: str
    arguments: Mapping[str, str]
    labels: Mapping[str, str]

    def command(self, ca_bundle: bool) -> list[str]:
        """Return the arguments of `docker build`, run in the exported tree.

        The build host's CA bundle, if it has one, lets pip through an inspecting proxy.
        """
        options = [f"--build-arg={name}={value}" for name, value in self.arguments.items()]
        options += [f"--label={name}={value}" for name, value in self.labels.items()]
        if ca_bundle:
            options.append(f"--secret=id=ca-bundle,src={CA_BUNDLE}")
        return [*options, f"--tag={self.tag}", self.context]


def resolve(engine: Engine, version: Version, prefix: str) -> Version:
    """Return the version under which this commit can be built.

    Two branches may reach the same number; the second one's version gets its
    commit as a mark, so that a tag never moves.
    """
    labels = engine.images.labels(f"{prefix}/app:{version.tag}")
    if labels is None or labels.get(REVISION) == version.commit:
        return version
    return version.distinguished()


def plan_builds(snapshot: Snapshot, version: Version, base: str, prefix: str,
                proxies: Mapping[str, str]) -> dict[str, Build]:
    """Return what each service is built from; `base` is the base image's id.

    The supporting images are named by their content, so that an update of the
    application leaves Postgres and Traefik running.
    """
    common = {"BASE": BASE, **proxies}
    labels = {VERSION: version.text, REVISION: version.commit}
    for path in ("Dockerfile", *required_files(snapshot.files / REQUIRED)):
        snapshot.content(path)
    builds = {"app": Build("app", f"{prefix}/app:{version.tag}", ".", {
        **common, "VERSION": version.text, "COMMIT": version.commit}, labels)}
    for name in SUPPORTING:
        tag = f"{prefix}/{name}:{_key(snapshot, name, base)}"
        snapshot.content(f"stack/images/{name}/Dockerfile")
        builds[name] = Build(name, tag, f"stack/images/{name}", common, {})
    return builds


def required_files(path: Path) -> list[str]:
    """Return the files without which the application can't serve, as it says itself.

    Their absence would show only once the image has been built and started.
    """
    return path.read_text().split() if path.exists() else []


def registry_build(snapshot: Snapshot, base: str) -> Build:
    """Return the build of the Swarm's own registry, whose context is its folder alone.

    Its image stays on its node: the registry can't serve its own image.
    """
    return Build(REGISTRY, f"{PREFIX}/{REGISTRY}:{_key(snapshot, REGISTRY, base)}", ".",
                 {"BASE": BASE}, {})


def _key(snapshot: Snapshot, name: str, base: str) -> str:
    """Return a tag for the content of an image's folder on this base image."""
    content = snapshot.content(f"stack/images/{name}")
    return hashlib.sha256(f"{content} {base}".encode()).hexdigest()[:12]


def build_all(cli: DockerCli, files: PurePath, builds: list[Build]) -> None:
    """Build images in parallel; on failure, print the end of the output and raise Refused.

    `files` is the exported tree on the build machine.
    """
    builder, ca_bundle = cli.builder, cli.machine.run(["test", "-e", str(CA_BUNDLE)]).ok
    with ThreadPoolExecutor(max_workers=len(builds)) as pool:
        results = list(pool.map(
            lambda each: cli.build(*each.command(ca_bundle), cwd=files), builds))
    for each, done in zip(builds, results):
        if not done.ok:
            progress.quote((done.stdout + done.stderr).strip().splitlines()[-20:])
            raise Refused(f"{each.tag} could not be built with {builder}",
                          "the end of its output is above; nothing was changed")


# Arguments: the images' names. Images in use stay; missing ones are ignored.
REMOVE = 'for name; do docker image rm "$name" > /dev/null 2>&1 && echo "$name"; done; true'


def tidy(machine: Machine, prefix: str, needed: Iterable[str]) -> list[str]:
    """Remove a machine's images of this stack, except `needed` ones and those in use.

    An image pulled by digest has no tag; `needed` names images by tag, digest or both.
    """
    kept = {_bare(reference) for reference in needed}
    listed = docker_command.must(machine, "image", "ls", "--digests", "--no-trunc",
                                 "--format={{.Repository}} {{.Tag}} {{.Digest}}")
    unneeded = []
    for repository, tag, digest in (line.split() for line in listed.splitlines()):
        name = f"{repository}:{tag}" if tag != "<none>" else f"{repository}@{digest}"
        if repository.startswith(f"{prefix}/") and f"{repository}@{digest}" not in kept \
                and name not in kept and name != BASE:
            unneeded.append(name)
    if not unneeded:
        return []
    script = docker_command.script(machine, REMOVE)
    return sorted(machine.must(["sh", "-c", script, "remove", *unneeded]).split())


def _bare(reference: str) -> str:
    """Drop the tag of repository:tag@digest: Docker lists only repository@digest."""
    return re.sub(r":[^:/@]+@", "@", reference)
