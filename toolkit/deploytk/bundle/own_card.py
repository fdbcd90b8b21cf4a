"""Reads what the model's own card says of its licence and origin, and its words, which the bundle's card keeps."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from deploytk.artifact import Artifact
from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded
from deploytk.base.progress import Progress
from deploytk.bundle.value import CARDS, BundleOptions

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")

_LARGEST_FRONT_MATTER = 2**14  # characters
_LARGEST_CARD_BYTES = 2**20
_HEAD = re.compile(r"---\n(.*?\n)?---\n", re.DOTALL)
_TITLE = re.compile(r"\s*# [^\n]*\n")


def with_own_facts(artifact: Artifact, options: BundleOptions, progress: Progress) -> BundleOptions:
    """`options` with what the model's README.md says where nothing was given, which is said."""
    own = _own_front_matter(_own_text(artifact))
    license_, base_model = own.get("license"), own.get("base_model")
    if options.license is None and isinstance(license_, str) and LICENSE.fullmatch(license_) and license_ != "other":
        progress.note(f"licence {license_}, from the model's own README.md")
        options = replace(options, license=license_)
    if options.base_model is None and isinstance(base_model, str) and REPOSITORY.fullmatch(base_model):
        progress.note(f"base model {base_model}, from the model's own README.md")
        options = replace(options, base_model=base_model)
    if not options.languages:
        options = replace(options, languages=_languages(own.get("language")))
    return options


def own_words(artifact: Artifact, progress: Progress) -> dict[str, str]:
    """Name of a card -> what the model's own says, without head and title, its headings a step lower."""
    found = {name: _words(_own_text(artifact, name)) for name in CARDS}
    words = {name: text for name, text in found.items() if text}
    if words:
        progress.note(f"the words of the model's own {' and '.join(words)} are in the card; --notes FILE replaces them")
    return words


def _words(card: str) -> str:
    body = _TITLE.sub("", _HEAD.sub("", card, count=1), count=1)
    lines, fence = [], ""
    for line in body.splitlines():
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        lines.append(f"#{line}" if not fence and re.match(r"#{1,5} ", line) else line)
    return "\n".join(lines).strip()


def _languages(stated: object) -> tuple[str, ...]:
    listed = stated if isinstance(stated, list) else [stated]
    return tuple(one for one in listed if isinstance(one, str) and LANGUAGE.fullmatch(one))


def _own_text(artifact: Artifact, name: str = "README.md") -> str:
    """The model's own card; "" when there is none, or none that can be read."""
    if not any(file.path == name for file in artifact.files):
        return ""
    try:
        return read_bounded(artifact.root / name, _LARGEST_CARD_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, ValueError):
        return ""


def read_notes(path: Path) -> dict[str, str]:
    """Name of a card -> what --notes names for it: the file itself, and for the Chinese one NAME_zh.md beside it."""
    chinese = path.with_name(f"{path.stem}_zh{path.suffix}")
    places = {CARDS[0]: path, **({CARDS[1]: chinese} if chinese.is_file() else {})}
    return {name: text for name, place in places.items() if (text := _note(place))}


def _note(path: Path) -> str:
    try:
        return read_bounded(path, _LARGEST_CARD_BYTES).decode("utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8", hint="write your notes as Markdown, in UTF-8") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="name a file of at most 1 MiB") from error


def _own_front_matter(text: str) -> dict[str, Any]:
    """The YAML at the head of a card; empty when there is none or it is not plain."""
    try:
        match = re.match(r"---\n(.*?\n)---\n", text[:_LARGEST_FRONT_MATTER], re.DOTALL)
        if not match or any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) for token in yaml.scan(match[1])):
            return {}
        front = yaml.safe_load(match[1])
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    return front if isinstance(front, dict) else {}
