"""Pull the base image, or build it from Debian's packages."""

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
CA_BUNDLE = PurePosixPath("/etc/ssl/certs/ca-certificates.crt")
# A container needs no package documentation.
LEAN = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*",
        "path-exclude=/usr/share/locale/*", "path-include=/usr/share/doc/*/copyright")


def make_base(engine: Engine, machine: Machine) -> str:
    """Pull the base image, or build it from Debian's packages; return what was done.

    Raises Refused if neither is possible.
    """
    try:
        engine.images.digest(PUBLIC_BASE)
        engine.images.pull(PUBLIC_BASE)
        engine.images.tag(PUBLIC_BASE, BASE)
    except EngineError:
        _build_base(machine)
        return "built from Debian's packages (no container registry answers)"
    return f"pulled {PUBLIC_BASE}"


# Arguments: the image's name, then mmdebstrap's options.
BUILD_BASE = """
set -eu
umask 022
folder=$(mktemp --directory /var/tmp/tally-base.XXXXXX)
trap 'rm -rf "$folder"' EXIT
name=$1; shift
mmdebstrap --quiet --variant=minbase "$@" trixie "$folder/base.tar"
docker import "$folder/base.tar" "$name"
"""


def _build_base(machine: Machine) -> None:
    if not machine.run(["mmdebstrap", "--version"]).ok:
        packages.install(machine, "mmdebstrap", "debian-archive-keyring")
    options = [f"--dpkgopt={option}" for option in LEAN]
    done = machine.run(
        ["sh", "-c", docker_command.script(machine, BUILD_BASE), "build", BASE, *options])
    if not done.ok:
        progress.quote(done.stderr.splitlines()[-10:])
        raise Refused("the base image can be neither pulled nor built",
                      "make a container registry or Debian's package mirror reachable, "
                      "then ./fab bootstrap")
