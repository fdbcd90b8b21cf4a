"""What the repository shall hold: every file of the bundle and the generated ones, by their git object ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import yaml

from deploytk.base.digests import hash_file
from deploytk.bundle import MANIFEST, Bundle

LFS_FROM_BYTES = 10**6
"""Larger files go to LFS whatever they are called."""

_PATTERNS = ("*.bin", "*.gguf", "*.model", "*.npy", "*.onnx", "*.pt", "*.pth", "*.qweight", "*.qzeros", "*.safetensors",
             "*.scales_zeros", "*.weight")  # fmt: skip
_LFS = "filter=lfs diff=lfs merge=lfs -text"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the repository."""

    path: str
    size: int  # of the file itself
    content: bytes  # what git keeps: the file, or its LFS pointer
    oid: str | None  # the LFS object, which is the SHA-256 of the file; None for a file that git keeps itself
    source: Path | None  # where the LFS object is

    @property
    def blob(self) -> str:
        """The id that git gives `content`."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content, usedforsecurity=False).hexdigest()


def wanted_tree(bundle: Bundle) -> tuple[Entry, ...]:
    """The whole repository of a bundle, sorted by path; .gitattributes names what LFS has."""
    manifest = bundle.path / MANIFEST
    files = [(file.path, file.size, file.sha256, file.kind == "weights") for file in bundle.files]
    files.append((MANIFEST, manifest.stat().st_size, hash_file(manifest), False))
    large = [path for path, size, _, is_weight in files if _is_lfs(path, size, is_weight=is_weight)]
    entries = [
        _pointer(bundle.path / path, path, size, sha256) if path in set(large) else _plain(bundle.path / path, path)
        for path, size, sha256, _ in files
        if path != ".gitattributes"
    ]
    generated = {".gitattributes": git_attributes(large)}
    if not any(path.startswith("metafile.") for path, *_ in files):
        generated["metafile.yml"] = yaml.safe_dump(metafile(bundle), sort_keys=False, allow_unicode=True)
    entries += [Entry(path, len(text.encode()), text.encode(), None, None) for path, text in generated.items()]
    return tuple(sorted(entries, key=lambda entry: entry.path))


def with_attributes(entries: Sequence[Entry], others: Sequence[str]) -> tuple[Entry, ...]:
    """The tree whose .gitattributes names files of others in LFS as well."""
    if not others:
        return tuple(entries)
    large = [entry.path for entry in entries if entry.oid]
    text = git_attributes(sorted({*large, *others})).encode()
    attributes = Entry(".gitattributes", len(text), text, None, None)
    return tuple(attributes if entry.path == ".gitattributes" else entry for entry in entries)


def git_attributes(large: Sequence[str]) -> str:
    """Attributes under which a clone is the same byte for byte: no line ends are touched, `large` is LFS."""
    exact = [path for path in large if not any(fnmatch(Path(path).name, pattern) for pattern in _PATTERNS)]
    lines = ["* -text", *(f"{pattern} {_LFS}" for pattern in _PATTERNS), *(f"{_quoted(path)} {_LFS}" for path in exact)]
    return "\n".join(lines) + "\n"


def _is_lfs(path: str, size: int, *, is_weight: bool) -> bool:
    is_named = any(fnmatch(Path(path).name, pattern) for pattern in _PATTERNS)
    return size > 0 and (is_weight or is_named or size > LFS_FROM_BYTES)


def _quoted(path: str) -> str:
    """An attribute pattern that matches this one path."""
    escaped = "/" + "".join("\\" + char if char in "*?[]\\!#" else char for char in path)
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"' if set(escaped) & set(' "') else escaped


def _pointer(source: Path, path: str, size: int, sha256: str) -> Entry:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Entry(path, size, text.encode(), sha256, source)


def _plain(source: Path, path: str) -> Entry:
    content = source.read_bytes()
    return Entry(path, len(content), content, None, None)


def metafile(bundle: Bundle) -> dict[str, object]:
    """The description that OpenXLab's own tools read; a courtesy as far as git goes."""
    weights = [file.path for file in bundle.files if file.kind == "weights"]
    collection = {
        "Name": bundle.name,
        "License": bundle.manifest.card.license or "unknown",
        "Framework": "LMDeploy",
        "Paper": {},
        "Code": {"URL": "https://github.com/InternLM/lmdeploy"},
    }
    models = [
        {"Name": path, "Results": [{"Task": "Text Generation", "Dataset": "none"}], "Weights": path} for path in weights
    ]
    return {"Collections": [collection], "Models": models}
