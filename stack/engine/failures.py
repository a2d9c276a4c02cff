"""What an engine, or the way to it, fails with, and how to say so."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
from docker.errors import APIError, DockerException
from urllib3.exceptions import HTTPError

from stack.errors import OperatorError

# How Docker says that the managers have no majority, or are electing a leader.
LEADERLESS = "does not have a leader"


class EngineError(OperatorError):
    """The engine, or the way to it, failed.

    `explanation` is the reason as the engine gives it, or else the way to it; `kind` is the
    SDK's name for such a failure.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.explanation = str(isinstance(error, APIError) and error.explanation or error)
        self.kind = type(error).__name__


class ApiError(EngineError):
    """The engine answered that it can't do what it was asked."""


class Missing(ApiError):
    """There is no such object."""


class Conflict(ApiError):
    """The name is taken."""


KINDS: dict[int | None, type[ApiError]] = {
    HTTPStatus.NOT_FOUND: Missing, HTTPStatus.CONFLICT: Conflict}


@contextmanager
def translated() -> Iterator[None]:
    """Raise the SDK's exceptions as an EngineError."""
    try:
        yield
    except APIError as error:
        raise KINDS.get(error.status_code, ApiError)(error) from error
    # urllib3's come where an answer is streamed, as while an image is pulled.
    except (DockerException, requests.RequestException, HTTPError) as error:
        raise EngineError(error) from error


@contextmanager
def ending_the_command() -> Iterator[None]:
    """Say in one line that the engine failed in the middle of a command."""
    try:
        yield
    except EngineError as error:
        raise OperatorError(f"the Docker Engine failed during the command ({cause_of(error)})",
                            "./fab status, then the same command again") from error


def cause_of(error: Exception) -> str:
    """Say in a few words why an engine couldn't do what it was asked."""
    match error:
        case EngineError(explanation=text, kind=kind):
            return _in_short(text) or kind
        case OperatorError(cause=cause):
            return cause
    return _in_short(str(error)) or type(error).__name__


def _in_short(text: str) -> str:
    for sign, cause in ((LEADERLESS, "the Swarm has no leader"),
                        ("Permission denied", "this user may not open its socket"),
                        ("No such file", "there is no socket"),
                        ("Connection refused", "nothing listens on its socket"),
                        ("timed out", "the engine doesn't answer"),
                        ("Connection aborted", "the connection ended"),
                        ("Connection broken", "the connection ended")):
        if sign in text:
            return cause
    return next(iter(text.splitlines()), "")[:120]
