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


# The one service of which there may be any number of tasks.
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
        """The job: the app's definition, with what x-migrate says laid over it."""
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


def load(path: Path, variables: Mapping[str, str | int],
         sections: Sequence[str] = (*SECTIONS, JOB)) -> Stack:
    """Read a stack file; raises Refused with the file and the line or the key at fault.

    `sections` are those that it must have: Tally's own has the migration's job, too.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path.name} can't be read", f"git checkout -- {path.name}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Refused(f"{path.name}, line {line}: {error.problem}") from error
    # Dates that there are not, and numbers too long to read, are plain ValueErrors.
    except (yaml.YAMLError, ValueError) as error:
        raise Refused(f"{path.name}: {str(error).splitlines()[0]}") from error
    _check_shape(path.name, content, sections)
    return Stack(_map_strings(content, lambda text: _fill(path.name, text, variables)))


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
    """Refuse what the file doesn't declare: Docker would notice too late."""
    for section in ("networks", "secrets", "configs"):
        for use in service.get(section) or []:
            name = use["source"] if isinstance(use, dict) else use
            if name not in (content.get(section) or {}):
                raise Refused(f"{where}.{section}: {name} isn't declared",
                              f"declare it under {section} at the end of the file")


def _fill(file: str, text: str, variables: Mapping[str, str | int]) -> str | int:
    """Return a scalar with its variables filled in; one that is just a number becomes one."""
    def value(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        if found["rest"] and not found["required"]:
            raise Refused(f"{file}: {found[0]}", "write ${NAME:?}: nothing has a default here")
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
