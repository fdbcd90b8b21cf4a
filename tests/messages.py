"""Every sentence that deploytk says when something is wrong or worth knowing, read from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import deploytk
from deploytk.base import errors

PACKAGE = Path(deploytk.__file__).parent

# Name of what is called -> the places of its sentences: number of an argument, or its name.
_ERRORS = {name: (0, "hint") for name in vars(errors) if name.endswith("Error")} | {
    "OutputError": (0, "hint"),
    "ContextFullError": (0, "hint"),
}
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
_TEXT = (ast.Constant, ast.JoinedStr)

# What has words and is said to nobody: SQL, code for others' interpreters, patterns.
_FOR_PROGRAMS = re.compile(r"^\s*(import|from|def|class|SELECT|raise) |\(\?|\\[sdwb]|^[^a-zA-Z]*$|^[\w./-]+ --\w|\{\{")


@dataclass(frozen=True, slots=True)
class Message:
    """What one call says, or a sentence that stands by itself; what is put in when it is said stands in braces."""

    module: str
    line: int
    kind: str
    sentences: tuple[str, ...]


def messages() -> Iterator[Message]:
    """All of them, by module and place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        found = [*_said(ast.parse(path.read_text(encoding="utf-8")), module)]
        yield from sorted(found, key=lambda message: message.line)


def _said(tree: ast.Module, module: str) -> Iterator[Message]:
    taken: set[int] = set()
    nodes = [*_with_scopes(tree)]
    assigned = cache(lambda scope: {**_assigned(tree.body), **_assigned(ast.walk(scope))})
    for node, scope in nodes:
        kind = _called(node.func) if isinstance(node, ast.Call) else ""
        if kind in _SAYS and isinstance(node, ast.Call):
            reader = _Reader(assigned(scope), taken)
            texts = [text for place in _SAYS[kind] for text in reader.sentences(_argument(node, place))]
            if texts:
                yield Message(module, node.lineno, kind, tuple(texts))
    yield from _others(nodes, module, taken)


def _others(nodes: Iterable[tuple[ast.AST, ast.AST]], module: str, taken: set[int]) -> Iterator[Message]:
    """Sentences that no such call has: they reach one by a variable, a table, or a function that gives them."""
    for node, scope in nodes:
        whole = _outermost(node, taken)
        if whole is not None and id(node) not in taken:
            text = _Reader({}, taken).text(node)
            if _is_prose(text):
                yield Message(module, whole.lineno, f"text in {getattr(scope, 'name', 'the module')}", (text,))


def _outermost(node: ast.AST, taken: set[int]) -> ast.expr | None:
    """A text that is no part of another one, and no docstring."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        taken.add(id(node.value))
    return node if isinstance(node, _TEXT) or (isinstance(node, ast.BinOp) and _is_text(node)) else None


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_prose(text: str) -> bool:
    words = re.findall(r"(?<![\w{.'-])[A-Za-z]{2,}(?![\w}.(-])", re.sub(r"\{[^{}]*\}", "", text))
    return len(words) >= 3 and not _FOR_PROGRAMS.search(text)


def _with_scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Every node from the outside in, with the function that it stands in."""

    waiting: list[tuple[ast.AST, ast.AST]] = [(tree, tree)]
    while waiting:
        node, scope = waiting.pop()
        if node is not tree:
            yield node, scope
        inner = node if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else scope
        waiting += [(child, inner) for child in reversed([*ast.iter_child_nodes(node)])]


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""


def _argument(call: ast.Call, place: int | str) -> ast.expr | None:
    if isinstance(place, str):
        return next((one.value for one in call.keywords if one.arg == place), None)
    return call.args[place] if place < len(call.args) else None


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """Name -> all that is given to it: `hint = f"..."`, `what, hint = "...", "..."`."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1:
            continue
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = [*zip(target.elts, value.elts, strict=False)]
        for name, one in pairs:
            if isinstance(name, ast.Name):
                found.setdefault(name.id, []).append(one)
    return found


class _Reader:
    """Reads texts as they stand in the source, and notes which it has read."""

    def __init__(self, named: Mapping[str, list[ast.expr]], taken: set[int]) -> None:
        self._named = named
        self._taken = taken

    def sentences(self, node: ast.expr | None) -> list[str]:
        """All that an argument may say; its own expression in braces where that is made elsewhere."""
        if node is None:
            return []
        if isinstance(node, ast.Name) and node.id in self._named:
            return list(dict.fromkeys(text for one in self._named[node.id] for text in self.sentences(one)))
        if isinstance(node, ast.IfExp):
            return [*self.sentences(node.body), *self.sentences(node.orelse)]
        if isinstance(node, ast.Constant) and not isinstance(node.value, str):
            return []
        text = self.text(node)
        return [text] if text else []

    def text(self, node: ast.expr) -> str:
        self._taken.add(id(node))
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else "{" + repr(node.value) + "}"
        if isinstance(node, ast.JoinedStr):
            return "".join(self._part(part) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.text(node.left) + self.text(node.right)
        return "{" + _source(node) + "}"

    def _part(self, part: ast.expr) -> str:
        self._taken.add(id(part))
        if isinstance(part, ast.Constant):
            return str(part.value)
        assert isinstance(part, ast.FormattedValue)
        inner = _source(part.value)
        return "{" + inner + ("!r" if part.conversion == ord("r") else "") + "}"


def _source(node: ast.expr) -> str:
    """As Python 3.11 and later write it: before, what a loop unpacks into is in brackets."""
    return re.sub(r" for \((\w+(?:, \w+)+)\) in ", r" for \1 in ", ast.unparse(node))
