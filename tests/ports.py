"""Ports for the servers of the tests: of every worker its own, below those that Linux gives to who asks for any.

Tests let servers vanish whose clients go on knocking: no server of another worker must be there then, and answer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import socket

FIRST = 20_000
_EACH = 190  # so many for each worker
_WORKERS = 64  # and one more place: for tests that run without workers, beside those that do
LAST = FIRST + (_WORKERS + 1) * _EACH - 1
_handed_out = itertools.count(secrets.randbelow(_EACH))


def free_port() -> int:
    """One that no other server of the tests takes until it is used.

    One after the other, so that two servers which are made at once are not given the same.
    """
    named = os.environ.get("PYTEST_XDIST_WORKER")
    worker = int(named.removeprefix("gw")) % _WORKERS if named else _WORKERS
    while True:
        port = FIRST + worker * _EACH + next(_handed_out) % _EACH
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
