"""Reads JSON, YAML and INI files that somebody else wrote: bounded, unambiguous, nothing executed."""

from __future__ import annotations

import configparser
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from deploytk.base.errors import ArtifactError

LARGEST_INDEX_BYTES = 64 * 2**20  # the index of a model of 100 000 tensors has 10 MiB
_LARGEST_JSON_BYTES = 16 * 2**20  # some tokenizers put all their tokens into tokenizer_config.json
_LARGEST_CONFIG_BYTES = 2**18  # a config.yaml of 100 layers has 3 KiB, and PyYAML takes 10 s for a MiB
_DEEPEST = 64
_LONGEST_NAME = 256
_LARGEST_WHOLE = 10**300  # what a float holds; tokenizers say 10^30 where they have no longest text


def read_json(path: Path, largest_bytes: int = _LARGEST_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in `path`; ArtifactError for duplicate keys, NaN, deep nesting or anything but an object."""

    def reject_constant(name: str) -> object:
        raise ValueError(f"{name} is not a JSON number")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} is there twice")
            found[key] = value
        return found

    try:
        value = json.loads(_text(path, largest_bytes), object_pairs_hook=unique, parse_constant=reject_constant)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, "JSON", error) from error
    return _mapping(path, "JSON", value)


def read_yaml(path: Path) -> dict[str, Any]:
    """The YAML mapping in `path`; ArtifactError for tags, anchors, duplicate keys, NaN or deep nesting."""
    try:
        value = yaml.load(_text(path, _LARGEST_CONFIG_BYTES), Loader=_PlainLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(path, "YAML", error) from error
    return _mapping(path, "YAML", value)


def read_ini(path: Path) -> dict[str, str]:
    """The only section of a config.ini, keys in lower case; `%` is a character like any other."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    try:
        parser.read_string(_text(path, _LARGEST_CONFIG_BYTES), source=path.name)
    except (configparser.Error, ValueError) as error:
        raise _unreadable(path, "INI", error) from error
    sections = parser.sections()
    if len(sections) != 1:
        raise ArtifactError(
            f"{path} has {len(sections)} sections, one expected", hint="take config.ini from the original workspace"
        )
    return dict(parser[sections[0]])


class Reader:
    """Takes values out of a parsed file, and says which key of which file is wrong."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    def has(self, key: str) -> bool:
        return self.values.get(key) is not None

    def whole(self, key: str, default: int | None = None, *, smallest: int = 1, largest: int = 2**40) -> int:
        """A whole number in [smallest, largest]; `default` when the key is missing."""
        value = self.values.get(key)
        if value is None:
            value = default
        try:
            number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
        except ValueError:
            number = None
        if number is None or not smallest <= number <= largest:
            raise self.wrong(key, f"a whole number from {smallest} to {largest}")
        return number

    def real(self, key: str, default: float) -> float:
        """A finite number, zero or more."""
        value = self.values.get(key)
        try:
            number = float(default if value is None else value)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(key, "a number") from None
        if not 0 <= number < math.inf:
            raise self.wrong(key, "a finite number, zero or more")
        return number

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.values.get(key, default)
        if value is None:
            return default
        if str(value).lower() not in ("0", "1", "true", "false"):
            raise self.wrong(key, "true or false")
        return str(value).lower() in ("1", "true")

    def name(self, key: str, default: str = "") -> str:
        """A short text without control characters: it goes into cards, command lines and tables."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > _LONGEST_NAME or not _is_printable(value):
            raise self.wrong(key, f"a text of at most {_LONGEST_NAME} printable characters")
        return value

    def wrong(self, key: str, expected: str) -> ArtifactError:
        found = _as_written(self.values[key]) if key in self.values else "missing"
        shown = found if len(found) <= 80 else found[:77] + "..."
        return ArtifactError(f"{self.path}: {key} is {shown}", hint=f"it must be {expected}")


def _as_written(value: Any) -> str:
    """As a file of JSON has it; text as it is quoted in sentences."""
    return repr(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else _json(value)


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__}"


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without anchors (they can blow up), without duplicate keys, and with a limit on depth."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not allowed")
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > _DEEPEST:
            raise yaml.YAMLError(f"nested deeper than {_DEEPEST} levels")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        try:
            twice = [key for key in keys if keys.count(key) > 1] if len(keys) < 4096 else []
            if len(set(keys)) != len(keys):
                raise yaml.YAMLError(f"the key {twice[0]!r} is there twice" if twice else "duplicate keys")
        except TypeError as error:
            raise yaml.YAMLError("a key is not a plain value") from error
        return super().construct_mapping(node, deep)


def _text(path: Path, largest_bytes: int) -> str:
    try:
        size = path.stat().st_size
        if size > largest_bytes:
            raise ArtifactError(
                f"{path} has {size} bytes, at most {largest_bytes} expected", hint="this is no configuration file"
            )
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint="check the file and its rights") from error
    except UnicodeDecodeError as error:
        raise ArtifactError(
            f"{path} is not text in UTF-8 (byte {error.start})", hint="take the file from the original model"
        ) from error


def _mapping(path: Path, kind: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ArtifactError(f"{path} does not hold a {kind} mapping", hint="take the file from the original model")
    _check_plain(path, kind, value, 0)
    return value


def _check_plain(path: Path, kind: str, value: object, depth: int) -> None:
    if depth > _DEEPEST:
        raise _unreadable(path, kind, ValueError(f"nested deeper than {_DEEPEST} levels"))
    if isinstance(value, float) and not math.isfinite(value):
        raise _unreadable(path, kind, ValueError("NaN or an infinity is no size"))
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list, float)):
                _check_plain(path, kind, item, depth + 1)
            elif isinstance(item, int) and not -_LARGEST_WHOLE <= item <= _LARGEST_WHOLE:
                raise _unreadable(path, kind, ValueError("a number has hundreds of digits"))


def _unreadable(path: Path, kind: str, error: Exception) -> ArtifactError:
    why = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
    if "set_int_max_str_digits" in why:  # Python's own advice is of no use here
        why = "a number has thousands of digits"
    return ArtifactError(
        f"{path} is not {kind} that can be read: {why[:200]}", hint="take the file from the original model"
    )
