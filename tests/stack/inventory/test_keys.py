"""Besides nodes, an inventory may set a registry, images, ports and replicas."""

from pathlib import Path

import pytest
import yaml

from stack.inventory import REPLACEABLE, Ports, Registry, Replicas
from stack.inventory.settings import ROOT
from tests.support.inventories import ONE, load, mistakes

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize("address", [
    "registry.example.org", "registry.example.org/team", "registry.example.org:5000/team/web_1",
    "192.0.2.9:5000", "192.0.2.9", "registry:5000", "localhost:65535",
    "registry.example.org/a.b/c--d/e__f", "r.example.org/" + "a" * 186])
def test_a_registry_is_a_host_with_an_optional_port_and_path(tmp_path: Path, address: str) -> None:
    assert load(tmp_path, f"{ONE}registry: {{address: '{address}'}}\n").registry \
        == Registry(address, user=None, password_file=None, ca=None)


def test_a_registry_may_require_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    text = ("registry: {address: registry.example.org, user: robot$ci+1, "
            "password_file: ~/password, ca: /srv/ca.pem}\n")

    assert load(tmp_path, ONE + text).registry == Registry(
        "registry.example.org", "robot$ci+1", Path("/home/ada/password"), Path("/srv/ca.pem"))


@pytest.mark.parametrize("address", [
    "https://registry.example.org", "registry.example.org/", "registry.example.org/team:1",
    "registry", "registry/team", "registry.example.org/Team", "registry.example.org:0",
    "registry.example.org:65536/team", "registry.example.org//team", "-r.example.org",
    "ci@registry.example.org", "registry.example.org:٥٠", "r.example.org/" + "a" * 187, ""])
def test_an_invalid_registry_is_refused(tmp_path: Path, address: str) -> None:
    shown = {"registry.example.org:٥٠": r'"registry.example.org:\u0665\u0660"',
             "": "nothing"}.get(address, f'"{address}"' if len(address) <= 60
                                else f'"{address[:60]}..."')

    assert mistakes(tmp_path, f"{ONE}registry: {{address: '{address}'}}\n") == [
        "registry.address: should be an address such as registry.example.org/team "
        f"or 192.0.2.9:5000, not {shown}"]


def test_a_registrys_password_is_not_shown(tmp_path: Path) -> None:
    assert mistakes(tmp_path, f"{ONE}registry: {{address: 'ci:secret@r.example.org'}}\n") == [
        "registry.address: should be an address such as registry.example.org/team "
        'or 192.0.2.9:5000, not "***@r.example.org"']


USER = "registry.user: should be a user name without spaces and colons"
PATH = "should be a path that starts with / or ~/, not "
PAIR = "is missing; user and password_file go together"


@pytest.mark.parametrize(("keys", "mistake"), [
    ("user: ci", f"registry.password_file: {PAIR}"),
    ("password_file: ~/password", f"registry.user: {PAIR}"),
    ("password: secret", "registry.password: unknown key; did you mean password_file?"),
    ("user: ci, password: secret", "registry.password: unknown key; did you mean password_file?"),
    ("usr: ci, password_file: ~/password", "registry.usr: unknown key; did you mean user?"),
    ("user: 'c i', password_file: ~/password", USER),
    ("user: 'ci:secret', password_file: ~/password", USER),
    ("user: '', password_file: ~/password", USER + ", not nothing"),
    ("user: ci, password_file: password",
     "registry.password_file: should be a path that starts with / or ~/"),
    ("ca: ca.pem", f'registry.ca: {PATH}"ca.pem"'),
])
def test_a_registrys_mistake_is_one_line(tmp_path: Path, keys: str, mistake: str) -> None:
    text = f"{ONE}registry: {{address: registry.example.org, {keys}}}\n"

    assert mistakes(tmp_path, text) == [mistake]


def test_a_registry_has_an_address(tmp_path: Path) -> None:
    assert mistakes(tmp_path, f"{ONE}registry: {{}}\n") == ["registry.address: is missing"]
    assert mistakes(tmp_path, f"{ONE}registry: registry.example.org\n") == [
        "registry: should be a mapping with address, user, password_file and ca, "
        'not "registry.example.org"']


@pytest.mark.parametrize("image", [
    "traefik:3.7.15", "library/traefik:v3", "registry.example.org/traefik:3.7.15",
    f"registry.example.org:5000/team/traefik@{DIGEST}", f"traefik@{DIGEST}",
    f"traefik:latest@{DIGEST}", "traefik:3.7.15-LATEST_1", "a" * 255 + ":1"])
def test_an_image_has_a_tag_or_a_digest(tmp_path: Path, image: str) -> None:
    assert load(tmp_path, f"{ONE}images: {{traefik: '{image}'}}\n").images == {"traefik": image}


