"""The running tasks have few rights and reveal no secret."""

import json
from typing import Any

import pytest

from tests.e2e.site import Site

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def containers(site: Site) -> list[dict[str, Any]]:
    """Return `docker inspect` of each running task's container."""
    found = json.loads(site.sh("docker inspect $(docker ps --quiet --filter "
                               "label=com.docker.stack.namespace=tally)"))
    assert len(found) == 5
    return list(found)


def test_every_task_is_healthy(containers: list[dict[str, Any]]) -> None:
    assert {container["State"]["Health"]["Status"] for container in containers} == {"healthy"}


def test_no_task_runs_as_root(containers: list[dict[str, Any]], site: Site) -> None:
    for container in containers:
        assert container["Config"]["User"].split(":")[0] not in {"", "0", "root"}
        pid = container["State"]["Pid"]
        owner = site.sh(f"stat --format=%u /proc/{pid}").strip()
        assert owner == container["Config"]["User"].split(":")[0]


def test_every_file_system_is_read_only(containers: list[dict[str, Any]], site: Site) -> None:
    for container in containers:
        assert container["HostConfig"]["ReadonlyRootfs"]
        done = site.shell(f"docker exec {container['Id']} sh -c 'echo > /etc/mark'", 30)
        assert done.code != 0 and "Read-only file system" in done.stderr


def test_no_task_has_a_capability_or_can_gain_one(containers: list[dict[str, Any]],
                                                  site: Site) -> None:
    for container in containers:
        status = site.sh(f"cat /proc/{container['State']['Pid']}/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(facts[name], 16) == 0, f"{container['Name']}: {name}"
        assert facts["NoNewPrivs"] == "1", container["Name"]


def test_every_task_has_limits(containers: list[dict[str, Any]]) -> None:
    for container in containers:
        limits = container["HostConfig"]
        assert limits["Memory"] > 0 and limits["NanoCpus"] > 0 and limits["PidsLimit"] > 0


def test_every_log_is_rotated(containers: list[dict[str, Any]]) -> None:
    for container in containers:
        assert container["HostConfig"]["LogConfig"] == {
            "Type": "local", "Config": {"max-file": "3", "max-size": "10m"}}


def test_no_secret_is_visible_anywhere(containers: list[dict[str, Any]], site: Site) -> None:
    values = {name: site.sh(f"docker exec {identifier} cat /run/secrets/{name}").strip()
              for container in containers for identifier in [container["Id"]]
              for name in site.sh(f"docker exec {identifier} sh -c "
                                  "'[ ! -d /run/secrets ] || ls /run/secrets'").split()}
    assert values.keys() == {"database-password", "visitor-key", "owner-password", "app-password"}
    assert all(len(value) == 64 for value in values.values())
    shown = json.dumps(containers)
    shown += site.sh("docker service inspect $(docker service ls --quiet)")
    shown += site.sh("docker config inspect $(docker config ls --quiet)")
    shown += site.sh("for s in $(docker service ls --format '{{.Name}}'); do "
                     "docker service logs $s 2>&1; done")
    shown += site.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    shown += "".join(site.sh(f"tr '\\0' '\\n' < /proc/{container['State']['Pid']}/environ")
                     for container in containers)
    for name, value in values.items():
        assert value not in shown, f"{name} is shown"


def test_the_log_is_json_without_addresses(site: Site, address: str) -> None:
    site.visit(address)
    log = site.sh("for c in $(docker ps --quiet --filter name=tally_app); do "
                  "docker logs --tail 200 $c 2>/dev/null; done").splitlines()
    requests = [json.loads(line) for line in log if line.startswith("{")]
    assert any(entry.get("path") == "/" and entry.get("status") == 200 for entry in requests)
    assert address not in "\n".join(log)


def test_the_application_cannot_change_the_schema(site: Site) -> None:
    tables = site.query("SELECT string_agg(tablename, ',') FROM pg_tables "
                        "WHERE schemaname = 'public' AND tableowner <> 'tally_owner'")
    assert tables == ""
    allowed = site.query("SELECT string_agg(DISTINCT table_name || ' ' || privilege_type, ',') "
                         "FROM information_schema.role_table_grants WHERE grantee = 'tally_app' "
                         "AND privilege_type NOT IN ('SELECT')")
    assert set(allowed.split(",")) == {"visitors INSERT", "visitors UPDATE"}


def test_the_database_is_not_reachable_from_outside(site: Site) -> None:
    ports = site.sh("docker ps --filter label=com.docker.swarm.service.name=tally_postgres "
                    "--format '{{.Ports}}'")
    assert "->" not in ports
    assert site.query("SHOW data_checksums") == "on"
    assert site.query("SELECT count(*) FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256%'"
                      ) == "0"


def test_the_socket_proxy_answers_only_traefiks_requests(site: Site) -> None:
    ask = ("docker exec $(docker ps --quiet --filter "
           "label=com.docker.swarm.service.name=tally_socket-proxy) bash -c "
           "'exec 3<>/dev/tcp/127.0.0.1/2375; printf \"{} HTTP/1.0\\r\\n\\r\\n\" >&3; "
           "head -n 1 <&3'")
    for question in ("GET /version", "GET /v1.41/services", "GET /tasks", "GET /nodes"):
        assert " 200 " in site.sh(ask.format(question)), question
    for question in ("GET /secrets", "GET /v1.41/configs", "GET /containers/json", "GET /info",
                     "GET /nodes/../secrets", "GET /services/x/../../secrets",
                     "GET /services/tally_app/logs?stdout=1"):
        assert " 403 " in site.sh(ask.format(question)), question
    for question in ("POST /services/create", "DELETE /services/tally_app", "PUT /version"):
        assert " 405 " in site.sh(ask.format(question)), question


def test_traefik_does_not_mount_the_docker_socket(containers: list[dict[str, Any]]) -> None:
    holders = [container["Config"]["Labels"]["com.docker.swarm.service.name"]
               for container in containers
               if any("docker.sock" in mount.get("Source", "") for mount in container["Mounts"])]
    assert holders == ["tally_socket-proxy"]


def test_the_applications_own_layers_are_small_and_contain_no_tools(site: Site) -> None:
    size = site.sh("docker image inspect --format '{{.Size}}' localhost:1/tally/base:trixie "
                   "$(docker service inspect --format "
                   "'{{.Spec.TaskTemplate.ContainerSpec.Image}}' tally_app)").split()
    assert 0 < int(size[1]) - int(size[0]) < 120_000_000
    tools = "gcc cc make pip pip3 curl wget git"
    found = site.shell("docker exec $(docker ps --quiet --filter name=tally_app.1) "
                       f"sh -c 'for tool in {tools}; do command -v $tool; done'", 30)
    assert found.stdout == ""
