"""Every service of docker-stack.yml follows the house rules and matches its image."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from stack.bootstrap.install_docker import DAEMON_SETTINGS
from stack.swarm.names import STACK
from stack.swarm.networks import MTU_OPTION
from stack.swarm.stackfile import Stack
from tests.files.dockerfile import last_stage
from tests.files.sample import STACK_FILE, VARIABLES
from tests.files.tree import ROOT

pytestmark = pytest.mark.style

IMAGES = ROOT / "stack/images"
Service = dict[str, Any]
DOCKERFILES = {"app": ROOT / "Dockerfile", **{
    name: IMAGES / name / "Dockerfile" for name in ("postgres", "traefik", "socket-proxy")}}
SERVICES = DOCKERFILES.keys()


def each(stack: Stack, ask: Callable[[Service], Any]) -> dict[str, Any]:
    """Return the answer for every service, by name."""
    return {name: ask(service) for name, service in stack.services.items()}


def same(answer: Any) -> dict[str, Any]:
    """Return one answer for all services."""
    return dict.fromkeys(SERVICES, answer)


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def number(name: str, path: str) -> int:
    """Return a number that an image's configuration sets with "name = 3", "name: 3" or "name 3"."""
    text = (IMAGES / path).read_text()
    found = re.search(rf"^\s*{name}\s*[=: ]\s*:?([0-9]+)", text, re.MULTILINE)
    assert found, f"{path} doesn't set {name}"
    return int(found[1])


def traefik_configuration() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((IMAGES / "traefik/traefik.yml").read_text())
    return content


# All services.

def test_the_services_are_those_that_have_an_image_here(stack: Stack) -> None:
    assert stack.services.keys() == SERVICES


def test_the_deploy_chooses_each_image() -> None:
    services = yaml.safe_load(STACK_FILE.read_text())["services"]

    assert {name: service["image"] for name, service in services.items()} == {
        name: f"${{{name.upper().replace('-', '_')}_IMAGE:?}}" for name in SERVICES}


def test_no_file_of_the_stack_names_a_moving_tag() -> None:
    assert [path.name for path in (STACK_FILE, *DOCKERFILES.values())
            if re.search(r":latest\b", path.read_text())] == []


def test_each_has_limits_and_reserves_less(stack: Stack) -> None:
    resources = each(stack, lambda service: service["deploy"]["resources"])

    assert {name: set(given["limits"]) for name, given in resources.items()} \
        == same({"cpus", "memory", "pids"})
    assert {name: set(given["reservations"]) for name, given in resources.items()} \
        == same({"memory"})
    assert all(megabytes(given["reservations"]) < megabytes(given["limits"])
               for given in resources.values())


def megabytes(given: dict[str, Any]) -> int:
    return int(str(given["memory"]).removesuffix("M"))


def test_each_has_a_health_check_of_its_own_or_its_images(stack: Stack) -> None:
    own = each(stack, lambda service: service.get("healthcheck", {}).get("test", []))

    assert "HEALTHCHECK" in last_stage(DOCKERFILES["app"])
    assert {name: test[:1] for name, test in own.items()} == {**same(["CMD"]), "app": []}


def test_each_rotates_its_log(stack: Stack) -> None:
    assert each(stack, lambda service: service["logging"]) == same(
        {"driver": "local", "options": {"max-size": "10m", "max-file": "3"}})


def test_each_has_a_read_only_file_system_and_no_capability(stack: Stack) -> None:
    assert each(stack, lambda service: service["read_only"]) == same(True)
    assert each(stack, lambda service: service["cap_drop"]) == same(["ALL"])
    assert each(stack, lambda service: service.get("cap_add")) == same(None)


def test_each_runs_as_its_images_own_user(stack: Stack) -> None:
    users = {name: last_stage(path)["USER"].value for name, path in DOCKERFILES.items()}
    # The group that may open Docker's socket differs between machines.
    users["socket-proxy"] += f":{VARIABLES['DOCKER_GID']}"

    assert each(stack, lambda service: service["user"]) == users
    assert len(set(users.values())) == len(users)


def test_the_daemon_denies_all_of_them_new_privileges() -> None:
    assert DAEMON_SETTINGS["no-new-privileges"] is True


