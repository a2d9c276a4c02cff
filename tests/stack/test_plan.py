"""A plan tells what a deploy would do, in groups, and takes part in nothing."""

import base64
import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import docker
import pytest

from stack import plan, records
from stack.definition import Stack
from stack.plan import Plan, Wanted
from stack.records import Record
from stack.schema import Revision
from tests.stack.engine_api import Engine, reached
from tests.stack.test_migration import load

pytestmark = pytest.mark.unit

SERVICES = ("traefik", "socket-proxy", "app", "postgres")
NOTHING = Plan([], [], [])
WANTED = Wanted("1.4.0+57", [], list(SERVICES), load(), [], [])


@pytest.fixture
def engine() -> Engine:
    """An engine that runs the stack's four services."""
    engine = Engine()
    engine.kinds["services"] = {name: {"ID": name, "Spec": {
        "Name": f"tally_{name}", "Labels": {"com.docker.stack.namespace": "tally"},
        "Mode": {"Replicated": {"Replicas": 2}},
        "TaskTemplate": {"ContainerSpec": {"Env": ["USER_NAME=Ada"]}}}} for name in SERVICES}
    return engine


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    with reached(engine) as client:
        yield client


@pytest.fixture
def proven(client: docker.DockerClient) -> Record:
    """The record of what runs, as the Swarm gives it back."""
    records.save(client, records.make(
        client, version="1.4.0+57", commit="0123456", who="ada", began=time.time(), stack=load(),
        probe=None, schema=[Revision("0001", None)]))
    engine_answers_with_its_data(client)
    found, = records.history(client)
    return found
