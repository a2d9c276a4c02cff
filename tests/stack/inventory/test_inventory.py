"""The whole inventory is read, and each mistake in it is one line with its path."""

import os
import subprocess
import sys
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from stack import inventory
from stack.inventory import Host, Inventory, Ports, Registry, Replicas, Ssh
from stack.inventory.settings import ROOT
from tests.support.failing import error_of
from tests.support.inventories import ONE, load, mistakes, node, swarm

pytestmark = pytest.mark.unit

EXAMPLE = ROOT / inventory.EXAMPLE

FABFILE = """
from pathlib import Path
from fabric import task
from stack import inventory

@task
def read(context, path):
    inventory.load(Path(path))
"""


def test_the_example_is_an_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")

    assert inventory.load(EXAMPLE) == Inventory(
        name="production",
        domain="tally.example.org",
        ssh=Ssh(user="deploy", port=22, key=Path("/home/ada/.ssh/id_ed25519")),
        registry=Registry("registry.example.org/team", "ci",
                          Path("/home/ada/.config/tally/registry-password"),
                          Path("/home/ada/.config/tally/registry-ca.pem")),
        images={"traefik": "registry.example.org/traefik:3.7.15"},
        ports=Ports(http=80, https=443),
        replicas=Replicas(app=4),
        nodes=(
            Host("203.0.113.11", "manager", IPv4Address("10.0.0.11"),
                 {"postgres": "true", "edge": "true"}),
            Host("203.0.113.12", "manager", IPv4Address("10.0.0.12"),
                 {"edge": "true", "registry": "true"}),
            Host("203.0.113.13", "manager", IPv4Address("10.0.0.13"), {"edge": "true"}),
            Host("203.0.113.14", "worker", IPv4Address("10.0.0.14"), {"disk": "ssd"}),
        ))


def test_the_example_documents_every_key() -> None:
    content = yaml.safe_load(EXAMPLE.read_text())

    for kind, section in ((Inventory, content), (Ssh, content["ssh"]),
                          (Registry, content["registry"]), (Ports, content["ports"]),
                          (Replicas, content["replicas"]), (Host, content["nodes"][0])):
        assert set(section) == {field.name for field in fields(kind)}


def test_only_a_name_and_one_manager_are_required(tmp_path: Path) -> None:
    found = load(tmp_path, swarm(node(11, private="")))

    assert found == Inventory(
        name="production", domain=None, ssh=Ssh(user=None, port=None, key=None),
        registry=None, images={}, ports=Ports(http=80, https=443), replicas=Replicas(app=None),
        nodes=(Host("203.0.113.11", "manager", None, {"postgres": "true", "edge": "true"}),))


def test_each_key_of_ssh_may_be_omitted(tmp_path: Path) -> None:
    assert load(tmp_path, f"{ONE}ssh: {{port: 2222}}\n").ssh == Ssh(None, 2222, None)


def test_the_managers_are_in_the_files_order(tmp_path: Path) -> None:
    found = load(tmp_path, swarm(node(14), node(11, "worker"), node(13), node(12)))

    assert [each.host for each in found.managers] \
        == ["203.0.113.14", "203.0.113.13", "203.0.113.12"]


def test_a_node_can_be_the_key_of_a_mapping(tmp_path: Path) -> None:
    found = load(tmp_path, ONE)

    assert {found.nodes[0]: "connected"}[load(tmp_path, ONE).nodes[0]] == "connected"


@pytest.mark.parametrize("count", [1, 3, 5])
def test_one_three_or_five_managers_are_accepted(tmp_path: Path, count: int) -> None:
    managers = [node(11 + index) for index in range(count)]

    assert len(load(tmp_path, swarm(*managers, node(31, "worker"))).managers) == count


@pytest.mark.parametrize(("count", "why"), [
    (0, "a Swarm needs at least one"),
    (2, "2 managers tolerate no more failures than 1"),
    (4, "4 managers tolerate no more failures than 3"),
    (6, "6 managers tolerate no more failures than 5"),
    (7, "every change waits for a majority of them"),
    (9, "every change waits for a majority of them"),
])
def test_another_number_of_managers_is_refused_with_the_reason(
        tmp_path: Path, count: int, why: str) -> None:
    managers = [node(11 + index) for index in range(count)]

    assert mistakes(tmp_path, swarm(*managers, node(31, "worker"))) \
        == [f"nodes: should have 1, 3 or 5 managers, not {count}: {why}"]


