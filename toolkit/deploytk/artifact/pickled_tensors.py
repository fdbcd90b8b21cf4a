"""Names, dtypes and shapes of the tensors in a PyTorch pickle, read from its opcodes. Nothing is imported or called.

Both forms of torch.save: a zip whose data.pkl is stored as it is (from 1.6 on), and a row of pickles (before).
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from deploytk.base.errors import ArtifactError

_LARGEST_PICKLE_BYTES = 16 * 2**20  # that of a model of 3000 tensors has 400 KiB
_LARGEST_DIRECTORY_BYTES = 64 * 2**20
_MOST_AXES = 16
_LARGEST_PREFIX_BYTES = 2**16
_MOST_OPERATIONS = 2_000_000
_PICKLES_BEFORE = 3  # of the older form: magic number, protocol, system

_STORAGES = {
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "Float8_e4m3fnStorage": "F8_E4M3",
    "Float8_e5m2Storage": "F8_E5M2",
}


# What zipfile and pickletools raise for bytes that are none of theirs.
_MALFORMED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    ValueError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    NotImplementedError,
    struct.error,
)


class _UnreadableError(Exception):
    """The opcodes are not those of a dictionary of tensors."""


@dataclass(frozen=True, slots=True)
class PickledTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    name: str  # the class or function that a loader would import


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]


class _Mark:
    """Where a sequence on the stack begins."""


def read_pickled(path: Path) -> tuple[PickledTensor, ...]:
    """The tensors that `path` names, in its order; ArtifactError where it cannot be told."""
    try:
        with path.open("rb") as file:
            found = _tensors(file)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint="check the file and its rights") from error
    except (_UnreadableError, *_MALFORMED) as error:
        why = " ".join(str(error).split())[:120] or type(error).__name__
        hint = "save the model again as safetensors, so that its tensors can be read"
        raise ArtifactError(f"{path} does not show its tensors: {why}", hint=hint) from error
    return tuple(PickledTensor(name, tensor.dtype, tensor.shape) for name, tensor in found)


def _tensors(file: IO[bytes]) -> Iterator[tuple[str, _Tensor]]:
    if file.read(4) != b"PK\x03\x04":
        file.seek(0)
        text = file.read(_LARGEST_PICKLE_BYTES)
        operations = _row_of_pickles(text)
    else:
        text = _stored_pickle(file)
        operations = pickletools.genops(text)
    return _named(_Machine().run(operations))


def _stored_pickle(file: IO[bytes]) -> bytes:
    """data.pkl of the zip; it must be stored as it is, as torch.save does."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0:
        raise _UnreadableError("the end of the zip is missing")
    directory_bytes = int.from_bytes(tail[place + 12 : place + 16], "little")
    if directory_bytes != 0xFFFFFFFF and directory_bytes > _LARGEST_DIRECTORY_BYTES:
        raise _UnreadableError("its directory is too large")
    with zipfile.ZipFile(file) as archive:
        inside = [entry for entry in archive.infolist() if entry.filename.rpartition("/")[2] == "data.pkl"]
        if len(inside) != 1 or inside[0].compress_type != zipfile.ZIP_STORED or inside[0].flag_bits & 1:
            raise _UnreadableError("it has not one data.pkl, stored as it is")
        if inside[0].file_size > _LARGEST_PICKLE_BYTES:
            raise _UnreadableError("its data.pkl is too large")
        return archive.read(inside[0])


def _row_of_pickles(text: bytes) -> Iterator[tuple[Any, Any, Any]]:
    """The operations of the pickle after those that only say which form it is."""
    place = 0
    for _ in range(_PICKLES_BEFORE):
        operations = pickletools.genops(text[place : place + _LARGEST_PREFIX_BYTES])
        place += next((at or 0 for operation, _, at in operations if operation.name == "STOP"), len(text)) + 1
    yield from pickletools.genops(text[place:])


