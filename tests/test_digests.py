"""Digests: right, remembered until the file changes, and never an error because of the memory."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploytk.base.digests import hash_files
from deploytk.base.errors import BundleError
from deploytk.base.progress import Advance, Silent, Unit

LONG_AGO_S = 1_000_000_000


class _Counting(Silent):
    """Counts the bytes that are read."""

    def __init__(self, on_read: Callable[[], None] = lambda: None) -> None:
        self.read_bytes = 0
        self._on_read = on_read
        self._lock = threading.Lock()

    @contextmanager
    def task(self, label: str, total: int, unit: Unit = "bytes") -> Iterator[Advance]:
        def advance(size: int) -> None:
            with self._lock:
                self.read_bytes += size
                self._on_read()

        yield advance


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 300_000)
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return path


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "digests.sqlite"


def _hash(path: Path) -> tuple[str, int]:
    """The digest of `path`, and how many bytes were read to find it."""
    progress = _Counting()
    return hash_files([path], "hashing", progress)[path], progress.read_bytes


def test_digests_are_those_of_hashlib(tmp_path: Path) -> None:
    contents = {tmp_path / f"{size}": os.urandom(size) for size in (0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20)}
    for path, content in contents.items():
        path.write_bytes(content)

    digests = hash_files(list(contents), "hashing", Silent())

    assert digests == {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}


def test_an_unchanged_file_is_read_once(file: Path) -> None:
    first, second = _hash(file), _hash(file)

    assert first == (hashlib.sha256(file.read_bytes()).hexdigest(), 2_100_000)  # 7 bytes x 300 000
    assert second == (first[0], 0)


def test_a_hard_link_to_a_known_file_is_not_read(file: Path, tmp_path: Path) -> None:
    known = _hash(file)[0]
    (tmp_path / "link").hardlink_to(file)

    assert _hash(tmp_path / "link") == (known, 0)


def test_a_changed_file_of_the_same_size_is_read_again(file: Path) -> None:
    old = _hash(file)[0]
    with file.open("r+b") as writable:
        writable.write(b"W")
    os.utime(file, (LONG_AGO_S + 1, LONG_AGO_S + 1))

    new, read_bytes = _hash(file)

    assert new != old
    assert read_bytes == 2_100_000


def test_a_file_that_was_just_written_is_not_remembered(file: Path) -> None:
    file.touch()
    _hash(file)

    assert _hash(file)[1] == 2_100_000


def test_a_file_that_grows_while_it_is_read_is_refused(file: Path) -> None:
    def grow() -> None:
        if file.stat().st_size == 2_100_000:
            with file.open("ab") as writable:
                writable.write(b"x")

    with pytest.raises(BundleError, match="changed while it was read"):
        hash_files([file], "hashing", _Counting(on_read=grow))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone cannot be read: No such file"):
        hash_files([tmp_path / "gone"], "hashing", Silent())


def test_the_first_failure_ends_the_reading_of_all(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(8 * 2**30)  # sparse; several seconds to hash
    progress = _Counting()

    with pytest.raises(BundleError, match="Is a directory"):
        hash_files([large, tmp_path / "directory"], "hashing", progress)

    assert progress.read_bytes < 2**30


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_memory_is_started_anew(file: Path, memory: Path, content: bytes) -> None:
    memory.parent.mkdir()
    memory.write_bytes(content)

    assert _hash(file)[0] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert _hash(file)[1] == 0


def test_a_memory_of_another_shape_is_started_anew(file: Path, memory: Path) -> None:
    memory.parent.mkdir()
    with sqlite3.connect(memory) as connection:
        connection.execute("CREATE TABLE digests (other TEXT)")
    connection.close()

    _hash(file)

    assert _hash(file)[1] == 0


def test_a_memory_that_cannot_be_written_costs_only_time(file: Path, memory: Path) -> None:
    memory.mkdir(parents=True)

    assert _hash(file) == _hash(file)


def test_a_busy_memory_costs_only_time(file: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _hash(file)
    file.touch()
    os.utime(file, (LONG_AGO_S + 2, LONG_AGO_S + 2))
    monkeypatch.setattr("deploytk.base.digests._PATIENCE_S", 0.05)
    connection = sqlite3.connect(memory)
    connection.execute("BEGIN EXCLUSIVE")

    digest, read_bytes = _hash(file)

    connection.close()
    assert (digest, read_bytes) == (hashlib.sha256(file.read_bytes()).hexdigest(), 2_100_000)
