"""The configuration of a base, looked at once: what is read of it afterwards has the type that OCI gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deploytk.base.errors import ImageError
from deploytk.base.json import parse_json


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_object, value))


def _are_labels(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


_Kinds = Mapping[str, Callable[[object], bool]]

# Source: https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md; null is as good as nothing.
_IMAGE: _Kinds = {
    "os": _is_text, "architecture": _is_text, "config": _is_object, "rootfs": _is_object, "history": _are_objects,
}  # fmt: skip
_RUN: _Kinds = {
    "Entrypoint": _are_texts, "Cmd": _are_texts, "Env": _are_texts, "WorkingDir": _is_text, "Labels": _are_labels,
    "Volumes": _is_object,
}  # fmt: skip


def read_config(reference: str, content: bytes) -> dict[str, Any]:
    """The config of an image; raises ImageError for what is none, or in which something is of another kind."""
    try:
        found = parse_json(content)
    except ValueError as error:
        raise _odd(reference, f"its configuration cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _odd(reference, "its configuration is no object")
    _require(reference, found, _IMAGE)
    _require(reference, found.get("config") or {}, _RUN)
    return found


def _require(reference: str, found: Mapping[str, object], kinds: _Kinds) -> None:
    for key, is_right in kinds.items():
        if found.get(key) is not None and not is_right(found[key]):
            raise _odd(reference, f"{key} in its configuration is malformed")


def _odd(reference: str, why: str) -> ImageError:
    return ImageError(f"{reference} is no image to run on: {why}", hint="give a runnable Linux image with --base")
