"""Read docker-stack.yml, fill in its variables and find what Docker would ignore."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stack.errors import Refused

# The Compose file's own syntax, as far as docker-stack.yml uses it.
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>[A-Za-z_]\w*)(?P<required>:?\?)?(?P<rest>[^}]*)\}")
SECTIONS = ("services", "networks", "secrets")
JOB = "x-migrate"


# A part of Go's durations, such as 1m30s (time.ParseDuration), all that Docker accepts; and the
# seconds of each unit.
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# Seconds for which Swarm monitors an update if the file doesn't say.
MONITOR = 5.0
# The only service that can be scaled.
SCALABLE = "app"


@dataclass(frozen=True)
class Stack:
    """A whole stack as the Compose file format has it, every variable filled in.

    `content` maps names to dictionaries, lists and scalars, as YAML gives them.
    """

    content: dict[str, Any]

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        services: dict[str, dict[str, Any]] = self.content["services"]
        return services

    @property
    def migrate(self) -> dict[str, Any]:
        """The job: the app's definition, overridden by x-migrate."""
        changes = self.content[JOB]
        app = self.services["app"]
        environment = {**app["environment"], **changes.get("environment", {})}
        return {**app, **changes, "environment": environment}

    @property
    def http_port(self) -> int:
        """The port that visitors open on an edge node."""
        return int(self.services["traefik"]["ports"][0]["published"])

    @property
    def replicas(self) -> int:
        """How many tasks serve the application."""
        return int(self.services[SCALABLE]["deploy"]["replicas"])

    @property
    def monitor(self) -> float:
        """The seconds for which Swarm monitors an update, the longest of all services."""
        updates = (service.get("deploy", {}).get("update_config", {})
                   for service in self.services.values())
        return max((seconds(update["monitor"]) if "monitor" in update else MONITOR
                    for update in updates), default=MONITOR)

    def with_replicas(self, wanted: int) -> "Stack":
        """Return the same stack with another number of the application's tasks."""
        app = self.services[SCALABLE]
        return Stack({**self.content, "services": {**self.services, SCALABLE: {
            **app, "deploy": {**app["deploy"], "replicas": wanted}}}})

    def only(self, *names: str) -> "Stack":
        """Return the same stack with just these services and the networks they use."""
        services = {name: self.services[name] for name in names}
        networks = {network for service in services.values() for network in service["networks"]}
        return Stack({**self.content, "services": services, "networks": {
            name: value for name, value in self.content["networks"].items() if name in networks}})

    def text(self) -> str:
        """Return the stack as a Compose file that Docker's own interpolation leaves alone.

        It is written as JSON, which is YAML too: PyYAML would leave 1e3 or 0o17
        without quotes, and Docker's YAML 1.2 would read a number.
        """
        return json.dumps(_map_strings(self.content, lambda text: text.replace("$", "$$")),
                          indent=2, ensure_ascii=False)


def seconds(duration: str) -> float:
    """Return how long a duration of the stack file is, in seconds; raises Refused for none."""
    if duration.lstrip("+") == "0":
        return 0.0
    if not re.fullmatch(rf"\+?(?:{DURATION.pattern})+", duration):
        raise Refused(f"docker-stack.yml: {duration!r} isn't a duration", "write it as in 1m30s")
    return sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(duration))


def load(path: Path, variables: Mapping[str, str | int],
         sections: Sequence[str] = (*SECTIONS, JOB)) -> Stack:
    """Read a stack file; raises Refused with the file and the line or the key at fault.

    `sections` are required: Tally's own file also has the migration's job.
    """
    try:
        content = _parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} can't be read", f"git checkout -- {path.name}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Refused(f"{path.name}, line {line}: {error.problem}") from error
    # Impossible dates and overlong numbers raise a plain ValueError.
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(f"{path.name}: {str(error).splitlines()[0]}") from error
    _check_shape(path.name, content, sections)
    return Stack(_map_strings(content, lambda text: _fill(path.name, text, variables)))


def _parse(text: str) -> Any:
    """Parse YAML; raises yaml.YAMLError, and ValueError for an impossible date."""
    try:
        return yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        # Python's loader takes ten times as long, but its errors say more.
        return yaml.safe_load(text)


def _check_shape(name: str, content: Any, sections: Sequence[str]) -> None:
    if not isinstance(content, dict):
        raise Refused(f"{name}: it should be a mapping with services, networks and secrets")
    for section in sections:
        if not isinstance(content.get(section), dict):
            raise Refused(f"{name}: {section}: it should be a mapping")
    for service, keys in content["services"].items():
        if not isinstance(keys, dict):
            raise Refused(f"{name}: services.{service}: it should be a mapping")
        _check_references(f"{name}: services.{service}", keys, content)
    _check_references(f"{name}: {JOB}", content.get(JOB) or {}, content)


def _check_references(where: str, service: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Refuse undeclared references: Docker would notice too late."""
    for section in ("networks", "secrets", "configs"):
        for use in service.get(section) or []:
            name = use["source"] if isinstance(use, dict) else use
            if name not in (content.get(section) or {}):
                raise Refused(f"{where}.{section}: {name} isn't declared",
                              f"declare it under {section} at the end of the file")


def _fill(file: str, text: str, variables: Mapping[str, str | int]) -> str | int:
    """Return a scalar with its variables filled in; a lone number stays a number."""
    def value(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        if found["rest"] and not found["required"]:
            raise Refused(f"{file}: {found[0]}", "write ${NAME:?}: defaults aren't allowed")
        if found["name"] not in variables:
            raise Refused(f"{file}: ${{{found['name']}}} is not a variable that ./fab sets")
        if found["required"] == ":?" and not variables[found["name"]]:
            raise Refused(f"{file}: ${{{found['name']}}} is empty")
        return str(variables[found["name"]])
    alone = VARIABLE.fullmatch(text)
    if alone and isinstance(number := variables.get(alone["name"] or ""), int):
        return number
    return VARIABLE.sub(value, text)


def _map_strings(node: Any, change: Callable[[str], str | int]) -> Any:
    """Return a copy of nested dictionaries and lists with each string value changed."""
    if isinstance(node, dict):
        return {key: _map_strings(value, change) for key, value in node.items()}
    if isinstance(node, list):
        return [_map_strings(value, change) for value in node]
    return change(node) if isinstance(node, str) else node
