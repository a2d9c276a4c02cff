"""Install Debian packages on a machine."""

from stack import waiting
from stack.errors import Refused
from stack.machines.machine import Completed, Machine

APT = ("apt-get", "--quiet=2", "--option=DPkg::Lock::Timeout=300")
NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}


def install(machine: Machine, *names: str) -> None:
    """Install those packages that the distribution has, and their needs only.

    A source that fails doesn't matter as long as the others have what is needed.
    Raises Refused if no package source answers or the first name isn't to be had.
    """
    # A command that was killed may have left packages half installed.
    machine.run(["dpkg", "--configure", "--pending"], env=NONINTERACTIVE)
    updated = _update_lists(machine)
    known = [name for name in names
             if machine.run(["apt-cache", "show", "--quiet=2", name]).ok]
    done = machine.run([*APT, "install", "--yes", "--no-install-recommends", *known],
                       env=NONINTERACTIVE)
    if not updated.ok and (names[0] not in known or not done.ok):
        raise Refused(f"no package source answers ({updated.last_line})",
                      "check the network and the sources with: apt-get update")
    if names[0] not in known:
        raise Refused(f"the package sources have no {names[0]}", "check them: apt-get update")
    if not done.ok:
        raise Refused(f"{', '.join(known)} could not be installed ({done.last_line})",
                      "apt-get install " + " ".join(known))


def _update_lists(machine: Machine, patience: float = 300) -> Completed:
    """Run apt-get update, which unlike install doesn't wait for another apt by itself."""
    return waiting.until(
        lambda: machine.run([*APT, "update", "--error-on=any"], env=NONINTERACTIVE), patience,
        done=lambda update: update.ok or "Could not get lock" not in update.stderr, every=2)
