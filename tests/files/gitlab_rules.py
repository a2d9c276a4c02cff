"""Evaluate the rules of a pipeline as GitLab does.

The grammar is that of https://docs.gitlab.com/ci/jobs/job_rules/#cicd-variable-expressions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

TOKEN = re.compile(r"""\s*(?:(?P<variable>\$[A-Za-z_]\w*)|"(?P<double>[^"]*)"|'(?P<single>[^']*)'
    |(?P<null>null\b)|/(?P<pattern>(?:[^/\\]|\\.)+)/(?P<flags>i?)
    |(?P<operator>==|!=|=~|!~|&&|\|\||\(|\)))""", re.VERBOSE)
Variables = Mapping[str, str]
Value = str | re.Pattern[str] | None


class Expression:
    """One expression of `rules:if`, as a row of tokens: operators, and values under VALUE."""

    VALUE = "value"

    def __init__(self, text: str, variables: Variables) -> None:
        self._tokens: list[tuple[str, Value]] = []
        position, text = 0, text.strip()
        while position < len(text):
            found = TOKEN.match(text, position)
            if found is None:
                raise ValueError(f"not an expression: {text[position:]}")
            position = found.end()
            operator = found["operator"]
            self._tokens.append((operator, None) if operator else (
                self.VALUE, self._value(found, variables)))

    @staticmethod
    def _value(found: re.Match[str], variables: Variables) -> Value:
        if found["variable"]:
            return variables.get(found["variable"][1:])
        if found["pattern"]:
            return re.compile(found["pattern"], re.IGNORECASE if found["flags"] else 0)
        return next((found[kind] for kind in ("double", "single") if found[kind] is not None), None)

    def holds(self) -> bool:
        """Return whether the expression is true."""
        result = self._either()
        if self._tokens:
            raise ValueError(f"not the end of an expression: {self._tokens}")
        return result

    def _takes(self, operator: str) -> bool:
        if self._tokens and self._tokens[0][0] == operator:
            self._tokens.pop(0)
            return True
        return False

    def _either(self) -> bool:
        result = self._both()
        while self._takes("||"):
            # Not short-circuited: the rest has to be read.
            result |= self._both()
        return result

    def _both(self) -> bool:
        result = self._term()
        while self._takes("&&"):
            result &= self._term()
        return result

    def _term(self) -> bool:
        if self._takes("("):
            result = self._either()
            if not self._takes(")"):
                raise ValueError("a parenthesis isn't closed")
            return result
        left = self._operand()
        for operator in ("==", "!=", "=~", "!~"):
            if self._takes(operator):
                return _compare(left, operator, self._operand())
        # A variable alone: whether it is defined and not empty.
        return bool(left)

    def _operand(self) -> Value:
        kind, value = self._tokens.pop(0) if self._tokens else ("nothing", None)
        if kind != self.VALUE:
            raise ValueError(f"{kind} isn't a value")
        return value


def _compare(left: Value, operator: str, right: Value) -> bool:
    if operator in {"==", "!="}:
        return (left == right) is (operator == "==")
    if not isinstance(right, re.Pattern):
        raise ValueError(f"{right!r} isn't a pattern")
    return (isinstance(left, str) and right.search(left) is not None) is (operator == "=~")


def decision(rules: Sequence[Mapping[str, Any]] | None, variables: Variables) -> str:
    """Return the `when` of the first rule that applies, "never" if none does.

    Without rules, a job always runs.
    """
    if rules is None:
        return "on_success"
    for rule in rules:
        unknown = rule.keys() - {"if", "when", "allow_failure"}
        if unknown:
            raise ValueError(f"rules with {unknown} can't be evaluated here")
        if "if" not in rule or Expression(rule["if"], variables).holds():
            return str(rule.get("when", "on_success"))
    return "never"


def jobs_of(pipeline: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Any]],
            variables: Variables) -> dict[str, str]:
    """Return the jobs of a pipeline with these variables, each with its `when`.

    Variables of the file itself count unless they are given. Without jobs, there is no pipeline.
    """
    known = {**pipeline.get("variables", {}), **variables}
    if decision(pipeline.get("workflow", {}).get("rules"), known) == "never":
        return {}
    found = {name: decision(job.get("rules"), known) for name, job in jobs.items()}
    return {name: when for name, when in found.items() if when != "never"}
