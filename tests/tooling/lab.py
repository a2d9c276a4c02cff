"""Boot the tests' machines for manual use."""

import os
import subprocess
import sys

from invoke.exceptions import Exit

from stack.inventory.settings import ROOT
from stack.machines.sudo import require_root
from tests.tooling import rings


def run(*arguments: str) -> None:
    """Run the lab's command as root, after installing its packages."""
    require_root("the lab")
    rings.install_packages(rings.LAB)
    # The checkout's owner couldn't remove root's compiled files.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if code := subprocess.run([sys.executable, "-m", "tests.lab", *arguments], cwd=ROOT,
                              env=environment).returncode:
        raise Exit(code=code)
