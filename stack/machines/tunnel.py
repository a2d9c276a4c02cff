"""Bring a far Engine's socket to this machine, through the SSH connection that is open anyway."""

import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paramiko import Channel, SSHException

from stack.errors import OperatorError

CHUNK = 65536
# What paramiko raises where a channel is read or written whose connection has ended.
LOST = (SSHException, OSError, EOFError)


class Tunnel:
    """A local socket that connects its clients to the Engine that `dial` reaches.

    `dial` opens a channel to an Engine's API for each connection, so that it may
    lead to another machine when the first has gone.
    """

    def __init__(self, dial: Callable[[], Channel]) -> None:
        self._dial = dial
        # Nobody else may go through: the other end is root's.
        self._folder = tempfile.TemporaryDirectory(prefix="tally-engine-")
        path = Path(self._folder.name, "docker.sock")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self.host = f"unix://{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:  # Closed.
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = self._dial()
        except OperatorError:
            # The client sees a connection that ends, and says so.
            near.close()
            return
        back = threading.Thread(target=_bring_back, args=(far, near), daemon=True)
        back.start()
        _carry_over(near, far)
        back.join()
        near.close()
        with suppress(*LOST):
            far.close()


def _carry_over(near: socket.socket, far: Channel) -> None:
    try:
        while data := near.recv(CHUNK):
            far.sendall(data)
        end_input(far)
    except LOST:
        _hang_up(near)


def end_input(channel: Channel) -> None:
    """Say that nothing more comes, unless the other end has closed the channel already."""
    if not channel.closed:
        channel.shutdown_write()


def _bring_back(far: Channel, near: socket.socket) -> None:
    with suppress(*LOST):
        while data := far.recv(CHUNK):
            near.sendall(data)
    # An answer that ended early ends the connection.
    _hang_up(near)


def _hang_up(near: socket.socket) -> None:
    """End both directions, which wakes a thread that waits in one of them."""
    with suppress(OSError):
        near.shutdown(socket.SHUT_RDWR)
