"""Boot the tests' machines to try things by hand."""

import os
import subprocess
import sys

from invoke.exceptions import Exit

from stack import rings
from stack.privilege import require_root
from stack.settings import ROOT


def run(*arguments: str) -> None:
    """Run the lab's own command as root, after installing what it needs."""
    require_root("the lab")
    rings.install_packages(rings.LAB)
    # Root's compiled files would be in the way of the checkout's owner.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if code := subprocess.run([sys.executable, "-m", "tests.lab", *arguments], cwd=ROOT,
                              env=environment).returncode:
        raise Exit(code=code)