def test_a_wrong_value_is_reported_once(tmp_path: Path) -> None:
    unknown = [node(number, "boss", private="none") for number in (11, 12)]

    assert mistakes(tmp_path, swarm(*unknown)) == [
        f"nodes[{index}].{mistake}" for index in (0, 1) for mistake in (
            'private: should be an IPv4 address that the other nodes can reach, not "none"',
            'role: should be manager or worker, not "boss"')]


@pytest.mark.parametrize("host", [
    "203.0.113.11", '"2001:db8::11"', "tally.example.org", "web-1", "web_1", "7.example.org"])
def test_a_host_is_an_address_or_a_name(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, swarm(node(11, host=host))).nodes[0].host == host.strip('"')


@pytest.mark.parametrize("name", ["production", "2", "no", "Staging-2"])
def test_a_name_is_text_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, ONE.replace("production", name)).name == name


@pytest.mark.parametrize(("port", "expected"), [("1", 1), ("65535", 65535), ('"2222"', 2222)])
def test_a_port_is_a_number(tmp_path: Path, port: str, expected: int) -> None:
    assert load(tmp_path, f"{ONE}ssh: {{port: {port}}}\n").ssh.port == expected


@pytest.mark.parametrize(("key", "expected"), [
    ("~/.ssh/id_ed25519", "/home/ada/.ssh/id_ed25519"), ("/srv/a key", "/srv/a key")])
