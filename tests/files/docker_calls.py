"""Find the calls of the docker command in the sources of the deploy."""

import ast
import re
from collections.abc import Iterator

SHELL = re.compile(
    r"\bdocker (-|(build|buildx|compose|config|container|context|cp|create|exec|image|images|import"
    r"|info|inspect|kill|load|login|logs|network|node|ps|pull|push|rm|run|save|secret|service"
    r"|stack|start|stop|swarm|system|tag|version|volume)\b)")
# Their texts are for people.
ERRORS = {"Refused", "OperatorError", "NotArrived", "RestoreFailed"}


def calls(source: str) -> list[str]:
    """Return each call in a Python module that isn't made through docker_command."""
    tree = ast.parse(source)
    return [f"{node.lineno}: {ast.unparse(node)}" for node in _unseen(tree, _scripts(tree))
            if _is_words(node) or _is_shell(node)]


def _scripts(tree: ast.Module) -> set[str]:
    """Return the names of the shell scripts that docker_command completes."""
    return {argument.id for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "docker_command.script"
            for argument in node.args if isinstance(argument, ast.Name)}


def _unseen(node: ast.AST, scripts: set[str]) -> Iterator[ast.expr]:
    """Yield all expressions but docstrings, those scripts and what is said in errors."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) \
                or isinstance(child, ast.Assign) and ast.unparse(child.targets[0]) in scripts \
                or isinstance(child, ast.Call) and ast.unparse(child.func) in ERRORS:
            continue
        if isinstance(child, ast.expr):
            yield child
        yield from _unseen(child, scripts)


def _is_words(node: ast.expr) -> bool:
    if not isinstance(node, ast.List | ast.Tuple) or len(node.elts) < 2:
        return False
    first, second = (each.value if isinstance(each, ast.Constant) else "" for each in node.elts[:2])
    return first == "docker" and re.fullmatch("|[a-z]+|--.*", str(second)) is not None


def _is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and SHELL.search(str(node.value)) is not None