def test_each_is_found_by_dns_without_a_virtual_address(stack: Stack) -> None:
    assert each(stack, lambda service: service["deploy"].get("endpoint_mode")) == same("dnsrr")


def test_each_is_updated_one_task_at_a_time_and_rolls_back(stack: Stack) -> None:
    updates = each(stack, lambda service: service["deploy"]["update_config"])
    rollbacks = each(stack, lambda service: service["deploy"]["rollback_config"])
    order = {"traefik": "stop-first", "socket-proxy": "start-first", "app": "start-first",
             "postgres": "stop-first"}

    assert {name: update["order"] for name, update in updates.items()} == order
    assert {name: rollback["order"] for name, rollback in rollbacks.items()} == order
    assert {name: (update["parallelism"], update["failure_action"])
            for name, update in updates.items()} == same((1, "rollback"))
    assert all(seconds(update["monitor"]) >= 10 for update in updates.values())


# Networks.

def test_services_share_only_the_networks_they_need(stack: Stack) -> None:
    assert each(stack, lambda service: set(service["networks"])) == {
        "traefik": {"edge", "control"}, "socket-proxy": {"control"}, "app": {"edge", "data"},
        "postgres": {"data"}}


def test_only_the_edge_network_reaches_the_outside(stack: Stack) -> None:
    assert {name: network.get("internal", False) for name, network
            in stack.content["networks"].items()} == {"edge": False, "data": True, "control": True}


def test_each_network_sends_packets_of_the_size_that_a_deploy_finds(stack: Stack) -> None:
    assert [(network["driver"], network["driver_opts"]) for network
            in stack.content["networks"].values()] \
        == [("overlay", {MTU_OPTION: VARIABLES["OVERLAY_MTU"]})] * 3


def test_only_traefik_publishes_ports_on_its_node_itself(stack: Stack) -> None:
    entry_points = traefik_configuration()["entryPoints"]
    port = {name: int(entry_points[name]["address"].removeprefix(":"))
            for name in ("web", "websecure")}

    assert each(stack, lambda service: service.get("ports")) == {**same(None), "traefik": [
        {"mode": "host", "target": port["web"], "published": 8080, "protocol": "tcp"},
        {"mode": "host", "target": port["websecure"], "published": 8443, "protocol": "tcp"}]}


def test_only_the_socket_proxy_mounts_the_docker_socket(stack: Stack) -> None:
    binds = each(stack, lambda service: [
        volume["source"] for volume in service.get("volumes", []) if volume["type"] == "bind"])

    assert binds == {**same([]), "socket-proxy": ["/var/run/docker.sock"]}


def test_traefik_looks_for_the_socket_proxy_and_the_edge_network() -> None:
    swarm = traefik_configuration()["providers"]["swarm"]

    assert (swarm["endpoint"], swarm["network"]) == ("tcp://socket-proxy:2375", f"{STACK}_edge")
    assert "bind :2375\n" in (IMAGES / "socket-proxy/haproxy.cfg").read_text()


def test_traefik_sends_requests_to_the_port_that_the_app_serves(stack: Stack) -> None:
    label = "traefik.http.services.app.loadbalancer.server.port"

    assert stack.services["app"]["deploy"]["labels"][label] \
        == str(number("bind", "app/haproxy.cfg"))


def test_the_fallback_route_is_that_of_the_labels(stack: Stack) -> None:
    labels = stack.services["app"]["deploy"]["labels"]
    fallback = yaml.safe_load((IMAGES / "traefik/fallback.yml").read_text())["http"]
    route = fallback["routers"]["fallback"]
    port = labels["traefik.http.services.app.loadbalancer.server.port"]

    for name, entry_point in (("app", "web"), ("app-tls", "websecure")):
        prefix = f"traefik.http.routers.{name}."
        assert {key.removeprefix(prefix): value for key, value in labels.items()
                if key.startswith(prefix)} == {
                    "rule": route["rule"], "entrypoints": entry_point,
                    "middlewares": ",".join(route["middlewares"])}
        assert entry_point in route["entryPoints"]
    assert fallback["middlewares"] == {"again": {"retry": {"attempts": int(
        labels["traefik.http.middlewares.again.retry.attempts"])}}}
    assert fallback["services"]["app"]["loadBalancer"]["servers"] == [{"url": f"http://app:{port}"}]
    assert route["priority"] < len(route["rule"])


# Placement.

