"""Pickles that do something when they are loaded, by hand, and the files in which they come. Nothing here is loaded."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

PROTOCOL_2 = b"\x80\x02"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def calling(module: str, name: str, argument: str = "touch /tmp/owned") -> bytes:
    """module.name(argument), in the opcodes of protocol 0."""
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


def zipped(content: bytes, name: str = "archive/data.pkl", compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def with_broken_checksum(archive: bytes) -> bytes:
    place = archive.rindex(b"PK\x01\x02") + 16
    return archive[:place] + b"\0\0\0\0" + archive[place + 4 :]


def in_tar(content: bytes, name: str = "pickle") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def array_of_objects(content: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def _protocol(number: int) -> bytes:
    """os.system called as Python itself pickles such a call."""

    class Call:
        def __reduce__(self) -> tuple[object, ...]:
            import os

            return os.system, ("touch /tmp/owned",)

    return pickle.dumps(Call(), protocol=number)


_SYSTEM = calling("os", "system")

# Those that scanners were compared by: names of loaders and of others, gadgets that lists of bad names lack, zips.
EVIL_FILES: dict[str, bytes] = {
    "system.bin": PROTOCOL_2 + _SYSTEM,
    "eval.pth": PROTOCOL_2 + calling("builtins", "eval", "1"),
    "timeit.pt": PROTOCOL_2 + calling("timeit", "timeit", "pass"),
    "profile.ckpt": PROTOCOL_2 + calling("cProfile", "run", "pass"),
    "pydoc.pkl": PROTOCOL_2 + calling("pydoc", "pipepager"),
    "resolve.bin": PROTOCOL_2 + calling("pkgutil", "resolve_name", "os:system"),
    "renamed.safetensors": PROTOCOL_2 + _SYSTEM,
    "renamed.json": PROTOCOL_2 + _SYSTEM,
    "zip.bin": zipped(PROTOCOL_2 + _SYSTEM),
    "odd.bin": zipped(PROTOCOL_2 + _SYSTEM, "archive/other.name"),
    "checksum.bin": with_broken_checksum(zipped(PROTOCOL_2 + _SYSTEM)),
}

HOSTILE_FILES: dict[str, bytes] = EVIL_FILES | {
    **{f"protocol{number}.bin": _protocol(number) for number in range(6)},
    **{f"protocol{number}.txt": _protocol(number) for number in range(6)},
    "no-protocol.json": _SYSTEM,
    "no-protocol.model": b"]q\x00" + _SYSTEM,
    "truncated.bin": (PROTOCOL_2 + _SYSTEM)[:-2],
    "truncated-late.txt": _SYSTEM[:-1],
    "garbage-behind-the-call.txt": _SYSTEM[:-1] + b"\xff\xff\xff",
    "empty.bin": b"",
    "random.bin": bytes(range(7, 250, 3)),
    "stack-global.bin": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "stack-global-of-the-memo.bin": b"\x80\x04\x8c\x06system\x94\x8c\x02os\x94h\x01h\x00\x93\x8c\x02id\x85R.",
    "stack-global-of-old-strings.bin": b"\x80\x04U\x02osU\x06system\x93\x8c\x02id\x85R.",
    "stack-global-of-bytes.bin": b"\x80\x04C\x02osC\x06system\x93\x8c\x02id\x85R.",
    "stack-global-of-a-call.bin": b"\x80\x04ccollections\nOrderedDict\n)R\x8c\x06system\x93.",
    "instance.bin": b"(S'id'\nios\nsystem\n.",
    "instance.txt": b"(S'id'\nios\nsystem\n.",
    "object.bin": b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00ido.",
    "new-object.bin": b"\x80\x02csubprocess\nPopen\nX\x02\x00\x00\x00id\x85\x81.",
    "new-object-with-names.bin": b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93)}\x92.",
    "extension.bin": b"\x80\x02\x82\x01)R.",
    "persistent-id.bin": b"Pwho knows\n.",
    "out-of-band.bin": b"\x80\x05\x97.",
    "import-alone.bin": b"\x80\x02cantigravity\nfly\n.",
    "import-alone.txt": b"cantigravity\nfly\n.",
    "popped.txt": b"cos\nsystem\n(S'id'\ntR0N.",
    "duplicated.txt": b"I1\n2cos\nsystem\n(S'id'\ntR.",
    "other-base.txt": b"I0x10\n0" + _SYSTEM,
    "other-base-of-a-long.txt": b"L0x10L\n0" + _SYSTEM,
    "mark-popped.txt": b"(I1\n1" + _SYSTEM,
    "class-changed.bin": b"\x80\x02ctorch\nTensor\n}X\x01\x00\x00\x00aK\x01sb.",
    "second-pickle.bin": pickle.dumps({"a": 1}) + PROTOCOL_2 + _SYSTEM,
    "bytes-behind-a-pickle.bin": pickle.dumps({"a": 1}) + b"rest",
    "long-line.bin": b"V" + b"a" * (17 * 2**20) + b"\n0" + _SYSTEM,
    "long-text.pt": b"\x80\x02X" + struct.pack("<I", 17 * 2**20) + b"a" * (17 * 2**20) + b"0" + _SYSTEM,
    "deep.bin": b"\x80\x02" + b"(" * 100_000 + b".",
    "zip-in-zip.bin": zipped(zipped(PROTOCOL_2 + _SYSTEM), "archive/inner.zip"),
    "zip-in-zip-as-numbers.bin": zipped(zipped(PROTOCOL_2 + _SYSTEM), "archive/data/0"),
    "packed-zip.bin": zipped(PROTOCOL_2 + _SYSTEM, compression=zipfile.ZIP_DEFLATED),
    "two-zips.bin": zipped(PROTOCOL_2 + _SYSTEM) + zipped(PROTOCOL_2 + b"}."),
    "zip-cut-off.bin": zipped(PROTOCOL_2 + _SYSTEM)[:-5],
    "zip.safetensors": zipped(PROTOCOL_2 + _SYSTEM),
    "zip.json": zipped(PROTOCOL_2 + _SYSTEM),
    "program.pt": zipped(b"\x80\x02}.", "archive/code/__torch__.py"),
    "arrays.npz": zipped(array_of_objects(b"\x80\x02N."), "a.npy"),
    "seven.bin": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(60),
    "seven.model": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(60),
    "legacy.pth": in_tar(PROTOCOL_2 + _SYSTEM),
    "legacy.json": in_tar(PROTOCOL_2 + _SYSTEM),
    "packed.bin": gzip.compress(PROTOCOL_2 + _SYSTEM),
    "packed.pt": bz2.compress(PROTOCOL_2 + _SYSTEM),
    "packed.pkl": lzma.compress(PROTOCOL_2 + _SYSTEM),
    "packed.joblib": zlib.compress(PROTOCOL_2 + _SYSTEM),
    "objects.npy": array_of_objects(PROTOCOL_2 + _SYSTEM),
    "objects.bin": array_of_objects(PROTOCOL_2 + _SYSTEM),
    "objects-in-a-field.npy": array_of_objects(b"").replace(b"'|O'", b"[('a','O')]"),
    "arrays.joblib": PROTOCOL_2 + b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81.",
    "lambda.h5": b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "lambda.bin": bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(2000),
    "header-of-safetensors.bin": b"\x80\x02X\x02\x00\x00\x00\x00{0" + _SYSTEM,
}

HARMLESS_FILES: dict[str, Callable[[], bytes]] = {
    "config.json": lambda: b'{"a": 1}',
    "tokenizer.model": lambda: b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02",
    "words.txt": lambda: b"cat\ndog\nbird\nRabbit\n.",
    "imports.py": lambda: b"import os\nimport sys\n",
    "license.txt": lambda: b"License\nVersion 2.0, January 2004\n",
    "numbers.txt": lambda: b"I have 0x10 of them\n",
    "none.txt": lambda: b"N.",
    "numbers.npy": lambda: array_of_objects(bytes(8)).replace(b"'|O'", b"'<f8'"),
    "plain.bin": lambda: pickle.dumps({"a": [1, 2.5, None, "b", (True, b"c")]}, protocol=2),
    "model.safetensors": lambda: struct.pack("<Q", 2) + b"{}",
}