def test_a_tilde_in_a_keys_path_is_the_home(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/ada")

    assert load(tmp_path, f"{ONE}ssh: {{key: {key}}}\n").ssh.key == Path(expected)


KEYS = "name, domain, ssh, registry, images, ports, replicas and nodes"
NAME = "name: should be letters, digits and hyphens, not "
DOMAIN = "domain: should be a domain name, not "
USER = "ssh.user: should be a user name, not "
PORT = "ssh.port: should be a number from 1 to 65535, not "
KEY = "ssh.key: should be a path that starts with / or ~/, not "


@pytest.mark.parametrize(("key", "value", "mistake"), [
    ("domain", "https://tally.example.org", DOMAIN + '"https://tally.example.org"'),
    ("domain", "localhost", DOMAIN + '"localhost"'),
    ("domain", "203.0.113.11", DOMAIN + '"203.0.113.11"'),
    ("domain", "-a.example.org", DOMAIN + '"-a.example.org"'),
    ("domain", "", DOMAIN + "nothing"),
    ("domain", "[tally.example.org]", DOMAIN + "a list"),
    ("ssh", "deploy", 'ssh: should be a mapping with user, port and key, not "deploy"'),
    ("ssh", "", "ssh: should be a mapping with user, port and key, not nothing"),
    ("ssh", "{user: -l}", USER + '"-l"'),
    ("ssh", "{user: deploy@host}", USER + '"deploy@host"'),
    ("ssh", "{user: {name: deploy}}", USER + "a mapping"),
    ("ssh", "{port: 0}", PORT + '"0"'),
    ("ssh", "{port: 65536}", PORT + '"65536"'),
    ("ssh", "{port: -22}", PORT + '"-22"'),
    ("ssh", "{port: ssh}", PORT + '"ssh"'),
    ("ssh", "{port: ٢٢}", PORT + r'"\u0662\u0662"'),
    ("ssh", f"{{port: {'9' * 5000}}}", PORT + f'"{"9" * 60}..."'),
    ("ssh", "{key: id_ed25519}", KEY + '"id_ed25519"'),
    ("ssh", "{key: ~nobody-of-that-name/id}", KEY + '"~nobody-of-that-name/id"'),
    ("ssh", r'{key: "/a\0b"}', KEY + r'"/a\u0000b"'),
    ("ssh", "{usr: deploy}", "ssh.usr: unknown key; did you mean user?"),
    ("servers", "[]", f"servers: unknown key; the keys are {KEYS}"),
    ("domian", "tally.example.org", "domian: unknown key; did you mean domain?"),
    (r'"a\e[31m b"', "c",
     r'"a\u001b[31m b": unknown key; the keys are ' + KEYS),
])
def test_a_mistake_is_one_line_with_its_path(
        tmp_path: Path, key: str, value: str, mistake: str) -> None:
    assert mistakes(tmp_path, f"{ONE}{key}: {value}\n") == [mistake]


@pytest.mark.parametrize(("name", "shown"), [
    ("pro duction", '"pro duction"'), ("-a", '"-a"'), ("a-", '"a-"'), ("a_b", '"a_b"'),
    ("''", "nothing"), ("é", r'"\u00e9"'), (r'"a\nb"', r'"a\nb"'), ("a" * 64, f'"{"a" * 60}..."'),
])
def test_a_name_is_only_letters_digits_and_hyphens(
        tmp_path: Path, name: str, shown: str) -> None:
    assert mistakes(tmp_path, ONE.replace("production", name)) == [NAME + shown]


HOST = "should be an address or a host name, not "
PRIVATE = "should be an IPv4 address that the other nodes can reach, not "


@pytest.mark.parametrize(("key", "value", "mistake"), [
    ("role", "boss", 'should be manager or worker, not "boss"'),
    ("role", "Manager", 'should be manager or worker, not "Manager"'),
    ("role", "[manager]", "should be manager or worker, not a list"),
    ("host", "203.0.113.300", HOST + '"203.0.113.300"'),
    ("host", "203.0.113", HOST + '"203.0.113"'),
    ("host", "203.0.113.12:22", HOST + '"203.0.113.12:22"'),
    ("host", "deploy@203.0.113.12", HOST + '"deploy@203.0.113.12"'),
    ("host", "-v", HOST + '"-v"'),
    ("host", "web 1", HOST + '"web 1"'),
    ("host", "''", HOST + "nothing"),
    ("private", "10.0.0.256", PRIVATE + '"10.0.0.256"'),
    ("private", "10.0.0.12/24", PRIVATE + '"10.0.0.12/24"'),
    ("private", "010.0.0.12", PRIVATE + '"010.0.0.12"'),
    ("private", "web-1", PRIVATE + '"web-1"'),
    ("private", '"2001:db8::12"', PRIVATE + '"2001:db8::12"'),
    ("private", "127.0.0.1", PRIVATE + '"127.0.0.1"'),
    ("private", "0.0.0.0", PRIVATE + '"0.0.0.0"'),
    ("private", "169.254.0.12", PRIVATE + '"169.254.0.12"'),
    ("private", "224.0.0.12", PRIVATE + '"224.0.0.12"'),
    ("private", "255.255.255.255", PRIVATE + '"255.255.255.255"'),
    ("private", "null", PRIVATE + '"null"'),
    ("labels", "edge", 'should be a mapping of labels to text, not "edge"'),
    ("labels", "[edge]", "should be a mapping of labels to text, not a list"),
])
def test_a_nodes_mistake_names_the_node(
        tmp_path: Path, key: str, value: str, mistake: str) -> None:
    text = swarm(node(11), node(12, **{"role": "worker", key: value}))

    assert mistakes(tmp_path, text) == [f"nodes[1].{key}: {mistake}"]


@pytest.mark.parametrize(("changes", "mistake"), [
    ({"host": "203.0.113.11"}, 'host: "203.0.113.11" is already used as nodes[0].host'),
    ({"private": "10.0.0.11"}, 'private: "10.0.0.11" is already used as nodes[0].private'),
    ({"host": "10.0.0.11"}, 'host: "10.0.0.11" is already used as nodes[0].private'),
])
def test_two_nodes_cant_share_an_address(
        tmp_path: Path, changes: dict[str, str], mistake: str) -> None:
    text = swarm(node(11), node(12, **{"role": "worker", **changes}))

    assert mistakes(tmp_path, text) == [f"nodes[1].{mistake}"]


@pytest.mark.parametrize(("first", "second"), [
    ("web-1", "WEB-1"), ('"2001:db8::1"', '"2001:DB8:0::1"')])
def test_two_spellings_of_an_address_are_one(tmp_path: Path, first: str, second: str) -> None:
    text = swarm(node(11, host=first), node(12, "worker", host=second))

    shown = second.strip('"')
    owner = "nodes[0].host"
    assert mistakes(tmp_path, text) == [f'nodes[1].host: "{shown}" is already used as {owner}']


def test_a_laptop_may_reach_a_node_at_its_private_address(tmp_path: Path) -> None:
    found = load(tmp_path, swarm(node(11, host="10.0.0.11")))

    assert (found.nodes[0].host, str(found.nodes[0].private)) == ("10.0.0.11", "10.0.0.11")


def test_several_nodes_need_private_addresses(tmp_path: Path) -> None:
    missing = "is missing; several nodes reach each other at private addresses"

    assert mistakes(tmp_path, swarm(node(11, private=""), node(12, "worker", private=""))) \
        == [f"nodes[0].private: {missing}", f"nodes[1].private: {missing}"]


def test_a_required_key_that_is_missing_is_named(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "domain: tally.example.org\n") \
        == ["name: is missing", "nodes: is missing"]
    assert mistakes(tmp_path, swarm("{private: 10.0.0.11}")) \
        == ["nodes[0].host: is missing", "nodes[0].role: is missing"]


def test_a_misspelt_key_is_one_mistake_not_two(tmp_path: Path) -> None:
    text = swarm("{hosts: 203.0.113.11, privat: 10.0.0.11, rolle: manager}",
                 node(12, "worker", labels='{edge: "true"}'))

    assert mistakes(tmp_path, text) == ["nodes[0].hosts: unknown key; did you mean host?",
                                        "nodes[0].privat: unknown key; did you mean private?",
                                        "nodes[0].rolle: unknown key; did you mean role?"]


@pytest.mark.parametrize(("value", "shown"), [
    ("", "nothing"), ("[]", "nothing"), ("{}", "nothing"), ("web-1", '"web-1"'),
    ("{host: web-1}", "a mapping")])
def test_nodes_are_a_list_with_something_in_it(tmp_path: Path, value: str, shown: str) -> None:
    assert mistakes(tmp_path, f"name: production\nnodes: {value}\n") \
        == [f"nodes: should be a list of nodes, not {shown}"]


def test_a_node_is_a_mapping(tmp_path: Path) -> None:
    assert mistakes(tmp_path, swarm(node(11), "203.0.113.12")) == [
        'nodes[1]: should be a mapping with host, private, role and labels, not "203.0.113.12"']


@pytest.mark.parametrize(("text", "shown"), [
    ("", "nothing"), ("# only a comment\n", "nothing"), ("- a\n", "a list"), ("web", '"web"')])
def test_a_file_is_a_mapping(tmp_path: Path, text: str, shown: str) -> None:
    assert mistakes(tmp_path, text) \
        == [f"should be a mapping with {KEYS}, not {shown}"]


def test_all_mistakes_in_a_file_are_reported_together(tmp_path: Path) -> None:
    text = ("name: my site\nssh: {port: 0, kee: ~/id}\n"
            f"nodes:\n  - {node(11)}\n  - {node(12, host='203.0.113.11')}\n"
            f"  - {node(13, 'worker', private='10.0.0.300')}\nreplica: 2\n")

    assert mistakes(tmp_path, text) == [
        "replica: unknown key; did you mean replicas?",
        f'{NAME}"my site"',
        "ssh.kee: unknown key; did you mean key?",
        f'{PORT}"0"',
        f'nodes[2].private: {PRIVATE}"10.0.0.300"',
        'nodes[1].host: "203.0.113.11" is already used as nodes[0].host',
        "nodes: should have 1, 3 or 5 managers, not 2: "
        "2 managers tolerate no more failures than 1"]


def test_fabric_prints_a_line_for_each_mistake_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "fabfile.py").write_text(FABFILE)
    (tmp_path / "staging.yml").write_text("name: my site\n")

    done = subprocess.run(
        [sys.executable, "-m", "fabric", f"--search-root={tmp_path}", "read",
         str(tmp_path / "staging.yml")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert done.stderr == (f'staging.yml: nodes: is missing\nstaging.yml: {NAME}"my site"\n')
    assert (done.stdout, done.returncode) == ("", 1)


@pytest.mark.parametrize(("text", "error"), [
    ("name: [a\nnodes: b\n", "inventory.yml, line 2: expected ',' or ']', but got ':'"),
    ("name: a\n\tnodes: b\n", "inventory.yml, line 2: found character '\\t' that cannot start any "
                              "token"),
    ("name: a\nname: b\n", 'inventory.yml, line 2: duplicate key "name"'),
    ("nodes:\n  - {role: worker,\n     role: manager}\n",
     'inventory.yml, line 3: duplicate key "role"'),
    ('name: a\n"name": b\n', 'inventory.yml, line 2: duplicate key "name"'),
    ("? [a]\n: b\n", "inventory.yml, line 1: found unhashable key"),
    ("name: &a [*a]\n", "inventory.yml, line 1: found unconstructable recursive node"),
    ("name: a\n---\nname: b\n", "inventory.yml, line 2: but found another document"),
    ("name: a\x07\n", "inventory.yml: unacceptable character #x0007: special characters are "
                      "not allowed"),
])
def test_invalid_yaml_is_refused_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    assert error_of(lambda: load(tmp_path, text)) == error


def test_a_file_that_cant_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_bytes(b"name: \xff\n")

    assert error_of(lambda: inventory.load(tmp_path / "inventory.yml")).startswith(
        "inventory.yml can't be read: 'utf-8' codec can't decode byte 0xff")
    assert error_of(lambda: inventory.load(tmp_path)).startswith(
        f"{tmp_path.name} can't be read: [Errno 21] Is a directory")


def test_yaml_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    assert error_of(lambda: load(tmp_path, "[" * 3000)) == "inventory.yml: it is nested too deeply"


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example.org"])
def test_a_name_that_dns_cant_hold_is_refused(tmp_path: Path, host: str) -> None:
    assert mistakes(tmp_path, swarm(node(11, host=host)))[0].startswith(
        "nodes[0].host: should be an address or a host name, not ")


def test_yaml_cant_run_anything(tmp_path: Path) -> None:
    made = tmp_path / "made"
    text = ONE.replace("production", f"!!python/object/apply:os.mkdir ['{made}']")

    assert mistakes(tmp_path, text) == [NAME + "a list"]
    assert not made.exists()


def test_without_an_inventory_none_is_chosen(tmp_path: Path) -> None:
    assert inventory.chosen({}, tmp_path) is None
    assert inventory.chosen({"INVENTORY": ""}, tmp_path) is None


def test_the_inventory_of_the_checkout_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").touch()

    assert inventory.chosen({}, tmp_path) == tmp_path / "inventory.yml"


def test_another_inventory_of_the_checkout_can_be_named(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inventory.yml").touch()
    (tmp_path / "staging.yml").touch()
    monkeypatch.chdir("/")

    assert inventory.chosen({"INVENTORY": "staging.yml"}, tmp_path) == tmp_path / "staging.yml"


def test_an_inventory_elsewhere_can_be_named(tmp_path: Path) -> None:
    elsewhere = tmp_path / "staging.yml"
    elsewhere.touch()

    assert inventory.chosen({"INVENTORY": str(elsewhere)}, ROOT) == elsewhere


def test_a_missing_inventory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").touch()

    assert error_of(lambda: inventory.chosen({"INVENTORY": "staging.yml"}, tmp_path)) \
        == (f"INVENTORY=staging.yml: there is no {tmp_path}/staging.yml: "
            "start from a copy of inventory.example.yml")


def test_a_broken_link_doesnt_mean_this_machine(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").symlink_to("gone.yml")

    chosen = inventory.chosen({}, tmp_path)

    assert chosen == tmp_path / "inventory.yml"
    assert error_of(lambda: inventory.load(tmp_path / "inventory.yml")).startswith(
        "inventory.yml can't be read: [Errno 2] No such file")
