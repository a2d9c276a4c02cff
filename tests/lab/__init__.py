"""Boot real Debian 13 machines with systemd, cloud-init and SSH, for tests or for manual use.

    from tests.lab import Lab

    with Lab() as lab:
        first, second = lab.boot(2)
        print(first.run("hostname").stdout)

Each machine is a systemd-nspawn container with its own network namespace and disk, on a private
bridge. The lab needs root and `PACKAGES`, but no Docker.
"""

from tests.lab.errors import CommandFailed, LabError
from tests.lab.host import TOOLS
from tests.lab.lab import Lab
from tests.lab.machine import Machine
from tests.lab.ssh import Result

__all__ = ["PACKAGES", "CommandFailed", "Lab", "LabError", "Machine", "Result"]

# The Debian packages that the lab needs on its host.
PACKAGES = tuple(sorted({"ca-certificates", "debian-archive-keyring", *TOOLS.values()}))
