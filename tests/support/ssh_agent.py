"""Run a real ssh-agent for a test."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def agent(path: Path, *keys: Path) -> Iterator[Path]:
    """Yield the socket of an agent that holds these keys."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 10
            while not answers(path):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
            for key in keys:
                subprocess.run(["ssh-add", "-q", key], check=True,
                               env={**os.environ, "SSH_AUTH_SOCK": str(path)})
            yield path
        finally:
            process.terminate()


def answers(path: Path) -> bool:
    """Return whether something listens on a socket, which exists before that."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0
