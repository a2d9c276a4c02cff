"""Labels decide where services run, and defaults decide the rest."""

from pathlib import Path

import pytest

from tests.support.inventories import labels, load, mistakes, node, swarm

pytestmark = pytest.mark.unit

ELSEWHERE = "registry: {address: registry.example.org}\n"


def test_without_labels_the_first_manager_holds_postgres_and_managers_are_edges(
        tmp_path: Path) -> None:
    nodes = (node(11, "worker"), node(12), node(13), node(14))

    assert labels(tmp_path, *nodes, more=ELSEWHERE) == [
        {}, {"edge": "true", "postgres": "true"}, {"edge": "true"}, {"edge": "true"}]


def test_without_labels_the_first_of_several_managers_holds_the_images_too(
        tmp_path: Path) -> None:
    assert labels(tmp_path, node(11, "worker"), node(12), node(13), node(14)) == [
        {}, {"edge": "true", "postgres": "true", "registry": "true"},
        {"edge": "true"}, {"edge": "true"}]


def test_empty_labels_count_as_none(tmp_path: Path) -> None:
    assert labels(tmp_path, node(11, labels="{}")) == [{"edge": "true", "postgres": "true"}]


def test_given_labels_override_the_defaults(tmp_path: Path) -> None:
    nodes = (node(11), node(12, "worker", labels='{postgres: "true"}'),
             node(13, "worker", labels='{edge: "true", com.example/rack: r1}'))

    assert labels(tmp_path, *nodes, more=ELSEWHERE) == [
        {}, {"postgres": "true"}, {"edge": "true", "com.example/rack": "r1"}]


def test_a_label_without_quotes_is_the_same(tmp_path: Path) -> None:
    plain = node(11, labels="{postgres: true, edge: true, country: no, since: 2024-01-31, n: 1e3}")

    assert labels(tmp_path, plain) == [{"postgres": "true", "edge": "true", "country": "no",
                                        "since": "2024-01-31", "n": "1e3"}]


def test_a_service_can_be_kept_off_a_node(tmp_path: Path) -> None:
    nodes = (node(11, labels='{postgres: "true", edge: "false"}'),
             node(12, "worker", labels='{postgres: false, edge: true}'))

    assert labels(tmp_path, *nodes, more=ELSEWHERE) == [{"postgres": "true", "edge": "false"},
                                                        {"postgres": "false", "edge": "true"}]


BOTH = 'postgres: "true", edge: "true"'


def test_a_labelled_manager_holds_the_images(tmp_path: Path) -> None:
    nodes = (node(11, labels=f"{{{BOTH}}}"), node(12, labels='{registry: "true"}'), node(13))

    assert labels(tmp_path, *nodes) \
        == [{"postgres": "true", "edge": "true"}, {"registry": "true"}, {}]


def test_the_first_manager_holds_the_images_by_default(tmp_path: Path) -> None:
    nodes = (node(11, "worker", labels=f"{{{BOTH}}}"), node(12), node(13, labels="{disk: ssd}"),
             node(14))

    assert labels(tmp_path, *nodes) \
        == [{"postgres": "true", "edge": "true"}, {"registry": "true"}, {"disk": "ssd"}, {}]


def test_a_manager_can_be_excluded_from_the_images(tmp_path: Path) -> None:
    nodes = (node(11, labels=f'{{{BOTH}, registry: "false"}}'), node(12), node(13))

    assert labels(tmp_path, *nodes) == [
        {"postgres": "true", "edge": "true", "registry": "false"}, {"registry": "true"}, {}]


def test_all_managers_can_be_excluded_only_with_another_registry(tmp_path: Path) -> None:
    nodes = (node(11, labels=f'{{{BOTH}, registry: "false"}}'), node(12, "worker"))

    assert mistakes(tmp_path, swarm(*nodes)) == [
        'nodes: should leave a manager without the label registry: "false": '
        "it holds the images, unless registry names another place"]
    assert labels(tmp_path, *nodes, more=ELSEWHERE) \
        == [{"postgres": "true", "edge": "true", "registry": "false"}, {}]


def test_a_single_node_needs_no_registry(tmp_path: Path) -> None:
    assert labels(tmp_path, node(11, labels=f"{{{BOTH}}}")) \
        == [{"postgres": "true", "edge": "true"}]


def test_the_swarm_needs_a_registry_if_several_nodes_have_no_other(tmp_path: Path) -> None:
    several = swarm(node(11), node(12, "worker"))

    assert load(tmp_path, several).needs_own_registry
    assert not load(tmp_path, several + ELSEWHERE).needs_own_registry
    assert not load(tmp_path, swarm(node(11))).needs_own_registry


@pytest.mark.parametrize(("label", "mistake"), [
    ("edge: yes", 'edge: should be true or false, not "yes"'),
    ("postgres: 1", 'postgres: should be true or false, not "1"'),
    ("postgres: [a]", "postgres: should be true or false, not a list"),
    ("registry: on", 'registry: should be true or false, not "on"'),
    ("disk: {a: b}", "disk: should be text, not a mapping"),
    ("'a b': c", '"a b": a label\'s name should be letters, digits, dots, hyphens and slashes'),
])
def test_a_labels_mistake_names_the_label(tmp_path: Path, label: str, mistake: str) -> None:
    assert mistakes(tmp_path, swarm(node(11, labels=f"{{{label}}}"))) \
        == [f"nodes[0].labels.{mistake}"]


@pytest.mark.parametrize(("first", "second", "mistake"), [
    ('{edge: "true"}', "{}",
     'should have one node with the label postgres: "true", not 0'),
    ('{postgres: "true", edge: "true"}', '{postgres: "true"}',
     'should have one node with the label postgres: "true", not 2'),
    ('{postgres: "true", edge: "false"}', "{}",
     'should have a node with the label edge: "true"'),
])
def test_labels_have_to_place_each_service(
        tmp_path: Path, first: str, second: str, mistake: str) -> None:
    text = swarm(node(11, labels=first), node(12, "worker", labels=second))

    assert mistakes(tmp_path, text) == [f"nodes: {mistake}"]


def test_only_a_manager_can_hold_the_images(tmp_path: Path) -> None:
    text = swarm(node(11, labels=f"{{{BOTH}}}"), node(12, "worker", labels='{registry: "true"}'))

    assert mistakes(tmp_path, text) \
        == ["nodes[1].labels.registry: belongs on a manager, where images are built"]


def test_only_one_node_can_hold_the_images(tmp_path: Path) -> None:
    text = swarm(node(11, labels=f"{{{BOTH}}}"),
                 *(node(number, labels='{registry: "true"}') for number in (12, 13)))

    assert mistakes(tmp_path, text) \
        == ['nodes: should have at most one node with the label registry: "true", not 2']
