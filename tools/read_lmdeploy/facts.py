"""What one engine of one release serves, and small questions to a syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from read_lmdeploy.sources import UnreadableError


@dataclass
class Facts:
    """One engine of one release."""

    architectures: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    conditions: dict[str, set[str]] = field(default_factory=dict)  # architecture -> what is asked of it
    weights: dict[str, set[str]] = field(default_factory=dict)  # quantization method -> what is asked of it
    refused_methods: set[str] = field(default_factory=set)
    windowed: set[str] = field(default_factory=set)  # architectures whose sliding window is honoured
    head_dims: set[int] | None = None  # None: not told
    takes_own_repositories: bool = False

    def ask(self, architecture: str, *conditions: str) -> None:
        self.conditions.setdefault(architecture, set()).update(conditions)


def function(tree: ast.Module, name: str) -> ast.FunctionDef:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise UnreadableError(f"there is no {name}")


def body_text(body: Sequence[ast.stmt]) -> str:
    return "\n".join(ast.unparse(node) for node in body)


def strings(node: ast.AST) -> list[str]:
    """Every text in an expression, in order."""
    return [value for value in constants(node) if isinstance(value, str)]


def constants(node: ast.AST) -> Iterator[object]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant):
            yield one.value
