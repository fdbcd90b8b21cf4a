"""Which mutants there are, and a fair choice of them."""

from __future__ import annotations

import ast
import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from parso.tree import NodeOrLeaf

_OPERATORS = (
    "core/ReplaceComparisonOperator",
    "core/ReplaceBinaryOperator",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceUnaryOperator",
    "core/AddNot",
    "core/NumberReplacer",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ZeroIterationForLoop",
)
# Python warns of `is` with a literal, and `== None` does what `is None` does.
_IDENTITY = re.compile(r"(Eq|Lt|LtE|Gt|GtE)_Is(Not)?$|Operator_Is_Eq$|_IsNot_NotEq$")


# Nothing is done to these, and they are most of a source.
_PLAIN_TYPES = ("name", "newline", "string", "endmarker", "fstring_start", "fstring_string", "fstring_end")
_PUNCTUATION = frozenset("( ) [ ] { } , : . = -> ;".split())


@dataclass(frozen=True, slots=True)
class Mutant:
    operator: str
    occurrence: int  # of what the operator changes, in its file
    path: Path  # relative to the root
    line: int
    column: int
    source: str  # the line as it is

    @property
    def name(self) -> str:
        """The same for as long as the line and what is done to it stay the same."""
        operator = self.operator.removeprefix("core/")
        return f"{self.path.name}: {self.source.strip()} [{operator} at column {self.column}]"


def mutants_of(root: Path, modules: Iterable[Path]) -> list[Mutant]:
    """All of them but those in types, which are never computed, and those that say the same or nothing."""
    operators = [name for name in operator_names() if name.startswith(_OPERATORS) and not _IDENTITY.search(name)]
    return [mutant for module in modules for mutant in _mutants_in(root, module, operators)]


def _mutants_in(root: Path, module: Path, operators: Iterable[str]) -> Iterator[Mutant]:
    source = (root / module).read_text(encoding="utf-8")
    lines, types = source.splitlines(), list(_types(source))
    nodes = [node for node in ast_nodes(get_ast(source)) if not _is_plain(node)]
    for operator in operators:
        positions = get_operator(operator)().mutation_positions
        places = (start for node in nodes for start, _ in positions(node))
        for occurrence, (line, column) in enumerate(places):
            if not any(start <= (line, column) < end for start, end in types):
                yield Mutant(operator, occurrence, module, line, column, lines[line - 1])


def _is_plain(node: NodeOrLeaf) -> bool:
    return node.type in _PLAIN_TYPES or (node.type == "operator" and node.get_code(False) in _PUNCTUATION)


_Span = tuple[tuple[int, int], tuple[int, int]]
_ALIASES = ("Literal[", "Annotated[", "Callable[", "Mapping[", "tuple[", "dict[", "list[")


def _types(source: str) -> Iterator[_Span]:
    """Where annotations, type aliases and what is for type checkers alone begin and end: `frozen` is, they hold it."""
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.AST | None] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts = [node.returns]
            yield from _keyword_marks(node)
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            parts = [node.annotation]
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            parts = [node]
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(_ALIASES):
            parts = [node.value]
        for part in parts:
            if isinstance(part, (ast.expr, ast.stmt)):
                yield (part.lineno, part.col_offset), (part.end_lineno or part.lineno, part.end_col_offset or 0)


def _keyword_marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[_Span]:
    """Where the `*` is behind which arguments are named: another sign there refuses other calls, which types do too."""
    if node.args.kwonlyargs and not node.args.vararg:
        first = node.args.kwonlyargs[0]
        before = [*node.args.posonlyargs, *node.args.args, *node.args.defaults]
        ends = [(part.end_lineno or 0, part.end_col_offset or 0) for part in before]
        yield max([(node.lineno, node.col_offset), *ends]), (first.lineno, first.col_offset)


def choose(root: Path, mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of them, at most one a line; with the same seed the same of the same source.

    What Python itself refuses, as it does `{|more}`, is no mutant: whatever loads the module would find it.
    """
    shuffled = random.Random(seed).sample(mutants, len(mutants))
    by_line = {(one.path, one.line): one for one in reversed(shuffled)}
    valid = (one for one in shuffled if by_line[one.path, one.line] is one and _is_python(root, one))
    return list(itertools.islice(valid, count))


def _is_python(root: Path, mutant: Mutant) -> bool:
    source = (root / mutant.path).read_text(encoding="utf-8")
    try:
        ast.parse(mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence) or "")
    except SyntaxError:
        return False
    return True
