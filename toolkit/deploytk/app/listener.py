"""Whose server listens on a port: one that was free a moment ago may be somebody else's by now."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
LISTENS = "0A"  # TCP_LISTEN of linux/net/tcp_states.h


def is_foreign(port: int, leader: int) -> bool:
    """Whether a process listens on that port of this machine that is not `leader`, of its session or come from it.

    False where one is as well, and where the system does not tell: without Linux's /proc, of other users' processes.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    owners = [process for process in PROC.glob("[0-9]*") if sockets and _has_one(process, sockets)]
    return bool(owners) and not any(_is_of(process, leader) for process in owners)


def _listening(port: int) -> set[str]:
    """The inodes of the sockets that listen there. Source: proc(5), /proc/net/tcp."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _has_one(process: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(one) in sockets for one in (process / "fd").iterdir())  # noqa: PTH115 (Python 3.8)
    except OSError:  # it is gone, or another user's
        return False


def _is_of(process: Path, leader: int) -> bool:
    """Whether it is in the session of `leader`, or a descendant that has begun one of its own."""
    number = int(process.name)
    while number > 1:
        try:
            fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return True  # it is gone: nobody can tell
        parent, session = int(fields[1]), int(fields[3])
        if leader in (number, session):
            return True
        number = parent
    return False