def test_pinned_services_stay_on_their_nodes(stack: Stack) -> None:
    assert each(stack, lambda service: service["deploy"].get("placement")) == {
        "traefik": {"constraints": ["node.labels.edge == true"]},
        "socket-proxy": {"constraints": ["node.role == manager"]},
        "app": None,
        "postgres": {"constraints": ["node.labels.postgres == true"], "max_replicas_per_node": 1}}


def test_only_the_app_is_replicated(stack: Stack) -> None:
    assert each(stack, lambda service: service["deploy"].get(
        "mode", service["deploy"].get("replicas"))) == {
            "traefik": "global", "socket-proxy": "global", "app": VARIABLES["APP_REPLICAS"],
            "postgres": 1}


def test_only_the_pinned_database_keeps_a_volume(stack: Stack) -> None:
    volumes = each(stack, lambda service: [
        volume["source"] for volume in service.get("volumes", []) if volume["type"] == "volume"])

    assert volumes == {**same([]), "postgres": ["postgres-data"]}


# Secrets.

def test_every_secret_exists_before_the_stack(stack: Stack) -> None:
    assert stack.content["secrets"] == {
        name: {"external": True, "name": VARIABLES[name.upper().replace("-", "_")]}
        for name in ("app-password", "owner-password", "visitor-key")}


def test_only_its_services_user_can_read_each_secret(stack: Stack) -> None:
    used = {name: {(secret["uid"], secret["gid"], secret["mode"])
                   for secret in service["secrets"]}
            for name, service in stack.services.items() if "secrets" in service}

    assert used == {name: {(*str(stack.services[name]["user"]).split(":"), 0o400)}
                    for name in ("app", "postgres")}


def test_the_app_never_has_the_owners_password(stack: Stack) -> None:
    def sources(service: Service) -> set[str]:
        return {secret["source"] for secret in service.get("secrets", [])}

    assert sources(stack.services["app"]) == {"app-password", "visitor-key"}
    assert sources(stack.migrate) == {"owner-password", "visitor-key"}


def test_no_environment_contains_a_password(stack: Stack) -> None:
    environments = {**each(stack, lambda service: service.get("environment", {})),
                    "migrate": stack.migrate["environment"]}
    secret = re.compile(r"(PASSWORD|SECRET|KEY|TOKEN)$")

    assert [(name, key) for name, environment in environments.items() for key in environment
            if secret.search(key) or re.search(r"://[^/@]*:[^/@]*@", str(environment[key]))] == []


# Stopping.

def test_a_stopping_app_serves_until_traefik_has_noticed(
        stack: Stack) -> None:
    app = stack.services["app"]
    drain = int(app["environment"]["DRAIN_SECONDS"])
    refresh = int(traefik_configuration()["providers"]["swarm"]["refreshSeconds"])
    haproxy = number("hard-stop-after", "app/haproxy.cfg")
    mercy = number("worker-reload-mercy", "app/uwsgi.ini")

    # A poll of Traefik's that just missed the change, the next poll, and a margin.
    assert drain >= 3 * refresh
    # A whole header, then the longest request.
    assert haproxy >= number("timeout http-request", "app/haproxy.cfg") \
        + number("harakiri", "app/uwsgi.ini")
    assert drain + haproxy + mercy < seconds(app["stop_grace_period"])


def test_a_stopping_socket_proxy_has_time_for_its_last_answers(stack: Stack) -> None:
    grace, limit = (number(name, "socket-proxy/haproxy.cfg")
                    for name in ("grace", "hard-stop-after"))
    longest = seconds(traefik_configuration()["providers"]["swarm"]["httpClientTimeout"])

    assert limit > longest
    assert grace + limit < seconds(stack.services["socket-proxy"]["stop_grace_period"])


def test_postgres_has_over_a_minute_for_its_last_checkpoint(stack: Stack) -> None:
    assert seconds(stack.services["postgres"]["stop_grace_period"]) >= 60


def test_the_migration_is_the_app_with_another_command(stack: Stack) -> None:
    app, job = stack.services["app"], stack.migrate

    assert {key for key in app.keys() | job.keys() if app.get(key) != job.get(key)} \
        == {"command", "environment", "secrets", "networks"}
    assert (job["command"], job["networks"]) == (["flask", "db", "upgrade"], ["data"])
