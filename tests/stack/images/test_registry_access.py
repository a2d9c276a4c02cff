"""A registry's credentials are in Docker's own files, and each obstacle is reported."""

import base64
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import bcrypt
import docker
import pytest

from stack.engine.engine import Engine
from stack.images import registry_access
from stack.images.registry_access import (
    RegistryAccess, cause_of, check, docker_config, give_credentials, htpasswd, parse_credentials,
    read_credentials, trust)
from stack.machines.local import LocalMachine
from tests.support.failing import error_of
from tests.support.serving import serving

pytestmark = pytest.mark.unit

OWN = RegistryAccess("192.0.2.11:5000", "tally", "secret", ca="-----BEGIN CERTIFICATE-----\n")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this machine keep Docker's files in the test's folder."""
    monkeypatch.setattr(registry_access, "DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(registry_access, "CREDENTIALS", str(tmp_path / "docker/config.json"))
    monkeypatch.setattr(registry_access, "CA", str(tmp_path / "certs.d/{host}/ca.crt"))
    return tmp_path


@pytest.mark.parametrize(("address", "host", "prefix"), [
    ("192.0.2.11:5000", "192.0.2.11:5000", "192.0.2.11:5000/tally"),
    ("registry.example.org", "registry.example.org", "registry.example.org/tally"),
    ("registry.example.org/team", "registry.example.org", "registry.example.org/team/tally"),
    ("registry.example.org:8443/team/web", "registry.example.org:8443",
     "registry.example.org:8443/team/web/tally")])
def test_image_names_begin_with_the_full_address(
        address: str, host: str, prefix: str) -> None:
    found = RegistryAccess(address, "tally", "secret")

    assert (found.host, found.prefix) == (host, prefix)


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(OWN)


def test_the_registry_knows_the_password_by_its_bcrypt_hash() -> None:
    user, _, hashed = htpasswd("tally", "secret").strip().partition(":")

    assert user == "tally"
    assert bcrypt.checkpw(b"secret", hashed.encode())
    assert not bcrypt.checkpw(b"Secret", hashed.encode())


def test_hashes_of_the_same_password_differ() -> None:
    assert htpasswd("tally", "secret") != htpasswd("tally", "secret")


def test_docker_finds_the_credentials_under_the_host() -> None:
    team = RegistryAccess("registry.example.org/team", "robot$deploy", "secret")

    assert json.loads(docker_config(team)) == {"auths": {"registry.example.org": {
        "auth": base64.b64encode(b"robot$deploy:secret").decode()}}}


def test_a_registry_without_a_user_gets_no_credentials() -> None:
    nobodys = RegistryAccess("registry.example.org", "", "")
    assert json.loads(docker_config(nobodys)) == {"auths": {}}


@pytest.mark.parametrize("password", ["secret", "a:b", "", "ü ☃", "a\"\\"])
def test_written_credentials_are_read_back(password: str) -> None:
    written = docker_config(RegistryAccess("192.0.2.11:5000", "tally", password))

    assert parse_credentials(written, "192.0.2.11:5000") == ("tally", password)
    assert parse_credentials(written, "192.0.2.12:5000") is None


@pytest.mark.parametrize("config", [
    "", "{", "[]", "{}", "null", '{"auths": null}', '{"auths": {"192.0.2.11:5000": {}}}',
    '{"auths": {"192.0.2.11:5000": {"auth": 1}}}', '{"auths": {"192.0.2.11:5000": {"auth": ""}}}',
    '{"auths": {"192.0.2.11:5000": {"auth": "dGFsbHk="}}}',
    '{"auths": {"192.0.2.11:5000": {"auth": "/w=="}}}',
    '{"auths": {"192.0.2.11:5000": {"auth": "OnNlY3JldA=="}}}'])
def test_a_broken_file_has_no_credentials(config: str) -> None:
    assert parse_credentials(config, "192.0.2.11:5000") is None


def test_credentials_are_written_once_and_only_for_the_owner(
        here: Path, machine: LocalMachine) -> None:
    assert [give_credentials(machine, OWN), give_credentials(machine, OWN)] == [True, False]

    modes = [(here / name).stat().st_mode & 0o777 for name in ("docker", "docker/config.json")]
    assert modes == [0o700, 0o600]
    assert read_credentials(machine, OWN.host) == ("tally", "secret")


def test_a_folder_that_others_may_read_is_closed(here: Path, machine: LocalMachine) -> None:
    (here / "docker").mkdir(mode=0o755)

    give_credentials(machine, OWN)

    assert (here / "docker").stat().st_mode & 0o777 == 0o700


def test_a_machine_without_the_file_has_no_credentials(here: Path, machine: LocalMachine) -> None:
    assert read_credentials(machine, OWN.host) is None


def test_the_ca_is_trusted_for_the_registrys_host(here: Path, machine: LocalMachine) -> None:
    assert [trust(machine, OWN), trust(machine, OWN)] == [True, False]

    assert (here / "certs.d/192.0.2.11:5000/ca.crt").read_text() == OWN.ca


def test_a_public_ca_needs_no_trust(here: Path, machine: LocalMachine) -> None:
    assert not trust(machine, RegistryAccess("registry.example.org", "tally", "secret"))
    assert list(here.iterdir()) == []


# As Docker 26.1 prints it.
@pytest.mark.parametrize(("said", "cause"), [
    ("login attempt to https://192.0.2.11:5000/v2/ failed with status: 401 Unauthorized",
     "it rejects the password"),
    ('Get "https://registry.example.org/v2/": unauthorized: HTTP Basic: Access denied',
     "it rejects the password"),
    ('Get "https://192.0.2.11:5000/v2/": no basic auth credentials', "it requires a password"),
    ('Get "https://192.0.2.11:5000/v2/": http: server gave HTTP response to HTTPS client',
     "it doesn't use TLS"),
    ('Get "https://192.0.2.11:5000/v2/": tls: first record does not look like a TLS handshake',
     "it doesn't use TLS"),
    ('Get "https://192.0.2.11:5000/v2/": tls: failed to verify certificate: x509: certificate '
     "has expired or is not yet valid: current time 2026-01-01T00:00:00Z is after "
     "2025-01-01T00:00:00Z", "its certificate has expired"),
    ('Get "https://192.0.2.11:5000/v2/": tls: failed to verify certificate: x509: certificate '
     "signed by unknown authority", "its certificate isn't trusted"),
    ('Get "https://192.0.2.12:5000/v2/": tls: failed to verify certificate: x509: certificate '
     "is valid for 192.0.2.11, not 192.0.2.12", "its certificate is for another address"),
    ('Get "https://192.0.2.11:5000/v2/": dial tcp 192.0.2.11:5000: connect: connection refused',
     "nothing is listening there"),
    ('Get "https://registry.example.org/v2/": dial tcp: lookup registry.example.org on '
     "192.0.2.53:53: no such host", "its name can't be resolved"),
    ('Get "https://192.0.2.11:5000/v2/": dial tcp 192.0.2.11:5000: connect: no route to host',
     "there is no route to it"),
    ('Get "https://192.0.2.11:5000/v2/": net/http: request canceled while waiting for connection '
     "(Client.Timeout exceeded while awaiting headers)", "it doesn't answer"),
    ("login attempt to http://192.0.2.11/v2/ failed with status: 404 Not Found\n",
     "login attempt to http://192.0.2.11/v2/ failed with status: 404 Not Found"),
])
def test_the_reason_for_a_failed_login_is_reported(said: str, cause: str) -> None:
    assert cause_of(said) == cause


class Api(BaseHTTPRequestHandler):
    """An engine that accepts only one password."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        right = (self.path, asked) == ("/v1.41/auth", {
            "username": "tally", "password": "secret", "serveraddress": "192.0.2.11:5000"})
        said = {"Status": "Login Succeeded"} if right else {
            "message": "login attempt to https://192.0.2.11:5000/v2/ failed with status: "
                       "401 Unauthorized"}
        self.send_response(200 if right else 500)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


def test_an_engine_that_cant_log_in_is_refused_in_one_line() -> None:
    right, wrong = (RegistryAccess("192.0.2.11:5000/team", "tally", password)
                    for password in ("secret", "wrong"))
    with serving(Api) as port:
        engine = Engine(docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", version="1.41"))

        check(engine, right)
        line = error_of(lambda: check(engine, wrong))

    assert line == ("the registry 192.0.2.11:5000: it rejects the password: ./fab bootstrap "
                    "repairs the Swarm's own; for another, correct the inventory")
