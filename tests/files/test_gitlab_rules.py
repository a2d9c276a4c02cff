"""Rules mean here what they mean to GitLab."""

import pytest

from tests.files.gitlab_rules import Expression, decision

pytestmark = pytest.mark.style

VARIABLES = {"BRANCH": "main", "DEFAULT": "main", "SOURCE": "push", "EMPTY": "", "TAG": "v1.4.0"}


@pytest.mark.parametrize(("text", "holds"), [
    ("$BRANCH", True), ("$EMPTY", False), ("$ABSENT", False),
    ("$BRANCH == $DEFAULT", True), ('$SOURCE == "push"', True), ("$SOURCE == 'web'", False),
    ('$SOURCE != "web"', True), ('"push" == $SOURCE', True),
    ("$ABSENT == null", True), ("$EMPTY == null", False), ('$EMPTY == ""', True),
    ("$ABSENT == $MISSING", True), ('$ABSENT == "push"', False),
    (r"$TAG =~ /^v\d+\.\d+/", True), ("$TAG =~ /^V1/", False), ("$TAG =~ /^V1/i", True),
    ("$ABSENT =~ /./", False), ("$ABSENT !~ /./", True), ("$SOURCE !~ /^(push|web)$/", False),
    # && binds tighter than ||.
    ("$BRANCH || $ABSENT && $ABSENT", True), ("($BRANCH || $ABSENT) && $ABSENT", False),
    ("$ABSENT && $ABSENT || $BRANCH", True),
    ('$BRANCH &&\n($SOURCE == "push" || $SOURCE == "web")', True)])
def test_an_expression_is_evaluated(text: str, holds: bool) -> None:
    assert Expression(text, VARIABLES).holds() is holds


@pytest.mark.parametrize("text", [
    "", "$BRANCH ==", "$BRANCH $TAG", "($BRANCH", "BRANCH", "$BRANCH = $TAG", '$TAG =~ "v1"'])
def test_what_is_no_expression_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        Expression(text, VARIABLES).holds()


def test_the_first_rule_that_applies_decides() -> None:
    rules = [{"if": "$ABSENT"}, {"if": "$TAG", "when": "manual"}, {"if": "$BRANCH"}]

    assert decision(rules, VARIABLES) == "manual"
    assert decision(rules, {"BRANCH": "main"}) == "on_success"
    assert decision(rules, {}) == "never"
    assert decision(None, {}) == "on_success"
    assert decision([{"when": "never"}], {}) == "never"


def test_other_rules_are_not_guessed() -> None:
    with pytest.raises(ValueError, match="changes"):
        decision([{"changes": ["app/*"]}], {})
