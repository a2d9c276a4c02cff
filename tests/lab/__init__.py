"""Boot real Debian 13 machines, with systemd, cloud-init and SSH, for tests and by hand.

    from tests.lab import Lab

    with Lab() as lab:
        first, second = lab.boot(2)
        print(first.run("hostname").stdout)

Each machine is a systemd-nspawn container with a network namespace and a disk of its own on a
private bridge. The lab needs root, `PACKAGES`, and no Docker.
"""

from tests.lab.errors import CommandFailed, LabError
from tests.lab.host import TOOLS
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.ssh import Result

__all__ = ["PACKAGES", "CommandFailed", "Lab", "LabError", "Machine", "Result"]

# The Debian packages that the lab itself needs on the host that runs it.
PACKAGES = tuple(sorted({"ca-certificates", "debian-archive-keyring", *TOOLS.values()}))