@pytest.mark.parametrize("image", [
    "traefik", "traefik:latest", "registry.example.org:5000/team/traefik",
    "registry.example.org/traefik:latest"])
def test_an_image_that_may_change_is_refused(tmp_path: Path, image: str) -> None:
    assert mistakes(tmp_path, f"{ONE}images: {{traefik: '{image}'}}\n") == [
        f'images.traefik: "{image}" may be another image tomorrow; '
        "give it a version's tag or a digest"]


@pytest.mark.parametrize(("image", "shown"), [
    ("Traefik:3", '"Traefik:3"'), ("https://example.org/traefik:3",
                                   '"https://example.org/traefik:3"'),
    ("traefik:", '"traefik:"'), ("traefik:-3", '"traefik:-3"'), ("traefik :3", '"traefik :3"'),
    ("registry.example.org:65536/traefik:3", '"registry.example.org:65536/traefik:3"'),
    ("traefik@sha256:0123", '"traefik@sha256:0123"'), ("-a:3", '"-a:3"'),
    (f"traefik@{DIGEST}:3", f'"traefik@{DIGEST[:52]}..."'),
    ("a" * 256 + ":1", '"' + "a" * 60 + '..."'), ("a." * 5000, '"' + "a." * 30 + '..."'),
    ("", "nothing"),
])
def test_an_invalid_image_is_refused(tmp_path: Path, image: str, shown: str) -> None:
    assert mistakes(tmp_path, f"{ONE}images: {{traefik: '{image}'}}\n") \
        == [f"images.traefik: should be an image's name with a tag or a digest, not {shown}"]


def test_every_service_but_app_may_run_another_image() -> None:
    services = yaml.safe_load((ROOT / "docker-stack.yml").read_text())["services"]

    assert {"app", *REPLACEABLE} == set(services)


@pytest.mark.parametrize(("images", "mistake"), [
    ("{app: 'tally:1'}",
     "images.app: is built from this checkout, so no other image can be named"),
    ("{socket_proxy: 'a:1'}", "images.socket_proxy: unknown key; did you mean socket-proxy?"),
    ("{redis: 'redis:7'}",
     "images.redis: unknown key; the keys are postgres, traefik and socket-proxy"),
    ("{traefik: [a]}",
     "images.traefik: should be an image's name with a tag or a digest, not a list"),
    ("", "images: should be a mapping with postgres, traefik and socket-proxy, not nothing"),
])
def test_the_projects_own_image_may_not_be_replaced(
        tmp_path: Path, images: str, mistake: str) -> None:
    assert mistakes(tmp_path, f"{ONE}images: {images}\n") == [mistake]


@pytest.mark.parametrize(("ports", "expected"), [
    ("{http: 8080, https: 8443}", Ports(8080, 8443)), ("{http: 8080}", Ports(8080, 443)),
    ("{https: 8443}", Ports(80, 8443)), ("{}", Ports(80, 443))])
def test_ports_may_be_chosen_one_by_one(tmp_path: Path, ports: str, expected: Ports) -> None:
    assert load(tmp_path, f"{ONE}ports: {ports}\n").ports == expected


@pytest.mark.parametrize(("ports", "mistake"), [
    ("{http: 0}", '.http: should be a number from 1 to 65535, not "0"'),
    ("{https: 65536}", '.https: should be a number from 1 to 65535, not "65536"'),
    ("{http: 8080, https: 8080}", ": http and https are both 8080: choose two different ports"),
    ("{http: 443}", ": http and https are both 443: choose two different ports"),
    ("{tls: 443}", ".tls: unknown key; the keys are http and https"),
    ("80", ': should be a mapping with http and https, not "80"'),
])
def test_a_ports_mistake_is_one_line(tmp_path: Path, ports: str, mistake: str) -> None:
    assert mistakes(tmp_path, f"{ONE}ports: {ports}\n") == [f"ports{mistake}"]


@pytest.mark.parametrize("count", [1, 4, 100])
def test_replicas_of_the_application_may_be_chosen(tmp_path: Path, count: int) -> None:
    assert load(tmp_path, f"{ONE}replicas: {{app: {count}}}\n").replicas == Replicas(app=count)


@pytest.mark.parametrize(("replicas", "mistake"), [
    ("{app: 0}", '.app: should be a number from 1 to 100, not "0"'),
    ("{app: 101}", '.app: should be a number from 1 to 100, not "101"'),
    ("{app: many}", '.app: should be a number from 1 to 100, not "many"'),
    ("{postgres: 2}", ".postgres: unknown key; the only key is app"),
    ("4", ': should be a mapping with app, not "4"'),
])
def test_a_mistake_in_replicas_is_one_line(tmp_path: Path, replicas: str, mistake: str) -> None:
    assert mistakes(tmp_path, f"{ONE}replicas: {replicas}\n") == [f"replicas{mistake}"]
