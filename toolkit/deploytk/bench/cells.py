"""The raw data of a bench: a file per cell and repetition."""

from __future__ import annotations

import lzma
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from deploytk.base.errors import UsageError
from deploytk.base.terminal import one_line
from deploytk.bench.matrix import Deployment, Load
from deploytk.smoke import Budget, Evidence, read_raw

_CELL = re.compile(r"(?:\./)?cells/([\w.+-]+\.r[0-9]+\.jsonl)")
_LARGEST_BYTES = 2**29  # of all cells in an archive

Repetitions = dict[int, Evidence]
"""The repetitions of one cell by their number."""


def cell_path(out: Path, deployment: Deployment, load: Load, repetition: int) -> Path:
    return out / "cells" / f"{deployment.name}.{load.name}.r{repetition}.jsonl"


def read_cells(out: Path) -> dict[str, Repetitions]:
    """Cell -> what was measured, by the number of the repetition; raises UsageError where there is nothing."""
    return {cell: {number: one for number, (one, _) in found.items()} for cell, found in read_judged_cells(out).items()}


def read_judged_cells(out: Path) -> dict[str, dict[int, tuple[Evidence, Budget]]]:
    """The same, with the objectives that each was measured with."""
    found: dict[str, dict[int, tuple[Evidence, Budget]]] = {}
    with _cells(out) as paths:
        for path in paths:
            cell, _, number = path.stem.rpartition(".r")
            found.setdefault(cell, {})[int(number)] = read_raw(path)
    if not found:
        raise UsageError(f"{out} holds no results", hint="name a directory that `deploytk bench -o` wrote")
    return found


@contextmanager
def _cells(out: Path) -> Iterator[list[Path]]:
    """The files of all cells: as they lie there, or out of the archives that results are published with."""
    there = sorted((out / "cells").glob("*.r[0-9]*.jsonl"))
    archives = [] if there else sorted(out.glob("raw*.tar.xz"))
    if not archives:
        yield there
        return
    with TemporaryDirectory(prefix="deploytk-") as directory:
        for archive in archives:
            _unpack(archive, Path(directory))
        yield sorted(Path(directory).iterdir())


def _unpack(archive: Path, directory: Path) -> None:
    """Write the files of cells, and nothing else; raises UsageError for an archive that is none, or without end."""
    left = _LARGEST_BYTES
    try:
        with tarfile.open(archive, "r:xz") as packed:
            for member in packed:
                name = _CELL.fullmatch(member.name)
                content = packed.extractfile(member) if name and member.isreg() else None
                if name is None or content is None:
                    continue
                left -= member.size
                if left < 0:
                    raise ValueError(f"it holds more than {_LARGEST_BYTES // 2**20} MiB")
                (directory / name[1]).write_bytes(content.read())
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        hint = "name a directory that `deploytk bench -o` wrote"
        raise UsageError(f"{archive} cannot be read: {one_line(str(error))}", hint=hint) from error
