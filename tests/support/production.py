"""Serve the application with the files of its image, on ports of the loopback interface."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.ports import free_port
from tests.support.services import ROOT, START_SECONDS, ServiceError, wait_until

IMAGE_FILES = ROOT / "stack/images/app"
# HAProxy has a listener of its own for the container's health check, which asks 127.0.0.1.
STRANGERS = "127.0.0.2"


@dataclass
class Production:
    """./serve in a folder like the image's, with HAProxy in front of uWSGI."""

    folder: Path
    environ: dict[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def log(self) -> str:
        """Return what the servers and the application have logged."""
        return (self.folder / "log").read_text(errors="replace")

    def prepare(self) -> None:
        """Copy the image's files; change only the port and the folder of temporary files."""
        (self.folder / "app").symlink_to(ROOT / "app")
        for source in IMAGE_FILES.iterdir():
            text = source.read_text()
            for place in ("bind :", "127.0.0.1:", "127.0.0.1/"):
                text = text.replace(f"{place}8000", f"{place}{self.port}")
            text = text.replace("/tmp/", f"{self.folder}/")
            (self.folder / source.name).write_text(text)
            shutil.copymode(source, self.folder / source.name)

    def start(self) -> None:
        """Start the servers and wait until the application is ready."""
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["./serve"], cwd=self.folder, env=self.environ, stdout=log, stderr=log)
        wait_until(self.is_ready, "HAProxy and uWSGI serve")

    def is_ready(self) -> bool:
        """Return whether the image's health check passes; raise if the servers ended."""
        if self.process.poll() is not None:
            raise ServiceError(f"./serve ended with code {self.process.returncode}: {self.log}")
        return self.probe().returncode == 0

    def probe(self) -> subprocess.CompletedProcess[str]:
        """Run the image's health check."""
        return subprocess.run(["./probe"], cwd=self.folder, capture_output=True, text=True)

    @property
    def haproxy(self) -> int:
        """Return HAProxy's process ID."""
        return int((self.folder / "haproxy.pid").read_text())

    @property
    def uwsgi(self) -> int:
        """Return the process ID of uWSGI's master, the only child of ./serve."""
        (child,) = children(self.process.pid)
        return child

    def workers(self) -> list[int]:
        """Return the process IDs of uWSGI's workers."""
        return [child for child in children(self.uwsgi) if child != self.haproxy]

    def accepts(self) -> bool:
        """Return whether HAProxy accepts a connection."""
        with contextlib.suppress(ConnectionRefusedError):
            self.connect().close()
            return True
        return False

    def stop(self) -> int:
        """Stop the servers as Docker does, and return their exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_SECONDS)

    def connect(self) -> socket.socket:
        """Connect like a stranger."""
        return socket.create_connection((STRANGERS, self.port), START_SECONDS)

    def ask(self, sent: bytes) -> bytes:
        """Send these bytes and return everything that comes back before the end."""
        with self.connect() as client:
            # HAProxy may answer and close before it has read everything.
            with contextlib.suppress(ConnectionError):
                client.sendall(sent)
            return received(client)


def children(process: int) -> list[int]:
    """Return the process IDs of a process's children."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def received(client: socket.socket) -> bytes:
    """Return everything that the server sends before it closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65536):
            answer += part
    return answer


def status(answer: bytes) -> int:
    """Return an answer's status; 0 if there is no answer."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def settings(folder: Path) -> dict[str, str]:
    """Return the environment of the image, with everything in a folder."""
    programs = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
    path = os.pathsep.join(programs)
    if shutil.which("haproxy", path=path) is None:
        raise ServiceError("no HAProxy: apt-get install haproxy")
    return {"PATH": path, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "DRAIN_SECONDS": "0", "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def production(folder: Path, environ: dict[str, str]) -> Iterator[Production]:
    """Serve an application with this environment during a with block."""
    server = Production(folder, {**settings(folder), **environ})
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
