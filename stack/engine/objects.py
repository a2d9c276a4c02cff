"""Ask an engine for objects of one kind, such as nodes, as its API has them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import docker
import requests
from docker.errors import APIError

from stack.engine.failures import translated

UPDATE_TIMEOUT = 10  # seconds
Object = dict[str, Any]
Filters = Mapping[str, str]


class Objects:
    """The objects of one kind; every method raises EngineError.

    These are the API's own requests: the SDK lacks some updates, and in others rewrites half of
    the definition.
    """

    def __init__(self, client: docker.DockerClient, kind: str) -> None:
        self._client, self._kind = client, kind

    def list(self, filters: Filters | None = None) -> Sequence[Object]:
        """Return the objects that match the API's filters, or all."""
        named = {name: [value] for name, value in (filters or {}).items()}
        found: Sequence[Object] = read(self._client, "GET", self._kind, params={
            "filters": json.dumps(named)} if named else {})
        return found

    def inspect(self, key: str, timeout: float | None = None) -> Object:
        """Return an object by its id or name; raises Missing."""
        found: Object = read(self._client, "GET", f"{self._kind}/{key}", timeout)
        return found

    def create(self, definition: Object) -> str:
        """Create an object and return its id; raises Conflict if its name is taken."""
        return str(read(self._client, "POST", f"{self._kind}/create", json=definition)["ID"])

    def update(self, found: Object, definition: Object) -> None:
        """Give an object, as it was read, a new definition.

        Fails if somebody else has changed it since: "update out of sequence".
        """
        request(self._client, "POST", f"{self._kind}/{found['ID']}/update", UPDATE_TIMEOUT,
                json=definition, params={"version": found["Version"]["Index"]})

    def remove(self, key: str, force: bool = False) -> None:
        """Remove an object by its id or name; raises Missing."""
        request(self._client, "DELETE", f"{self._kind}/{key}",
                params={"force": "true"} if force else {})


def read(client: docker.DockerClient, method: str, path: str, timeout: float | None = None,
         **options: Any) -> Any:
    """Return the JSON that an engine answers; see request."""
    with translated():
        return request(client, method, path, timeout, **options).json()


def request(client: docker.DockerClient, method: str, path: str, timeout: float | None = None,
            **options: Any) -> requests.Response:
    """Return the engine's answer; `timeout` is in seconds, the client's by default."""
    api = client.api
    with translated():
        answer = api.request(method, f"{api.base_url}/v{api.api_version}/{path}",
                             timeout=timeout or api.timeout, **options)
        if not answer.ok:
            raise APIError(f"{answer.status_code} {answer.reason}", answer, _explanation(answer))
        return answer


def _explanation(answer: requests.Response) -> str:
    """Return the reason that an engine gives for an error."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text.strip()
