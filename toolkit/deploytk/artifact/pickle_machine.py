"""Follows a pickle's opcodes on a stack of plain values: what it names, calls and holds. Nothing is imported or called.

Everything that reads a pickle reads it by this machine: the tensors of weights, and whether a file is taken at all.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any

_MOST_OPERATIONS = 2_000_000
_LARGEST_TEXT_BYTES = 16 * 2**20  # of one argument; all of a model of 3000 tensors has 400 KiB
_MOST_AXES = 16

STORAGES = {
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
    "UntypedStorage": "",  # the tensor says it
}
_UNTYPED = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}

_DTYPES = """
    float16 bfloat16 float32 float64 int8 uint8 int16 int32 int64 bool float8_e4m3fn float8_e5m2 complex64 complex128
""".split()

# What weights are made of, and nothing else: a part of what torch.load(weights_only=True) lets through. None of these
# calls what it is given, imports or opens anything.
ALLOWED = frozenset(
    [
        *(f"torch {name}" for name in (*STORAGES, *_DTYPES, "Size", "Tensor", "device")),
        "torch.storage UntypedStorage",
        *(f"torch._utils _rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
        "torch.nn.parameter Parameter",
        *(f"numpy{core}.multiarray {name}" for core in (".core", "._core") for name in ("_reconstruct", "scalar")),
        "numpy ndarray",
        "numpy dtype",
        "collections OrderedDict",
        "builtins set",
        "builtins bytearray",
        "_codecs encode",
    ]
)

MALFORMED = (ValueError, KeyError, IndexError, EOFError, OverflowError, struct.error, RecursionError)
"""What pickletools and the machine raise for bytes that are no pickle."""


class UnreadableError(Exception):
    """The opcodes cannot be followed, or are not what they should be."""


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that a loader would import."""

    module: str
    name: str

    @property
    def words(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def is_allowed(self) -> bool:
        return f"{self.module} {self.name}" in ALLOWED


@dataclass(frozen=True, slots=True)
class Storage:
    dtype: str


@dataclass(frozen=True, slots=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]


class _Mark:
    """Where a sequence on the stack begins."""


@dataclass(slots=True)
class Followed:
    """What a pickle does, as far as it could be followed."""

    value: object = None
    is_whole: bool = False  # it came to its end
    named: list[str] = field(default_factory=list)  # what it would import, and is not allowed
    called: list[str] = field(default_factory=list)  # what of that, or of what it makes itself, it would call
    odd: list[str] = field(default_factory=list)  # opcodes that no pickle of weights has
    trouble: str = ""  # why it could not be followed further
    is_too_large: bool = False  # ... which is our limit, not its end

    @property
    def refusal(self) -> str:
        """Why this is not taken, in words that follow the name of a file; "" where nothing speaks against it."""
        if self.called or self.named:
            verb, found = ("call", self.called) if self.called else ("import", self.named)
            more = f" and {len(set(found)) - 1} more" if len(set(found)) > 1 else ""
            return f"would {verb} {found[0][:100]}{more} when it is loaded"
        if self.odd:
            return f"does what no pickle of weights does ({self.odd[0]})"
        return "" if self.is_whole else f"is a pickle that cannot be read to its end: {self.trouble}"


def follow(file: IO[bytes]) -> Followed:
    """What the pickle at the place of `file` does; the file is left behind its end."""
    machine = _Machine()
    found = machine.found
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes that are none
            found.value = machine.run(pickletools.genops(_Bounded(file)))  # type: ignore[arg-type]
        found.is_whole = True
    except _TooLargeError as error:
        found.trouble, found.is_too_large = str(error), True
    except (UnreadableError, *MALFORMED) as error:
        found.trouble = " ".join(str(error).split())[:120] or type(error).__name__
    return found


class _TooLargeError(Exception):
    """What is more than any pickle of weights has."""


class _Bounded:
    """A file of which nobody reads all at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size > _LARGEST_TEXT_BYTES:
            here = self._file.tell()
            rest = self._file.seek(0, 2) - here
            self._file.seek(here)
            if size > rest:
                raise ValueError("it is cut off")
            raise _TooLargeError("one of its texts has more than 16 MiB")
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline(_LARGEST_TEXT_BYTES)
        if len(line) == _LARGEST_TEXT_BYTES:
            raise _TooLargeError("one of its lines has more than 16 MiB")
        return line

    def tell(self) -> int:
        return self._file.tell()


class _Machine:
    """What it does not know becomes None. Where a loader would stop it may go on, never the other way round."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.found = Followed()

    def run(self, operations: Iterator[tuple[Any, Any, Any]]) -> object:
        for operation, argument, _ in islice(operations, _MOST_OPERATIONS):
            if operation.name == "STOP":
                return self._last()
            self._do(operation.name, argument)
        raise _TooLargeError("it is cut off, or far too long")

    def _last(self) -> object:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise UnreadableError("it ends in the middle of a sequence")
        return value

    def _do(self, name: str, argument: Any) -> None:
        method = getattr(self, f"_{name.lower()}", None)
        if name in _PUSHED:
            self.stack.append(_PUSHED[name])
        elif method:
            method(argument)
        elif "INT" in name or "UNICODE" in name or "STRING" in name or name in _NUMBERS:
            self.stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif "BYTES" in name or name == "BYTEARRAY8":
            self.stack.append(None)
        elif name not in ("PROTO", "FRAME"):
            self.found.odd.append(name)
            self.stack.append(None)

    def _since_mark(self) -> list[Any]:
        marks = (at for at in range(len(self.stack) - 1, -1, -1) if isinstance(self.stack[at], _Mark))
        place = next(marks, None)
        if place is None:
            raise UnreadableError("a sequence has no beginning")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def _memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _mark(self, _: object) -> None:
        self.stack.append(_Mark())

    def _pop(self, _: object) -> None:
        self.stack.pop()

    def _pop_mark(self, _: object) -> None:
        self._since_mark()

    def _dup(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def _empty_dict(self, _: object) -> None:
        self.stack.append({})

    def _dict(self, _: object) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set_all(items)

    def _tuple(self, _: object) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _list(self, _: object) -> None:
        self._since_mark()
        self.stack.append(None)

    def _frozenset(self, _: object) -> None:
        self._list(_)

    def _tuple1(self, _: object) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self, _: object) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self, _: object) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _append(self, _: object) -> None:
        self.stack.pop()

    def _appends(self, _: object) -> None:
        self._since_mark()

    def _additems(self, _: object) -> None:
        self._since_mark()

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _setitems(self, _: object) -> None:
        self._set_all(self._since_mark())

    def _set_all(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: object, value: object) -> None:
        target = self.stack[-1]
        if isinstance(target, dict) and isinstance(key, str):  # other keys could not be hashed safely
            target[key] = value

    def _build(self, _: object) -> None:
        self.stack.pop()
        if isinstance(self.stack[-1], Global):  # it would change a class
            self.found.called.append(f"{self.stack[-1].words}.__setstate__")

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def _stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        texts = [one if isinstance(one, str) else "(what it makes up itself)" for one in (module, name)]
        self._push_global(*texts)

    def _push_global(self, module: str, name: str) -> None:
        found = Global(module, name)
        if not found.is_allowed:
            self.found.named.append(found.words)
        self.stack.append(found)

    def _inst(self, argument: str) -> None:
        arguments = tuple(self._since_mark())
        self._global(argument)
        self._call(self.stack.pop(), arguments)

    def _obj(self, _: object) -> None:
        function, *arguments = self._since_mark() or [None]
        self._call(function, tuple(arguments))

    def _newobj(self, _: object) -> None:
        self._reduce(_)

    def _newobj_ex(self, _: object) -> None:
        self.stack.pop()
        self._reduce(_)

    def _reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    def _call(self, function: object, arguments: object) -> None:
        if not isinstance(function, Global):
            self.found.odd.append("it calls what it has made")
        elif not function.is_allowed:
            self.found.called.append(function.words)
        self.stack.append(_made(function, arguments))

    def _binpersid(self, _: object) -> None:
        self.stack.append(_storage(self.stack.pop()))


