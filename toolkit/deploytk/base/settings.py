"""Reads deploytk.toml: defaults for options, mirrors, budgets."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt

from deploytk.base.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "deploytk.toml"

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


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What a deployment may cost; the same keys as a `--budget` file."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    max_vram_mib: _Limit | None = None
    max_ttft_ms: _Limit | None = None
    max_tpot_ms: _Limit | None = None
    min_tokens_per_s: _Limit | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """deploytk.toml, parsed. `commands` holds, by command name, defaults for that command's options."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    path: Path | None = None
    mirrors: Mirrors = Mirrors()
    budget: BudgetSettings = BudgetSettings()
    commands: dict[str, dict[str, object]] = field(default_factory=dict)


def find_settings(arguments: Sequence[str]) -> Path | None:
    """The deploytk.toml to use: beside the model that `arguments` name, else in the working directory.

    One *inside* a model directory is not read: it came with the model, and the user did not write it.
    """
    # Path.is_dir raises for a name that is too long.
    named = [Path(argument).absolute().parent for argument in arguments if os.path.isdir(argument)]  # noqa: PTH112
    places = [directory / FILE_NAME for directory in (*named, Path.cwd())]
    return next((place for place in places if place.is_file()), None)


def load_settings(path: Path | None) -> Settings:
    """Parse `path`; without one, the defaults. Raises SettingsError naming the file and the key."""
    if path is None:
        return Settings()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}", hint="it must be a TOML file in UTF-8") from error
    own = {key: tables.pop(key) for key in ("mirrors", "budget") if key in tables}
    stray = [key for key, table in tables.items() if not isinstance(table, dict)]
    if stray:
        raise SettingsError(
            f"{path}: {stray[0]!r} stands outside a table",
            hint="put options under their command, such as [plan], [publish] or [smoke]",
        )
    # Imported here: it takes longer than all else that a command without a deploytk.toml needs to start.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Settings).validate_python({"path": path, "commands": tables, **own})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {where}: {first['msg']}", hint="see 'Settings' in docs/guide.md") from error


def check_commands(settings: Settings, known: dict[str, set[str]]) -> dict[str, dict[str, object]]:
    """The defaults by command, their keys as option names with underscores; unknown ones raise SettingsError.

    `known` maps every command to the names of its options.
    """
    defaults: dict[str, dict[str, object]] = {}
    for command, table in settings.commands.items():
        if command not in known:
            raise SettingsError(
                f"{settings.path}: there is no command {command!r}",
                hint=f"tables are mirrors, budget and the commands: {', '.join(sorted(known))}",
            )
        options = {key.replace("-", "_"): value for key, value in table.items()}
        unknown = sorted(options.keys() - known[command])
        if unknown:
            raise SettingsError(
                f"{settings.path}: [{command}] has no option {unknown[0]!r}",
                hint=f"it takes {', '.join(sorted(known[command]))}",
            )
        defaults[command] = options
    return defaults
