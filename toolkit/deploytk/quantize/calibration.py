"""The texts that a quantizer looks at: a user's file or directory, or the set that ships with deploytk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.artifact import recordable
from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded

NONE = "none"
OWN = "deploytk"
"""What the texts that ship with deploytk are called."""

_DATA = Path(__file__).with_name("data")
_LARGEST_BYTES = 256 * 2**20  # of all files together: windows take a few MiB
_TEXTS = (".txt", ".md", ".json", ".jsonl")
_HINT = 'a line of JSON is {"text": "..."} or {"messages": [{"role": "user", "content": "..."}, ...]}'


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and chats, each a line of JSON with `text` or `messages`."""

    name: str
    records: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Over the lines, each with its line end."""
        return "sha256:" + hashlib.sha256("".join(f"{record}\n" for record in self.records).encode()).hexdigest()


def calibration_texts(wish: str | None) -> Texts | None:
    """Those of the file or directory `wish`, of deploytk for None, and None for "none".

    Raises UsageError, naming file and line, for what has no texts.
    """
    if wish == NONE:
        return None
    return (
        read_texts(Path(wish), recordable(Path(wish).resolve().name))
        if wish
        else read_texts(_DATA / "calibration.jsonl", OWN)
    )


def measured_text(wish: str | None) -> Texts:
    """What perplexity is measured on: the file `wish`, or a text of deploytk that is in no calibration set of it."""
    return (
        read_texts(Path(wish), recordable(Path(wish).resolve().name))
        if wish
        else read_texts(_DATA / "measured.jsonl", OWN)
    )


def read_texts(path: Path, name: str) -> Texts:
    """The texts in a file, or in all text files of a directory, in the order of their names."""
    if not path.exists():
        raise UsageError(f"{path} does not exist", hint="name a file or a directory of texts, or none")
    paths = (
        sorted(one for one in path.rglob("*") if one.suffix in _TEXTS and one.is_file()) if path.is_dir() else [path]
    )
    records = tuple(record for one in _bounded(path, paths) for record in _records(one))
    if not records:
        what = f"no file of {', '.join(_TEXTS)} with a text in it" if path.is_dir() else "no text"
        raise UsageError(f"{path} has {what}", hint=_HINT)
    return Texts(name, records)


def _bounded(path: Path, files: Sequence[Path]) -> Sequence[Path]:
    """`files`, unless they are more than anybody calibrates with: all of them are read into memory."""
    size = sum(one.stat().st_size for one in files)
    if size > _LARGEST_BYTES and path.is_dir():
        raise UsageError(
            f"{path} has {size // 2**20} MiB of texts in {len(files)} files, {_LARGEST_BYTES // 2**20} MiB are read",
            hint="name a directory with fewer: 128 windows of 2048 tokens are about 1 MiB",
        )
    return files


def _records(path: Path) -> Iterator[str]:
    try:
        text = read_bounded(path, _LARGEST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8", hint="save it as UTF-8") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path} cannot be read: {why}", hint="name a file of texts") from error
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _record(_parsed(line, f"{path}, line {number}"), f"{path}, line {number}")
    elif path.suffix == ".json":
        found = _parsed(text, str(path))
        for number, one in enumerate(found if isinstance(found, list) else [found], 1):
            yield _record(one, f"{path}, entry {number}")
    elif text.strip():
        yield json.dumps({"text": text}, ensure_ascii=False)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON", hint=_HINT) from error


def _record(found: Any, where: str) -> str:
    text, messages = (found.get("text"), found.get("messages")) if isinstance(found, dict) else (found, None)
    if isinstance(text, str) and text.strip():
        return _line({"text": text}, where)
    if isinstance(messages, list) and messages and all(map(_is_message, messages)):
        kept = [{"role": one["role"], "content": one["content"]} for one in messages]
        return _line({"messages": kept}, where)
    raise UsageError(f"{where} has neither text nor messages", hint=_HINT)


def _is_message(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("role"), str) and isinstance(found.get("content"), str)


def _line(record: dict[str, Any], where: str) -> str:
    line = json.dumps(record, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} has halves of characters", hint="save it as UTF-8") from error
    return line
