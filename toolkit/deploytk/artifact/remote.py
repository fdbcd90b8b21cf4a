"""A model that is not here -> a directory that looks like it: configuration, tokenizer, headers, and bare sizes."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from deploytk.base.errors import ArtifactError
from deploytk.base.net import Answer, Key, ask

_NAME = re.compile(r"(?P<hub>hf|ms):(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
_WITHIN_S = 60.0
_LARGEST_LIST_BYTES = 16 * 2**20
_LARGEST_TEXT_BYTES = 64 * 2**20
_MOST_TEXT_BYTES = 256 * 2**20
_FIRST_HEADER_BYTES = 256 * 2**10
_LARGEST_HEADER_BYTES = 32 * 2**20
_MOST_FILES = 10_000
_MOST_PAGES = 20
_TEXTS = (".json", ".jinja", ".txt", ".model", ".tiktoken")


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on a hub."""

    hub: str  # "hf" or "ms"
    repo: str  # OWNER/NAME
    revision: str
    endpoint: str
    key: Key | None

    @classmethod
    def of(
        cls, text: str, mirror: str | None = None, environment: Mapping[str, str] = os.environ
    ) -> RemoteModel | None:
        """What "hf:OWNER/NAME@REVISION" or "ms:..." names; None for anything else.

        HF_ENDPOINT beats `mirror`, which a file names and no token is sent to.
        """
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        if match["hub"] == "hf":
            endpoint = environment.get("HF_ENDPOINT") or mirror or "https://huggingface.co"
            token = environment.get("HF_TOKEN") if environment.get("HF_ENDPOINT") or not mirror else None
        else:
            endpoint, token = environment.get("MODELSCOPE_ENDPOINT") or "https://modelscope.cn", None
        endpoint = endpoint.rstrip("/")
        try:
            key = Key.bound_to(endpoint, token) if token else None
        except ValueError as error:
            raise ArtifactError("HF_TOKEN or the hub's address is malformed", hint="check both") from error
        revision = match["revision"] or ("main" if match["hub"] == "hf" else "master")
        return cls(match["hub"], match["repo"], revision, endpoint, key)

    @property
    def list_url(self) -> str:
        revision = quote(self.revision, safe="")
        if self.hub == "hf":
            return f"{self.endpoint}/api/models/{self.repo}/tree/{revision}?recursive=true"
        return f"{self.endpoint}/api/v1/models/{self.repo}/repo/files?Revision={revision}&Recursive=true"

    def file_url(self, path: str) -> str:
        place = self.repo if self.hub == "hf" else f"models/{self.repo}"
        return f"{self.endpoint}/{place}/resolve/{quote(self.revision, safe='')}/{quote(path)}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it."""

    bytes: int
    sha256: str | None  # as the hub states it; None where it does not


def list_files(model: RemoteModel) -> dict[str, RemoteFile]:
    """Every file of the repository, by path. Hugging Face lists a thousand at a time.

    Raises ArtifactError when the hub does not answer so.
    """
    found: dict[str, RemoteFile] = {}
    url, pages = model.list_url, 0
    while url:
        if pages == _MOST_PAGES or not url.startswith(f"{model.endpoint}/"):
            raise _refused(model, "its list of files goes on without end, or elsewhere")
        answer = _asked(model, url, largest_bytes=_LARGEST_LIST_BYTES)
        found |= _listed(model, answer)
        url, pages = answer.next_url, pages + 1
    if len(found) > _MOST_FILES or not all(_is_inside(path) for path in found):
        raise _refused(model, "its list of files is none of a model")
    return found


def fetch(model: RemoteModel, path: str, largest_bytes: int) -> bytes:
    """The content of one file of the repository."""
    return _asked(model, model.file_url(path), largest_bytes=largest_bytes).body


def _sha256(row: Mapping[str, Any]) -> str | None:
    stored = row.get("lfs")
    found = stored.get("oid") if isinstance(stored, dict) else row.get("Sha256")
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64}", found) else None


@contextlib.contextmanager
def outline_of(model: RemoteModel) -> Iterator[Path]:
    """A temporary directory with what says what the model is; weights are as large as they are and hold nothing.

    Only headers of weights are fetched, by range requests. Raises ArtifactError when the hub does not answer so.
    """
    files = {path: file.bytes for path, file in list_files(model).items()}
    with tempfile.TemporaryDirectory(prefix="deploytk-") as place:
        left = _MOST_TEXT_BYTES
        for path, size in files.items():
            target = Path(place, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            is_text = path.endswith(_TEXTS) and size <= min(_LARGEST_TEXT_BYTES, left)
            left -= size if is_text else 0
            content = _text(model, path) if is_text else _header(model, path, size) if _has_header(path, size) else b""
            target.write_bytes(content)
            if not is_text:
                os.truncate(target, size)
        yield Path(place)


def _listed(model: RemoteModel, answer: Answer) -> dict[str, RemoteFile]:
    try:
        listed: Any = answer.json()
        rows = listed["Data"]["Files"] if model.hub == "ms" else listed
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise TypeError
        path = "path" if model.hub == "hf" else "Path"
        return {str(row[path]): RemoteFile(_size(row), _sha256(row)) for row in rows if _is_file(row)}
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(model, "its list of files is none") from error


def _is_file(row: Mapping[str, object]) -> bool:
    return (row.get("type") or row.get("Type")) in ("file", "blob")


def _size(row: Mapping[str, object]) -> int:
    size = row.get("size", row.get("Size"))
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**45:
        raise ValueError("a size that is none")
    return size


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and bool(parts.parts) and "\0" not in path


def _text(model: RemoteModel, path: str) -> bytes:
    return _asked(model, model.file_url(path), largest_bytes=_LARGEST_TEXT_BYTES).body


def _has_header(path: str, size: int) -> bool:
    return path.endswith(".safetensors") and size > 8


def _header(model: RemoteModel, path: str, size: int) -> bytes:
    """The first bytes of a safetensors file, up to the end of its header."""
    start = _range(model, path, min(size, _FIRST_HEADER_BYTES))
    end = 8 + int.from_bytes(start[:8], "little")
    if end > min(size, _LARGEST_HEADER_BYTES):
        raise _refused(model, f"{path} announces a header of {end} bytes")
    return start[:end] if end <= len(start) else _range(model, path, end)


def _range(model: RemoteModel, path: str, length: int) -> bytes:
    answer = _asked(model, model.file_url(path), largest_bytes=length, asks_start=True)
    if len(answer.body) < length:
        raise _refused(model, f"{path} ends before its header does")
    return answer.body


def _asked(model: RemoteModel, url: str, *, largest_bytes: int, asks_start: bool = False) -> Answer:
    try:
        answer = ask(url, _WITHIN_S, key=model.key, largest_bytes=largest_bytes, asks_start=asks_start, may_leave=True)
    except ConnectionError as error:
        raise _refused(model, str(error)) from error
    if answer.status not in (200, 206):
        raise _refused(model, f"it answers {answer.status}")
    return answer


def _refused(model: RemoteModel, why: str) -> ArtifactError:
    token = "; a private one needs HF_TOKEN" if model.hub == "hf" else ""
    what = f"{model.hub}:{model.repo}@{model.revision} cannot be read from {model.endpoint}: {why}"
    return ArtifactError(what, hint=f"check OWNER/NAME and the revision{token}")
