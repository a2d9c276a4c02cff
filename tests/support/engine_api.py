"""A stand-in for an engine: it keeps objects in memory and serves them as the Engine API does.

It answers the SDK's real requests, so that a test sees what an engine would see. Unit tests use
it because they run without Docker.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import docker

from stack.engine.engine import Engine
from tests.support.serving import serving

Objects = dict[str, dict[str, Any]]
EPOCH = "1970-01-01T00:00:00Z"


@dataclass
class FakeEngine:
    """An engine's objects, by kind and ID; while `failing`, every answer is 503."""

    kinds: dict[str, Objects] = field(default_factory=lambda: {
        "configs": {}, "services": {}, "tasks": {}, "containers": {}, "nodes": {},
        "networks": {}})
    failing: bool = False
    made: int = 0

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        if self.failing:
            return 503, {"message": "the Swarm has no leader"}
        if path[0] == "images":
            # An image's name has slashes.
            path = ["images", "/".join(path[1:-1]), path[-1]]
        objects = self.kinds[path[0]]
        if method == "GET" and path[1:] in ([], ["json"]):
            wanted = json.loads(query.get("filters", ["{}"])[0])
            return 200, [_dated(each) for each in objects.values() if self._matches(each, wanted)]
        if path[1:] == ["create"]:
            return self._create(objects, body)
        found = [key for key, each in objects.items() if path[1] in (key, _name(each))]
        if not found:
            return 404, {"message": f"{path[1]} not found"}
        return self._answer_for(objects, found[0], method, body)

    def _create(self, objects: Objects, body: dict[str, Any]) -> tuple[int, Any]:
        if body["Name"] in map(_name, objects.values()):
            return 409, {"message": f"{body['Name']} already exists"}
        self.made += 1
        new = f"id{self.made}"
        objects[new] = {"ID": new, "Version": {"Index": self.made}, "Spec": body}
        return 201, {"ID": new}

    def _answer_for(self, objects: Objects, key: str, method: str,
                    body: dict[str, Any]) -> tuple[int, Any]:
        if method == "DELETE":
            del objects[key]
            return 204, None
        if method == "POST":
            objects[key]["Spec"] = body
        return 200, _dated(objects[key])

    def _matches(self, each: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
        # The label filter for tasks applies to their services.
        labelled = self.kinds.get("services", {}).get(each.get("ServiceID", ""), each)
        labels = labelled.get("Labels") or labelled.get("Spec", {}).get("Labels") or {}
        given = {"label": {*labels, *(f"{key}={value}" for key, value in labels.items())},
                 "service": {each.get("ServiceID")}, "id": {each.get("ID")}}
        # An engine also matches names that begin with the filter.
        return all(_name(each).startswith(value) if key == "name" else value in given[key]
                   for key, values in wanted.items() for value in values)


def _dated(each: dict[str, Any]) -> dict[str, Any]:
    """Add the times and the version that every engine gives, where a test has none."""
    dated = {"CreatedAt": EPOCH, "UpdatedAt": EPOCH, "Version": {"Index": 0}, **each}
    if "Status" in each:
        dated["Status"] = {"Timestamp": EPOCH, **each["Status"]}
    return dated


def _name(each: dict[str, Any]) -> str:
    return str(each.get("Spec", {}).get("Name", ""))


@contextmanager
def reached(fake: FakeEngine) -> Iterator[Engine]:
    """Serve the engine during the block, and yield a client of it."""
    with listening(fake) as client:
        yield Engine(client)


@contextmanager
def listening(fake: FakeEngine) -> Iterator[docker.DockerClient]:
    """Yield the SDK's client of an engine that answers as long as this lasts."""
    class Api(BaseHTTPRequestHandler):
        # As the engine does, keep the connection for the next request.
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # The first part of the path is the API's version.
            status, said = fake.answer(self.command, url.path.split("/")[2:],
                                       parse_qs(url.query), json.loads(text or "{}"))
            self.send_response(status)
            body = said if isinstance(said, bytes) else \
                b"" if said is None else json.dumps(said).encode()
            self.send_header("Content-Type", "application/json")
            if status != HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with serving(Api) as port:
        yield docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", version="1.41", timeout=10)
