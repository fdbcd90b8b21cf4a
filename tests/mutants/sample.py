"""Which mutants there are, and a fair choice of them."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cosmic_ray.commands
import cosmic_ray.work_db
from cosmic_ray.work_item import MutationSpec

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


@dataclass(frozen=True, slots=True)
class Mutant:
    spec: MutationSpec
    path: Path  # relative to the root
    line: int
    source: str  # the line as it is

    @property
    def name(self) -> str:
        """The same for as long as the line and what is done to it stay the same."""
        operator = self.spec.operator_name.removeprefix("core/")
        return f"{self.path.name}: {self.source.strip()} [{operator} at column {self.spec.start_pos[1]}]"


def mutants_of(root: Path, modules: Iterable[Path]) -> list[Mutant]:
    """All of them but those in types, which are never computed, and those that say the same or nothing."""
    found = []
    for module in modules:
        lines = (root / module).read_text(encoding="utf-8").splitlines()
        types = list(_types((root / module).read_text(encoding="utf-8")))
        with cosmic_ray.work_db.use_db(":memory:", cosmic_ray.work_db.WorkDB.Mode.create) as database:
            cosmic_ray.commands.init([root / module], database, {})
            specs = [spec for item in database.work_items for spec in item.mutations]
        for spec in specs:
            place = spec.start_pos
            is_type = any(start <= place < end for start, end in types)
            if spec.operator_name.startswith(_OPERATORS) and not is_type and not _IDENTITY.search(spec.operator_name):
                found.append(Mutant(spec, module, place[0], lines[place[0] - 1]))
    return found


def _types(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations, type aliases and what is for type checkers alone begin and end."""
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.AST | None] = []
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts = [node.returns]
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            parts = [node.annotation]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            parts = [node]
        elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("Literal[", "Annotated[")):
            parts = [node.value]
        for part in parts:
            if isinstance(part, (ast.expr, ast.stmt)):
                yield (part.lineno, part.col_offset), (part.end_lineno or part.lineno, part.end_col_offset or 0)


def choose(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of them, at most one a line; with the same seed the same of the same source."""
    shuffled = random.Random(seed).sample(mutants, len(mutants))
    by_line = {(one.path, one.line): one for one in reversed(shuffled)}
    return [one for one in shuffled if by_line[one.path, one.line] is one][:count]
