"""What whoever publishes a model directory should know about its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem

# A hub or a zip that does not know links stores them as small text files with the target in it.
_LINK_TEXTS = ("../triton_models/", "../../weights", "../../tokenizer")
_SMALL_BYTES = 200
_POINTER = b"version https://git-lfs"


def find_problems(root: Path, entries: Sequence[FileEntry], weights: set[str]) -> Iterator[Problem]:
    """Leftovers, pickles, code, stray links, unreadable files and pointers; `weights` are the weight files' paths."""
    yield from _about(
        "error",
        [entry for entry in entries if not entry.is_reachable],
        lambda entry: f"{entry.path} is a link to {entry.link}, outside the directory or nowhere",
        "copy the file that it points to into the directory",
    )
    yield from _about(
        "error",
        [entry for entry in entries if entry.bytes < _SMALL_BYTES and _starts_with(root / entry.path, _POINTER)],
        lambda entry: f"{entry.path} is a git-lfs pointer, not the file itself",
        "fetch the files with git lfs pull",
    )
    yield from _about(
        "warning",
        [entry for entry in entries if entry.path.endswith(".py")],
        lambda entry: f"{entry.path} is Python code that comes with the model",
        "read it before you publish the model, or serve it with --trust-remote-code",
    )
    yield from _about(
        "warning",
        [entry for entry in entries if entry.is_pickle and not entry.is_leftover],
        lambda entry: f"{entry.path} is a pickle, which can run code when it is loaded",
        "save the model again as safetensors",
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


def _about(level: str, entries: list[FileEntry], message: Callable[[FileEntry], str], hint: str) -> Iterator[Problem]:
    """One problem for all `entries` of a kind, naming the first."""
    if entries:
        more = f" (and {len(entries) - 1} more like it)" if len(entries) > 1 else ""
        yield Problem(level, message(entries[0]) + more, hint)  # type: ignore[arg-type]


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
