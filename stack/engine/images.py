"""An engine's images, and those of the registries that it can ask."""

from collections.abc import Mapping
from datetime import datetime

import docker

from stack.engine.failures import Missing, translated

# A registry's `username` and `password`.
Credentials = dict[str, str]


class Images:
    """The images of one engine."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    def id(self, name: str) -> str:
        """Return the id of a local image, or "" if there is none."""
        try:
            with translated():
                return str(self._client.images.get(name).id)
        except Missing:
            return ""

    def labels(self, name: str) -> Mapping[str, str] | None:
        """Return the labels of a local image, or None if there is none."""
        try:
            with translated():
                return self._client.images.get(name).labels
        except Missing:
            return None

    def created(self, name: str) -> datetime | None:
        """Return when a local image was made, or None if there is none."""
        try:
            with translated():
                return datetime.fromisoformat(self._client.images.get(name).attrs["Created"])
        except Missing:
            return None

    def digest(self, name: str, credentials: Credentials | None = None) -> str:
        """Return an image's digest in its registry; raises ApiError if it isn't there."""
        with translated():
            return str(self._client.images.get_registry_data(name, auth_config=credentials).id)

    def pull(self, name: str, credentials: Credentials | None = None) -> None:
        """Fetch an image from its registry."""
        with translated():
            self._client.images.pull(name, auth_config=credentials)

    def tag(self, name: str, new: str) -> None:
        """Give a local image another name."""
        with translated():
            self._client.images.get(name).tag(new)
