"""Read what a container has written, message by message."""

import struct
from dataclasses import dataclass

import docker

from stack.engine.failures import ApiError, Missing, cause_of
from stack.engine.objects import request

# Before each message of a log: its stream and its length, after /containers/{id}/attach in the
# Engine API's reference. What the engine itself has to say comes in a stream of its own.
MESSAGE = struct.Struct(">BxxxL")
ENGINES_OWN = 3
# Docker splits longer lines (moby/moby, daemon/logger/copier.go).
LONGEST_MESSAGE = 16384


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A line that a container wrote, or a part of one, and when: as RFC 3339.

    `stream` is 1 for stdout and 2 for stderr.
    """

    stream: int
    time: str
    text: bytes

    @property
    def ends(self) -> bool:
        """Whether it is the end of a line; of a long one, Docker 20.10 doesn't say so."""
        return self.text.endswith(b"\n") or len(self.text) < LONGEST_MESSAGE


@dataclass(frozen=True)
class ContainerLog:
    """The messages of a container that could be read; `trouble` is why others couldn't."""

    messages: list[LogMessage]
    trouble: str = ""


def read(client: docker.DockerClient, container: str, tail: int | None,
         timeout: float) -> ContainerLog:
    """Return the last messages of a container without a terminal, or all; none if it is gone.

    The SDK would lose where a message begins. Raises EngineError, also after so many seconds of
    silence.
    """
    try:
        answer = request(client, "GET", f"containers/{container}/logs", timeout, params={
            "stdout": 1, "stderr": 1, "timestamps": 1, "tail": "all" if tail is None else tail})
    except Missing:
        return ContainerLog([])
    except ApiError as error:
        return ContainerLog([], cause_of(error))
    return _messages(answer.content)


def _messages(content: bytes) -> ContainerLog:
    found, said, position = list[LogMessage](), b"", 0
    while position + MESSAGE.size <= len(content):
        stream, length = MESSAGE.unpack_from(content, position)
        position += MESSAGE.size + length
        text = content[position - length:position]
        if stream == ENGINES_OWN:
            said += text
        else:
            time, _, text = text.partition(b" ")
            found.append(LogMessage(stream, time.decode(errors="replace"), text))
    return ContainerLog(found, " ".join(said.decode(errors="replace").split()))
