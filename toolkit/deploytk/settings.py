"""Reads deploytk.toml: defaults for options, mirrors, budgets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploytk.errors import SettingsError

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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Mirrors(_Strict):
    """Where packages and models come from instead of the public hosts; an address beats the preset."""

    preset: Literal["cn"] | None = None
    apt: str | None = None
    pip: str | None = None
    huggingface: str | None = None

    def address(self, service: Literal["apt", "pip", "huggingface"]) -> str | None:
        """The address to use for `service`, None for the public one."""
        preset = _MIRRORS[self.preset][service] if self.preset else None
        return getattr(self, service) or preset


class BudgetSettings(_Strict):
    """What a deployment may cost; the same keys as a `--budget` file."""

    max_vram_mib: float | None = Field(default=None, gt=0)
    max_ttft_ms: float | None = Field(default=None, gt=0)
    max_tpot_ms: float | None = Field(default=None, gt=0)
    min_tokens_per_s: float | None = Field(default=None, gt=0)


class Settings(_Strict):
    """deploytk.toml, parsed. `commands` holds, by command name, defaults for that command's options."""

    path: Path | None = None
    mirrors: Mirrors = Mirrors()
    budget: BudgetSettings = BudgetSettings()
    commands: dict[str, dict[str, object]] = {}


def find_settings(arguments: Sequence[str]) -> Path | None:
    """The deploytk.toml to use: beside the model that `arguments` name, else in the working directory.

    One *inside* a model directory is not read: it came with the model, and the user did not write it.
    """
    named = [Path(argument).absolute().parent for argument in arguments if Path(argument).is_dir()]
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
    try:
        return Settings(path=path, commands=tables, **own)
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
