"""Pull the base image, or build it from Debian's packages; renew it with today's."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from stack import progress
from stack.engine.engine import Engine
from stack.engine.failures import EngineError
from stack.errors import Refused
from stack.machines import docker_command, packages
from stack.machines.machine import Machine

# Swarm asks an image's registry at each start of a task, even if the node has the
# image. These images are local: a registry that refuses at once keeps the start
# quick, and no public repository can replace the image.
PREFIX = "localhost:1/tally"
BASE = f"{PREFIX}/base:trixie"
PUBLIC_BASE = "debian:trixie-slim"
SYSTEM = "Debian 13"
# The label with a base's renewal, which every image built upon it inherits.
LABEL = "tally.base"
# A base that is older probably lacks security updates.
OLD = timedelta(days=30)
CA_BUNDLE = PurePosixPath("/etc/ssl/certs/ca-certificates.crt")
# A container needs no package documentation.
LEAN = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/locale/*", "path-include=/usr/share/doc/*/copyright")


@dataclass(frozen=True)
class Base:
    """The base image of one engine.

    `image` is Docker's id of it. `renewal` is the time at which it was renewed, as digits that
    sort, "" if it never was. Its packages are as old as `made`.
    """

    image: str
    renewal: str
    made: datetime

    @classmethod
    def read(cls, engine: Engine) -> "Base | None":
        """Return the engine's base image, or None if there is none."""
        made = engine.images.created(BASE)
        if made is None:
            return None
        labels = engine.images.labels(BASE) or {}
        return cls(engine.images.id(BASE), labels.get(LABEL, ""), made)

    def age(self, now: datetime) -> timedelta:
        """Return how old its packages are; 0 if the machine's clock is ahead of this one."""
        return max(now - self.made, timedelta())


def make_base(engine: Engine, machine: Machine) -> str:
    """Pull the base image, or build it from Debian's packages; return what was done.

    Raises Refused if neither is possible.
    """
    try:
        engine.images.digest(PUBLIC_BASE)
        engine.images.pull(PUBLIC_BASE)
        engine.images.tag(PUBLIC_BASE, BASE)
    except EngineError:
        if not _build_base(machine):
            raise Refused("the base image can be neither pulled nor built",
                          "make a container registry or Debian's package mirror reachable, "
                          "then ./fab bootstrap") from None
        return "built from Debian's packages (no container registry answers)"
    return f"pulled {PUBLIC_BASE}"


def renew_base(machine: Machine) -> str:
    """Build the base image again from today's packages; return what was done.

    Raises Refused if that fails; the base image is the same as before then.
    """
    renewal = machine.must(["date", "--utc", "+%Y%m%d%H%M%S"]).strip()
    if not _build_base(machine, f"LABEL {LABEL}={renewal}"):
        raise Refused("the base image could not be renewed; the one of before stays in use",
                      "make Debian's package mirror reachable, then ./fab bootstrap --renew-base")
    return f"renewed with today's packages, {renewal}; ./fab deploy brings them"


# Arguments: the image's name, an instruction for its configuration or nothing, then mmdebstrap's
# options. Without SOURCE_DATE_EPOCH, every build has its own times, so that BuildKit's cache has
# no layer upon it. Images keep the layers of the base that they were built upon when its name
# moves on and it is removed; it stays if it has another name.
BUILD_BASE = """
set -eu
umask 022
unset SOURCE_DATE_EPOCH
folder=$(mktemp --directory /var/tmp/tally-base.XXXXXX)
trap 'rm -rf "$folder"' EXIT
name=$1 change=$2; shift 2
before=$(docker image inspect --format '{{.Id}}' "$name" 2> /dev/null || true)
mmdebstrap --quiet --variant=minbase "$@" trixie "$folder/base.tar"
docker import ${change:+"--change=$change"} "$folder/base.tar" "$name"
if [ -n "$before" ] &&
    [ "$(docker image inspect --format '{{len .RepoTags}}' "$before" 2> /dev/null)" = 0 ]; then
    docker image rm "$before" > /dev/null 2>&1 || true
fi
"""


def _build_base(machine: Machine, change: str = "") -> bool:
    """Return whether the base image was built; if it wasn't, quote why."""
    if not machine.run(["mmdebstrap", "--version"]).ok:
        packages.install(machine, "mmdebstrap", "debian-archive-keyring")
    options = [f"--dpkgopt={option}" for option in LEAN]
    done = machine.run(
        ["sh", "-c", docker_command.script(machine, BUILD_BASE), "build", BASE, change, *options])
    if not done.ok:
        progress.quote(done.stderr.splitlines()[-10:])
    return done.ok
