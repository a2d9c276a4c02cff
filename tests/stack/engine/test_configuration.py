"""A person's Docker configuration has no say in what an engine is asked."""

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Thread
from typing import Any

import pytest

from stack.engine.connection import connect
from stack.engine.engine import Engine
from stack.machines.local import LocalMachine
from tests.stack.conftest import AddCommand

pytestmark = pytest.mark.unit

REGISTRY = "registry.example.org"
IMAGE = f"{REGISTRY}/team/app:1"
SERVICE = {"Name": "app", "Labels": {}, "Mode": {"Replicated": {"Replicas": 1}},
           "TaskTemplate": {"ContainerSpec": {"Image": IMAGE}}}
LOGIN = base64.b64encode(b"person:secret").decode()
HELPERS = {"credsStore": "recording", "credHelpers": {REGISTRY: "recording"}}
CONFIGURATIONS: tuple[Any, ...] = (
    HELPERS, {"credsStore": "missing"}, {"auths": {REGISTRY: {"auth": LOGIN}}},
    {"auths": {REGISTRY: {"auth": "broken"}}}, {"auths": []}, [],
    {"HttpHeaders": {"X-Theirs": "1"}},
    {"proxies": {"default": {"httpProxy": "http://192.0.2.1:3128"}}}, {"proxies": []})


class Api(BaseHTTPRequestHandler):
    """Answer as an engine does, and keep what was asked and its headers."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
        body: dict[str, Any] = {"Descriptor": {"digest": "sha256:1"}, "Platforms": [], "ID": "s1"}
        if path == "/version":
            body = {"ApiVersion": "1.41", "Version": "20.10.24"}
        if path.endswith("/auth"):
            body = {"Status": "Login Succeeded"}
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


class Socket(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[Any, str]:
        return super().get_request()[0], "a client"


class Far(LocalMachine):
    """A machine whose engine listens on the test's socket."""

    def __init__(self, socket: Path) -> None:
        self.docker_host = f"unix://{socket}"


@pytest.fixture
def helper(tmp_path: Path, add_command: AddCommand) -> Path:
    """A credential helper; return the record of its calls."""
    said = tmp_path / "helper.said"
    add_command("docker-credential-recording", f'echo "$@" >> {said}',
                'echo \'{"ServerURL": "", "Username": "person", "Secret": "secret"}\'')
    return said


@pytest.fixture(params=CONFIGURATIONS, ids=json.dumps)
def engine(request: pytest.FixtureRequest, tmp_path: Path, helper: Path,
           monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine of a person who has this configuration, at both of its places."""
    folder = tmp_path / "home/.docker"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(request.param))
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    Api.asked = []
    path = tmp_path / "docker.sock"
    with Socket(str(path), Api) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made = connect(Far(path))
        yield made
        made.close()
        server.shutdown()


def test_an_engine_is_asked_without_a_persons_credentials(engine: Engine, helper: Path) -> None:
    assert engine.images.digest(IMAGE) == "sha256:1"
    engine.images.pull(IMAGE)
    engine.create_service(SERVICE)

    assert not helper.exists()
    assert [path for path, _ in Api.asked] == [
        "/version", f"/v1.41/distribution/{IMAGE}/json", "/v1.41/images/create",
        f"/v1.41/images/{IMAGE}/json", "/v1.41/services/create"]
    for _, headers in Api.asked:
        assert not {"x-registry-auth", "x-theirs"} & headers.keys()


def test_only_the_credentials_of_the_login_reach_the_nodes(engine: Engine, helper: Path) -> None:
    engine.log_in(REGISTRY, "tally", "other")
    engine.create_service(SERVICE)

    assert not helper.exists()
    sent = json.loads(base64.urlsafe_b64decode(Api.asked[-1][1]["x-registry-auth"]))
    assert (sent["username"], sent["password"]) == ("tally", "other")
