"""Whether a file of a model is taken, by what is in it and not by its name. The words are never that it is safe.

Taken are safetensors, raw weights, texts and pickles of tensors. Refused are pickles that name anything else, what a
loader would unpickle and cannot be read to its end, and containers in which code may be.
"""

from __future__ import annotations

import ast
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploytk.artifact.pickle_files import ZIP, pickles_in
from deploytk.artifact.pickle_machine import MALFORMED, UnreadableError, follow
from deploytk.artifact.second_opinion import second_opinion
from deploytk.artifact.value import ModelFile, Problem
from deploytk.base.errors import ArtifactError

_UNPICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
"""Names of what loaders unpickle: such a file is a pickle of tensors, or refused."""

_CONTAINERS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"\xfd7zXZ\x00": "a packed file (xz)",
    b"\x28\xb5\x2f\xfd": "a packed file (zstd)",
    b"\x04\x22\x4d\x18": "a packed file (lz4)",
    b"\x1f\x8b": "a packed file (gzip)",
    b"BZh": "a packed file (bzip2)",
    b"PK\x05\x06": "an empty zip",
    b"PK\x07\x08": "a zip in parts",
}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024, 2048, 4096)
_NUMPY = b"\x93NUMPY"
_LARGEST_NUMPY_HEADER_BYTES = 2**16
_BLOCK_BYTES = 512

# Numbers that unpickling takes and pickletools does not: what is behind them would not be seen.
_OTHER_BASE = re.compile(rb"[IL][ \t]*[+-]?0[xXoObB][0-9a-fA-F_]+L?[ \t]*")

_OPTION = "--allow-pickle"
_HINT = f"save the model again as safetensors; package, build, publish, serve and smoke take it with {_OPTION}"
_NOTHING_KNOWN = "nothing known to be dangerous is in it, which is no proof"


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file, as far as it matters for whether it is taken."""

    is_pickle: bool = False  # a loader would unpickle it
    refusal: str = ""  # why it is not taken, in words that follow its name


def content_problems(root: Path, files: Sequence[ModelFile], *, allows_pickles: bool) -> list[Problem]:
    """What is to be said of the model's own files by what is in them; refused ones are errors unless allowed."""
    found = [(file.path, content_of(root / file.path, is_raw=_is_raw(file))) for file in files]
    problems = [
        Problem("warning" if allows_pickles else "error", f"{path} {content.refusal}", _HINT, _OPTION)
        for path, content in found
        if content.refusal
    ]
    pickles = [path for path, content in found if content.is_pickle and not content.refusal]
    if pickles:
        more = f" (and {len(pickles) - 1} more like it)" if len(pickles) > 1 else ""
        what = f"{pickles[0]} is a pickle{more}: {_NOTHING_KNOWN}"
        problems.append(Problem("warning", what, "save the model again as safetensors"))
    return problems


def refuse_contents(root: Path, files: Sequence[ModelFile]) -> None:
    """Raises ArtifactError with the first of these files that is refused by its content."""
    for problem in content_problems(root, files, allows_pickles=False):
        if problem.level == "error":
            raise ArtifactError(f"{root}: {problem.message}", hint=problem.hint)


def _is_raw(file: ModelFile) -> bool:
    """Whether TurboMind reads the file as numbers, whatever is in it: weights of a workspace."""
    return file.is_weight and not file.path.endswith((*_UNPICKLED, ".safetensors"))


def content_of(path: Path, *, is_raw: bool = False) -> Content:
    """What is in the file at `path`; raises ArtifactError when it cannot be read."""
    try:
        with path.open("rb") as file:
            found = _content(file, path.name.lower(), is_raw=is_raw)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint="check the file and its rights") from error
    if found.is_pickle and not found.refusal:
        return Content(is_pickle=True, refusal=second_opinion(path))
    return found


def _content(file: IO[bytes], name: str, *, is_raw: bool) -> Content:
    start = file.read(_BLOCK_BYTES)
    file.seek(0)
    is_unpickled = name.endswith(_UNPICKLED)
    if is_raw:
        return _if_it_runs(file) if not start.startswith(ZIP) else Content(True, "is a zip, not raw weights")
    if name.endswith(".safetensors") and _is_safetensors(start):
        return Content()
    container = _container(file, start)
    if container:
        return Content(is_unpickled, f"is {container}, in which there may be code that nobody looks at")
    if start.startswith(_NUMPY):
        return _of_numpy(file)
    if start.startswith(ZIP) or is_unpickled or _says_pickle(start):
        return _of_pickles(file)
    return _if_it_runs(file)


def _is_safetensors(start: bytes) -> bool:
    """By its beginning alone: whether it is whole is asked where its header is read."""
    return int.from_bytes(start[:8], "little") < 2**32 and start[8:9] == b"{"


def _says_pickle(start: bytes) -> bool:
    return len(start) > 1 and start[0] == 0x80 and start[1] <= 5


def _container(file: IO[bytes], start: bytes) -> str:
    found = next((what for magic, what in _CONTAINERS.items() if start.startswith(magic)), "")
    if found or _is_tar(start):
        return found or "a tar archive"
    for place in _HDF5_PLACES:
        file.seek(place)
        if file.read(len(_HDF5)) == _HDF5:
            found = "an HDF5 file"
    file.seek(0)
    return found


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _of_pickles(file: IO[bytes]) -> Content:
    try:
        refusals = [pickle.refusal for pickle in pickles_in(file).followed]
    except UnreadableError as error:
        return Content(True, f"cannot be looked into: {error}")
    return Content(True, next(filter(None, refusals), ""))


def _of_numpy(file: IO[bytes]) -> Content:
    """An array is numbers behind a header; one of objects is a pickle behind a header."""
    file.seek(len(_NUMPY))
    version = file.read(2)
    length_bytes = 2 if version[:1] == b"\x01" else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    try:
        if length > _LARGEST_NUMPY_HEADER_BYTES:
            raise ValueError("its header is too large")
        described = ast.literal_eval(file.read(length).decode("latin-1").strip())["descr"]
        is_of_objects = "O" in repr(described)
    except (*MALFORMED, SyntaxError, TypeError, MemoryError) as error:
        return Content(True, f"is an array that cannot be read: {type(error).__name__}")
    if not is_of_objects:
        return Content()
    return Content(True, follow(file).refusal or "is an array of objects, which loaders unpickle")


def _if_it_runs(file: IO[bytes]) -> Content:
    """Of what nobody should unpickle: refused when that would call something, or is a pickle that imports something."""
    found = follow(file)
    if found.called or (found.is_whole and found.named):
        return Content(True, found.refusal)
    if "invalid literal" in found.trouble and _OTHER_BASE.match(_line_before(file)):
        return Content(True, found.refusal)
    return Content()


def _line_before(file: IO[bytes]) -> bytes:
    """The opcode and the number at which the machine stopped."""
    place = file.tell()
    file.seek(max(0, place - _BLOCK_BYTES))
    line = file.read(min(place, _BLOCK_BYTES)).removesuffix(b"\n").rpartition(b"\n")[2]
    return line[max(line.rfind(b"I"), line.rfind(b"L", 0, -1)) :]