_NUMBERS = ("LONG1", "LONG4", "LONG", "FLOAT", "BINFLOAT")
_PUSHED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_LIST": None, "EMPTY_SET": None}


def _made(function: object, arguments: object) -> object:
    """What a call would give, as far as it matters here."""
    name = function.name if isinstance(function, Global) else ""
    if name in ("OrderedDict", "dict"):
        return {}
    if not isinstance(arguments, tuple) or not arguments:
        return None
    if name.startswith("_rebuild_tensor") and len(arguments) > 2 and isinstance(arguments[0], Storage):
        stated = arguments[6] if name.endswith("_v3") and len(arguments) > 6 else None
        dtype = _UNTYPED.get(stated.name, "") if isinstance(stated, Global) else arguments[0].dtype
        return Tensor(_known(dtype), _shape(arguments[2]))
    return arguments[0] if name.startswith("_rebuild_parameter") else None


def _known(dtype: str) -> str:
    if not dtype:
        raise UnreadableError("a tensor has numbers of an unknown type")
    return dtype


def _shape(value: object) -> tuple[int, ...]:
    axes = value if isinstance(value, tuple) and len(value) <= _MOST_AXES else (None,)
    sizes = tuple(axis for axis in axes if type(axis) is int and 0 <= axis < 2**40)
    if len(sizes) != len(axes):
        raise UnreadableError("a tensor has no shape")
    return sizes


def _storage(identity: object) -> Storage | None:
    """("storage", class, key, place, numbers): what a tensor's numbers are."""
    if not isinstance(identity, tuple) or len(identity) < 2 or not isinstance(identity[1], Global):
        return None
    dtype = STORAGES.get(identity[1].name)
    if dtype is None:
        raise UnreadableError(f"its numbers are in a {identity[1].name[:40]!r}")
    return Storage(dtype)