def _named(value: object) -> Iterator[tuple[str, _Tensor]]:
    """The tensors of a state dictionary, also of one inside a checkpoint."""
    for key in ("state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        raise _UnreadableError("it holds no dictionary of tensors")
    found = [(name, tensor) for name, tensor in value.items() if isinstance(tensor, _Tensor)]
    if not found:
        raise _UnreadableError("it holds no tensors")
    return iter(found)


class _Machine:
    """Follows a pickle's opcodes on a stack of plain values; what it does not know becomes None."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, operations: Iterator[tuple[Any, Any, Any]]) -> object:
        for operation, argument, _ in islice(operations, _MOST_OPERATIONS):
            if operation.name == "STOP":
                return self.stack.pop()
            self._do(operation.name, argument)
        raise _UnreadableError("it is cut off, or far too long")

    def _do(self, name: str, argument: Any) -> None:
        method = getattr(self, f"_{name.lower()}", None)
        if name in _PUSHED:
            self.stack.append(_PUSHED[name])
        elif method:
            method(argument)
        elif "INT" in name or "UNICODE" in name or name in ("LONG1", "LONG4", "LONG", "FLOAT", "BINFLOAT"):
            self.stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif "STRING" in name or "BYTES" in name:
            self.stack.append(None)
        elif name not in ("PROTO", "FRAME"):
            raise _UnreadableError(f"it does what a dictionary of tensors does not ({name})")

    def _since_mark(self) -> list[Any]:
        marks = (at for at in range(len(self.stack) - 1, -1, -1) if isinstance(self.stack[at], _Mark))
        place = next(marks, None)
        if place is None:
            raise _UnreadableError("a sequence has no beginning")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _mark(self, _: object) -> None:
        self.stack.append(_Mark())

    def _pop(self, _: object) -> None:
        self.stack.pop()

    def _empty_dict(self, _: object) -> None:
        self.stack.append({})

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: object) -> None:
        self._since_mark()
        self.stack.append(None)

    def _tuple1(self, _: object) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: object) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: object) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _append(self, _: object) -> None:
        self.stack.pop()

    def _appends(self, _: object) -> None:
        self._since_mark()

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _setitems(self, _: object) -> None:
        items = self._since_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: object, value: object) -> None:
        target = self.stack[-1]
        if isinstance(target, dict) and isinstance(key, str):  # other keys could not be hashed safely
            target[key] = value

    def _build(self, _: object) -> None:
        self.stack.pop()

    def _global(self, argument: str) -> None:
        self.stack.append(_Global(argument.rpartition(" ")[2]))

    def _stack_global(self, _: object) -> None:
        name = self.stack.pop()
        self.stack[-1] = _Global(name if isinstance(name, str) else "")

    def _newobj(self, _: object) -> None:
        self._reduce(_)

    def _reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(_made(function, arguments))

    def _binpersid(self, _: object) -> None:
        self.stack.append(_storage(self.stack.pop()))


_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_LIST": None, "EMPTY_SET": None}


def _made(function: object, arguments: object) -> object:
    """What a call would give, as far as it matters here."""
    name = function.name if isinstance(function, _Global) else ""
    if name in ("OrderedDict", "dict"):
        return {}
    if not isinstance(arguments, tuple) or not arguments:
        return None
    if name in ("_rebuild_tensor_v2", "_rebuild_tensor") and len(arguments) > 2 and isinstance(arguments[0], _Storage):
        return _Tensor(arguments[0].dtype, _shape(arguments[2]))
    return arguments[0] if name.startswith("_rebuild_parameter") else None


def _shape(value: object) -> tuple[int, ...]:
    axes = value if isinstance(value, tuple) and len(value) <= _MOST_AXES else (None,)
    sizes = tuple(axis for axis in axes if type(axis) is int and 0 <= axis < 2**40)
    if len(sizes) != len(axes):
        raise _UnreadableError("a tensor has no shape")
    return sizes


def _storage(identity: object) -> _Storage | None:
    """("storage", class, key, place, numbers): what a tensor's numbers are."""
    if not isinstance(identity, tuple) or len(identity) < 2 or not isinstance(identity[1], _Global):
        return None
    dtype = _STORAGES.get(identity[1].name)
    if dtype is None:
        raise _UnreadableError(f"its numbers are in a {identity[1].name[:40]!r}")
    return _Storage(dtype)
