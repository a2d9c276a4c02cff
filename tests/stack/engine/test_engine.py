"""An engine's objects are read once, and each failure is one of our own errors."""

import docker.errors
import pytest
import requests

from stack.engine import failures
from stack.engine.configs import Config
from stack.engine.engine import Engine
from stack.engine.failures import ApiError, Conflict, EngineError, Missing
from stack.engine.sizes import in_bytes
from stack.errors import OperatorError
from tests.support.engine_api import FakeEngine
from tests.support.failing import error_of

pytestmark = pytest.mark.unit


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


def test_a_config_is_found_by_its_label_and_by_its_whole_name(engine: Engine) -> None:
    key = engine.configs.create("tally-one", b"data", {"kind": "a"})
    engine.configs.create("tally-one-more", b"", {"kind": "b"})
    one = Config(key, "tally-one", 1, {"kind": "a"}, b"data")

    assert engine.configs.list("kind=a") == [one]
    assert [each.name for each in engine.configs.list("kind")] == ["tally-one", "tally-one-more"]
    assert engine.configs.named("tally-one") == engine.configs.inspect(key) == one
    assert engine.configs.named("tally") is None


def test_a_configs_labels_are_added_to(engine: Engine) -> None:
    key = engine.configs.create("tally-one", b"data", {"kind": "a", "who": "ada"})
    engine.configs.add_labels(key, {"who": "bob"})

    assert engine.configs.inspect(key).labels == {"kind": "a", "who": "bob"}
    assert engine.configs.inspect(key).data == b"data"


def test_a_name_that_is_taken_is_a_conflict(engine: Engine) -> None:
    engine.configs.create("tally-one", b"", {})
    with pytest.raises(Conflict, match="tally-one already exists"):
        engine.configs.create("tally-one", b"", {})


def test_what_isnt_there_is_missing(engine: Engine) -> None:
    for ask in (engine.configs.inspect, engine.configs.remove, engine.nodes.inspect,
                engine.services.remove, engine.container):
        with pytest.raises(Missing, match="nothing not found"):
            ask("nothing")


def test_an_engine_that_answers_with_an_error_says_why(fake: FakeEngine, engine: Engine) -> None:
    fake.failing = True
    with pytest.raises(ApiError) as raised:
        engine.nodes.list()
    assert type(raised.value) is ApiError
    assert raised.value.explanation == "the Swarm has no leader"
    assert str(raised.value).endswith(
        '/v1.41/nodes: Service Unavailable ("the Swarm has no leader")')


def test_a_way_that_fails_is_no_answer_of_the_engines() -> None:
    with pytest.raises(EngineError) as raised, failures.translated():
        raise requests.ConnectionError("Connection refused")
    assert type(raised.value) is EngineError
    assert (raised.value.kind, str(raised.value)) == ("ConnectionError", "Connection refused")


def test_an_error_without_a_reason_is_named_by_its_kind() -> None:
    assert failures.cause_of(EngineError(docker.errors.DockerException())) == "DockerException"


def test_an_engine_that_fails_in_a_command_ends_it_with_one_line() -> None:
    def command() -> None:
        with failures.ending_the_command(), failures.translated():
            raise requests.ReadTimeout("Read timed out.")
    assert error_of(command, OperatorError) == (
        "the Docker Engine failed during the command (the engine doesn't answer): "
        "./fab status, then the same command again")


@pytest.mark.parametrize(("text", "size"), [
    ("0", 0), ("512", 512), ("384M", 384 * 2**20), ("1GiB", 2**30), ("2gb", 2 * 2**30)])
def test_a_size_is_read_as_dockers_command_line_does(text: str, size: int) -> None:
    assert in_bytes(text) == size


def test_a_size_that_isnt_one_is_refused() -> None:
    with pytest.raises(EngineError, match="many"):
        in_bytes("many")
