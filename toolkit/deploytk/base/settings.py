"""Reads deploytk.toml: defaults for options, mirrors, budgets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from annotated_types import Gt

from deploytk.base.errors import SettingsError
from deploytk.base.files import read_bounded
from deploytk.base.toml import line_of, parse, read_toml

if TYPE_CHECKING:
    from pydantic import BaseModel

FILE_NAME = "deploytk.toml"
_LARGEST_CONFIG_BYTES = 2**20

_MIRRORS = {
    "cn": {
        "apt": "https://mirrors.tuna.tsinghua.edu.cn",
        "pip": "https://pypi.tuna.tsinghua.edu.cn/simple",
        "huggingface": "https://hf-mirror.com",
    }
}

_STRICT = {"extra": "forbid"}  # for pydantic, which parses these dataclasses
_Limit = Annotated[float, Gt(0)]


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where packages and models come from instead of the public hosts; an address beats the preset."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    preset: Literal["cn"] | None = None
    apt: str | None = None
    pip: str | None = None
    huggingface: str | None = None

    def address(self, service: Literal["apt", "pip", "huggingface"]) -> str | None:
        """The address to use for `service`, None for the public one."""
        preset = _MIRRORS[self.preset][service] if self.preset else None
        return getattr(self, service) or preset

    @property
    def models(self) -> str | None:
        """Where models that somebody else has published are read from."""
        return self.address("huggingface")


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What a deployment may cost; the same keys as a `--budget` file."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    max_vram_mib: _Limit | None = None
    max_ttft_ms: _Limit | None = None
    max_tpot_ms: _Limit | None = None
    min_tokens_per_s: _Limit | None = None
    vram_tolerance_pct: _Limit | None = None


Tables = Mapping[str, "type[BaseModel]"]
"""What the table of each command is, by its name; the fields' aliases are options as they are written."""


@dataclass(frozen=True, slots=True)
class Settings:
    """deploytk.toml, parsed."""

    path: Path | None = None
    mirrors: Mirrors = Mirrors()
    budget: BudgetSettings = BudgetSettings()
    commands: Mapping[str, Mapping[str, object]] = field(
        default_factory=dict
    )  # by name: what it sets, by option without dashes
    text: str = ""

    def line(self, *keys: str) -> int | None:
        """The line that sets `keys`, table first; None where it cannot be told."""
        return line_of(self.text, keys)


def find_settings(sources: Sequence[Path]) -> Path | None:
    """The deploytk.toml to use: beside what a command is called with, else in the working directory.

    One *inside* a model directory is not read, whatever the command is called with: it came with the model, and the
    user did not write it.
    """
    # Not Path.exists, which raises for a name that is too long; and a symbolic link is where it lies.
    there = [Path(os.path.abspath(source)) for source in sources if os.path.exists(source)]  # noqa: PTH100, PTH110
    inside = [source.resolve() for source in there]
    here = Path.cwd()
    places = [source.parent for source in there]
    places += [here] if not any(here.resolve().is_relative_to(source) for source in inside) else []
    return next(
        (place / FILE_NAME for place in places if (place / FILE_NAME).is_file() and not _is_brought(place)), None
    )


def _is_brought(place: Path) -> bool:
    """Whether a directory is of a model or a bundle, or in one: what lies there came with it."""
    return any(map(_holds_model, (place.resolve(), *place.resolve().parents)))


def _holds_model(place: Path) -> bool:
    if any((place / name).exists() for name in ("triton_models", "deploytk.json")):
        return True
    try:
        content = read_bounded(place / "config.json", _LARGEST_CONFIG_BYTES)
    except (OSError, ValueError):
        return False
    return any(key in content for key in (b'"model_type"', b'"architectures"', b'"quantization_config"'))


def load_settings(path: Path | None, tables: Callable[[], Tables] = dict) -> Settings:
    """Parse `path`; without one, the defaults. Raises SettingsError naming the file, its line and the key."""
    if path is None:
        return Settings()
    text, found = read_toml(path)
    stray = [key for key, table in found.items() if not isinstance(table, dict)]
    if stray:
        raise SettingsError(
            f"{path}, line {line_of(text, stray[:1])}: {stray[0]!r} stands outside a table",
            hint="put options under their command, such as [plan], [publish] or [smoke]",
        )
    named = {name: _with_separator(table, _separator(name)) for name, table in found.items()}
    parsed: Any = parse(path, text, named, file_type(tables()))
    commands = {
        name: getattr(parsed, name).model_dump(exclude_unset=True, by_alias=True) for name in named if name not in _OWN
    }
    return Settings(path, parsed.mirrors, parsed.budget, commands, text)


def file_type(tables: Tables) -> type[BaseModel]:
    """The whole file as a type of pydantic's: mirrors, budget, and a table per command."""
    # Imported here: it takes longer than all else that a command without a deploytk.toml needs to start.
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {name: (kind, kind()) for name, kind in {**_OWN, **tables}.items()}
    return cast("type[BaseModel]", create_model(FILE_NAME, __config__=ConfigDict(extra="forbid"), **fields))


_OWN: Mapping[str, type] = {"mirrors": Mirrors, "budget": BudgetSettings}


def _separator(table: str) -> str:
    """In keys: options are written with dashes, budgets as in their own files."""
    return "_" if table == "budget" else "-"


def _with_separator(table: dict[str, Any], separator: str) -> dict[str, Any]:
    """Keys may be written with either."""
    return {re.sub(r"(?<=.)[-_](?=.)", separator, key): value for key, value in table.items()}
