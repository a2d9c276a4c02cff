"""Keep an engine's objects in memory and answer for them in the Engine API's terms.

The SDK's own requests are answered, so that a test sees what an engine would see. It
stands in where a real Swarm can't be had: the unit ring runs without Docker.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import docker

from tests.stack.serving import serving

Objects = dict[str, dict[str, Any]]


@dataclass
class Engine:
    """An engine's objects, by kind and id; while `failing` it answers nothing else than 503."""

    kinds: dict[str, Objects] = field(default_factory=lambda: {
        "configs": {}, "services": {}, "tasks": {}, "containers": {}, "nodes": {},
        "networks": {}})
    failing: bool = False
    made: int = 0

    def answer(self, method: str, path: list[str], query: dict[str, list[str]],
               body: dict[str, Any]) -> tuple[int, Any]:
        """Return a request's status and what is answered."""
        if self.failing:
            return 503, {"message": "the Swarm has no leader"}
        objects = self.kinds[path[0]]
        if method == "GET" and path[1:] in ([], ["json"]):
            wanted = json.loads(query.get("filters", ["{}"])[0])
            return 200, [each for each in objects.values() if self._matches(each, wanted)]
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
        return 200, objects[key]

    def _matches(self, each: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
        # A task is found by its service's labels.
        labelled = self.kinds.get("services", {}).get(each.get("ServiceID", ""), each)
        labels = labelled.get("Labels") or labelled.get("Spec", {}).get("Labels") or {}
        given = {"label": {*labels, *(f"{key}={value}" for key, value in labels.items())},
                 "service": {each.get("ServiceID")}, "id": {each.get("ID")}}
        # An engine takes a name for the beginning of one.
        return all(_name(each).startswith(value) if key == "name" else value in given[key]
                   for key, values in wanted.items() for value in values)


def _name(each: dict[str, Any]) -> str:
    return str(each.get("Spec", {}).get("Name", ""))


@contextmanager
def reached(engine: Engine) -> Iterator[docker.DockerClient]:
    """Yield a client of the engine; afterwards nothing answers it any more."""
    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # The first part of the path is the API's version.
            status, said = engine.answer(self.command, url.path.split("/")[2:],
                                         parse_qs(url.query), json.loads(text or "{}"))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if said is not None:
                self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

        do_POST = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with serving(Api) as port:
        yield docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", version="1.41", timeout=10)
