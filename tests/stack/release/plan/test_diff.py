"""Two definitions are compared field by field, one line each."""

from typing import Any

import pytest

from stack.release.plan.diff import Difference, compare

pytestmark = pytest.mark.unit

A, B = "a" * 64, "b" * 64


def lines(old: Any, new: Any) -> list[str]:
    return [str(difference) for difference in compare(old, new)]


@pytest.mark.parametrize("value", [
    {}, [], None, "", 0, {"deploy": {"replicas": 2, "labels": {}}}, ["NET_RAW"], ["A=1"]])
def test_equal_values_have_no_differences(value: Any) -> None:
    assert lines(value, value) == []


def test_a_field_is_named_by_its_whole_path() -> None:
    assert lines({"deploy": {"replicas": 2, "endpoint_mode": "dnsrr"}},
                 {"deploy": {"replicas": 4, "endpoint_mode": "dnsrr"}}) == [
        "deploy.replicas 2 -> 4"]


def test_the_order_of_keys_doesnt_matter() -> None:
    assert lines({"a": 1, "b": 2}, {"b": 2, "a": 1}) == []


def test_every_field_that_differs_has_a_line_in_the_order_of_the_old_ones() -> None:
    assert lines({"user": "1", "image": "x", "init": True}, {"new": 1, "image": "y", "user": "2"}) \
        == ["user 1 -> 2", "image x -> y", "init true (removed)", "new 1 (new)"]


def test_a_field_that_is_new_or_gone_is_shown_whole() -> None:
    placement = {"constraints": ["node.role == manager"]}
    shown = '{"constraints": ["node.role == manager"]}'
    assert lines({"deploy": {}}, {"deploy": {"placement": placement}}) == [
        f"deploy.placement {shown} (new)"]
    assert lines({"deploy": {"placement": placement}}, {"deploy": {}}) == [
        f"deploy.placement {shown} (removed)"]


def test_null_differs_from_a_missing_field() -> None:
    assert lines({"Mounts": None}, {}) == ["Mounts null (removed)"]
    assert lines({"Mounts": None}, {"Mounts": []}) == ["Mounts null -> []"]


@pytest.mark.parametrize(("old", "new", "line"), [
    ("80", 80, 'port "80" -> 80'),
    ("", "Ada", 'port "" -> Ada'),
    ("null", None, 'port "null" -> null'),
    (" 80", "80", 'port " 80" -> 80'),
    (True, "true", 'port true -> "true"'),
])
def test_values_that_look_alike_are_distinguished(old: Any, new: Any, line: str) -> None:
    assert lines({"port": old}, {"port": new}) == [line]


@pytest.mark.parametrize(("value", "shown"), [
    ("two\nlines", r'"two\nlines"'),
    ("\x1b[31mred", r'"\u001b[31mred"'),
    ("\u202eodd", r'"\u202eodd"'),
    ("Zoë & Co.", "Zoë & Co."),
])
def test_a_line_has_no_control_characters(value: str, shown: str) -> None:
    assert lines({"name": value}, {"name": "Ada"}) == [f"name {shown} -> Ada"]


def test_variables_in_a_list_are_compared_by_their_names() -> None:
    assert lines({"Env": ["A=1", "USER_NAME=Ada", "GONE=x=y"]},
                 {"Env": ["A=1", "USER_NAME=", "ADDED=two\nlines"]}) == [
        'Env.USER_NAME Ada -> ""', "Env.GONE x=y (removed)", r'Env.ADDED "two\nlines" (new)']


@pytest.mark.parametrize(("key", "item", "path"), [
    ("published", {"target": 8000, "published": 80}, "8000.published"),
    ("Source", {"Target": "/tmp", "Source": "x"}, "/tmp.Source"),
    ("PublishedPort", {"TargetPort": 8000, "PublishedPort": 80}, "8000.PublishedPort"),
    ("SecretName", {"File": {"Name": "key"}, "SecretName": "key-0"}, "key.SecretName"),
])
def test_ports_mounts_and_secrets_are_compared_by_name(
        key: str, item: dict[str, Any], path: str) -> None:
    other = {"target": 1, "Target": "/", "TargetPort": 1, "File": {"Name": "other"}}
    assert lines({"list": [other, item]}, {"list": [other, {**item, key: "new"}]}) == [
        f"list.{path} {item[key]} -> new"]


def test_two_of_one_name_are_shown_with_the_whole_list() -> None:
    tcp, udp = {"target": 53, "protocol": "tcp"}, {"target": 53, "protocol": "udp"}
    assert lines({"ports": [tcp]}, {"ports": [tcp, udp]}) == [
        'ports [{"target": 53, "protocol": "tcp"}] -> '
        '[{"target": 53, "protocol": "tcp"}, {"target": 53, "protocol": "udp"}]']


def test_a_list_without_names_is_one_field() -> None:
    assert lines({"command": ["flask", "db"]}, {"command": ["flask", "run"]}) == [
        'command ["flask", "db"] -> ["flask", "run"]']


def test_another_order_in_a_list_is_a_difference() -> None:
    assert lines({"Env": ["A=1", "B=2"]}, {"Env": ["B=2", "A=1"]}) == [
        'Env ["A", "B"] -> ["B", "A"]']


def test_a_list_and_a_mapping_of_the_same_names_differ() -> None:
    assert lines({"environment": {"A": "1"}}, {"environment": ["A=1"]}) == [
        'environment {"A": "1"} -> ["A=1"]']


@pytest.mark.parametrize(("old", "new", "line"), [
    (f"r/app:1@sha256:{A}", f"r/app:2@sha256:{B}", "r/app:1 -> r/app:2"),
    (f"r/app:1@sha256:{A}", "r/app:2", "r/app:1 -> r/app:2"),
    (f"r/app:1@sha256:{A}", "r/app:1", f"r/app:1@sha256:{A} -> r/app:1"),
    (f"r/app:1@sha256:{A}", f"r/app:1@sha256:{B}", f"r/app:1@sha256:{A} -> r/app:1@sha256:{B}"),
])
def test_an_images_digest_is_shown_only_if_the_tags_are_equal(
        old: str, new: str, line: str) -> None:
    assert lines({"image": old}, {"image": new}) == [f"image {line}"]


@pytest.mark.parametrize(("path", "inside"), [
    ("deploy.replicas", True), ("deploy.replicas.x", True), ("deploy.replicas_max", False),
    ("deploy", False), ("networks", False)])
def test_a_field_is_within_its_own_path_and_each_above_it(path: str, inside: bool) -> None:
    assert Difference(path, "1", "2").within("image", "deploy.replicas") is inside


def test_whole_values_that_differ_need_no_path() -> None:
    assert lines(None, {"internal": True}) == ['null -> {"internal": true}']
