"""What whoever publishes a model directory should know about its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import ModelFile, Problem

# A hub or a zip that does not know links stores them as small text files with the target in it.
_LINK_TEXTS = ("../triton_models/", "../../weights", "../../tokenizer")
_SMALL_BYTES = 200
_POINTER = b"version https://git-lfs"


# Whether these are whole can be told at a glance.
_TEXTS = (".json", ".model", ".tiktoken", ".jinja")
_WEIGHTS = ".safetensors"
_CLOSING = {b"{": b"}", b"[": b"]"}

# What LMDeploy itself never reads: turbomind/turbomind.py, `_from_workspace`, at every tag.
_TRITON_ONLY = (
    "model_repository/",
    "triton_models/interactive/",
    "triton_models/preprocessing/",
    "triton_models/postprocessing/",
)


def find_problems(root: Path, entries: Sequence[FileEntry], files: Sequence[ModelFile]) -> Iterator[Problem]:
    """Leftovers, pickles, stray links, unreadable files and pointers; `files` are those of the model."""
    weights = {file.path for file in files if file.is_weight}
    belonging = {file.path for file in files}
    yield from _about_links(entries)
    yield from _about(
        "error",
        [entry for entry in entries if not entry.has_plain_name],
        lambda entry: f"{entry.path} has a name that is not printable text",
        "rename the file",
    )
    yield from _about(
        "error",
        [entry for entry in entries if entry.is_reachable and _is_pointer(root, entry)],
        lambda entry: f"{entry.path} is a git-lfs pointer, not the file itself",
        "fetch the files with git lfs pull",
    )
    yield from _about(
        "error",
        [entry for entry in entries if entry.path in belonging and _is_cut_off(root, entry)],
        lambda entry: f"{entry.path} is {'cut off' if entry.bytes else 'empty'}, it has {entry.bytes} bytes",
        "take the file from the original model, whole",
    )
    yield from _about(
        "info",
        [entry for entry in entries if entry.is_pickle and not entry.is_leftover and entry.path not in belonging],
        lambda entry: f"{entry.path} is a pickle that this model does not need, {entry.bytes} bytes",
        "it is not packaged; remove it to save space",
    )
    yield from _about(
        "warning",
        [
            entry
            for entry in entries
            if entry.may_belong and entry.path.endswith(_WEIGHTS) and entry.path not in belonging
        ],
        lambda entry: f"{entry.path} holds weights that nothing in the model names, {entry.bytes} bytes",
        "it is not packaged: add it to the index if it belongs to the model, else remove it to save space",
    )
    yield from _about(
        "info",
        [entry for entry in entries if entry.is_foreign],
        lambda entry: f"{entry.path} is in a format that LMDeploy does not read, {entry.bytes} bytes",
        "it is not packaged; remove it to save space",
    )
    yield from _about(
        "warning",
        [entry for entry in entries if entry.is_reachable and not entry.mode & 0o004],
        lambda entry: f"{entry.path} has mode {entry.mode:04o}: a container's user cannot read it",
        "bundles and images get readable copies; chmod a+r to keep hard links",
    )
    yield from _about(
        "info",
        [entry for entry in entries if entry.is_leftover],
        lambda entry: f"{entry.path} is left over from calibration or training, {entry.bytes} bytes",
        "it is not packaged; remove it to save space",
    )
    yield from _about(
        "info",
        [entry for entry in entries if entry.path not in weights and _is_link_text(root, entry)],
        lambda entry: f"{entry.path} is a link that was stored as a text file",
        "it serves tritonserver alone; LMDeploy does not need it",
    )


def _about_links(entries: Sequence[FileEntry]) -> Iterator[Problem]:
    def message(entry: FileEntry) -> str:
        return f"{entry.path} is a link to {entry.link}, outside the directory or nowhere"

    lost = [entry for entry in entries if not entry.is_reachable]
    needless = [entry for entry in lost if entry.path.startswith(_TRITON_ONLY)]
    needed = [entry for entry in lost if entry not in needless]
    yield from _about("error", needed, message, "copy the file that it points to into the directory")
    yield from _about("warning", needless, message, "it is not packaged: it serves tritonserver alone")


def _about(
    level: Literal["error", "warning", "info"],
    entries: list[FileEntry],
    message: Callable[[FileEntry], str],
    hint: str,
) -> Iterator[Problem]:
    """One problem for all `entries` of a kind, naming the first."""
    if entries:
        more = f" (and {len(entries) - 1} more like it)" if len(entries) > 1 else ""
        yield Problem(level, message(entries[0]) + more, hint)


def _is_pointer(root: Path, entry: FileEntry) -> bool:
    return entry.bytes < _SMALL_BYTES and _starts_with(root / entry.path, _POINTER)


def _is_cut_off(root: Path, entry: FileEntry) -> bool:
    """Whether a text of the model is empty, or JSON that begins with a bracket and does not end with its partner."""
    if not entry.name.endswith(_TEXTS):
        return False
    if not entry.bytes or not entry.name.endswith(".json"):
        return not entry.bytes
    try:
        with (root / entry.path).open("rb") as file:
            start = file.read(_SMALL_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
            file.seek(max(0, entry.bytes - _SMALL_BYTES))
            return start in _CLOSING and not file.read(_SMALL_BYTES).rstrip().endswith(_CLOSING[start])
    except OSError:
        return True


def _is_link_text(root: Path, entry: FileEntry) -> bool:
    if entry.bytes > _SMALL_BYTES or "." in entry.name or not entry.bytes:
        return False
    return _starts_with(root / entry.path, *(text.encode() for text in _LINK_TEXTS))


def _starts_with(path: Path, *starts: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_SMALL_BYTES).startswith(starts)
    except OSError:
        return False
