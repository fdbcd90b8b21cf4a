"""Every sentence that deploytk says when something is wrong or worth knowing, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import deploytk
from deploytk.base import errors

PACKAGE = Path(deploytk.__file__).parent

# Name of what is called -> the places of its sentences: number of an argument, or its name.
_ERRORS = {name: (0, "hint") for name in vars(errors) if name.endswith("Error")} | {"OutputError": (0, "hint")}
_VALUES = {
    "Problem": (1, 2, "message", "hint"),
    "Obstacle": (0, 1),
    "Finding": (1, 2, "message", "hint"),
    "Check": (2, 4),
    "Failure": (0, 1),
    "unused": ("because", "hint"),
    "note": (0,),
    "Option": (0, "help"),
}
_SAYS = _ERRORS | _VALUES


@dataclass(frozen=True, slots=True)
class Message:
    """What one call says; what is put in when it is said stands in braces."""

    module: str
    line: int
    kind: str
    sentences: tuple[str, ...]


def messages() -> Iterator[Message]:
    """All of them, by module and place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield from (message for message in _in(tree, module) if message.sentences)


def _in(tree: ast.Module, module: str) -> Iterator[Message]:
    scopes = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    named = {id(call): _assigned(scope) for scope in scopes for call in ast.walk(scope) if isinstance(call, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            kind = _called(node.func)
            if kind in _SAYS:
                texts = _texts(node, _SAYS[kind], named.get(id(node), {}))
                yield Message(module, node.lineno, kind, tuple(texts))


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def _assigned(scope: ast.AST) -> dict[str, ast.expr]:
    """Name -> the text that a function gives it: `hint = f"..."`."""
    found: dict[str, ast.expr] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return found


def _texts(call: ast.Call, places: tuple[int | str, ...], named: dict[str, ast.expr]) -> Iterator[str]:
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    for place in places:
        node = call.args[place] if isinstance(place, int) and place < len(call.args) else arguments.get(str(place))
        if isinstance(node, ast.Name):
            node = named.get(node.id, node)
        if node is not None and (text := text_of(node)):
            yield text


def text_of(node: ast.expr) -> str:
    """A text as it stands in the source; "" for what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"{text_of(node.body)} | {text_of(node.orelse)}".strip(" |")
    return ""


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    inner = ast.unparse(part.value)
    return "{" + inner + ("!r" if part.conversion == ord("r") else "") + "}"
