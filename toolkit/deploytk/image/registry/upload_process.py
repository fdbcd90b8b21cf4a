"""Sends large layers from a process of its own, which ends the chunks under way when its parent is killed.

Registries that are built on CNCF distribution forget an upload of which a chunk was cut off: all of the layer would
have to be sent again. So the process that holds the connection (upload_child.py) is not the one that a user kills.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from deploytk.base.errors import ImageError, TryAgainError
from deploytk.base.import_path import python_environment
from deploytk.base.progress import Advance
from deploytk.image.registry.connection import Note
from deploytk.image.registry.push_job import PushJob
from deploytk.image.registry.upload import Sent
from deploytk.image.value import Layer

_CHILD = Path(__file__).with_name("upload_child.py")


def is_picklable(blob: Layer) -> bool:
    """Whether another process can read the blob as well."""
    try:
        pickle.dumps(blob)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


def send_in_process(job: PushJob, advance: Advance, note: Note, is_over: Callable[[], bool]) -> Sent:
    """What `send_blobs` does, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(_CHILD)],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is not for it
    )
    try:
        return _follow(process, job, advance, note, is_over)
    finally:
        process.wait()


def _follow(
    process: subprocess.Popen[bytes], job: PushJob, advance: Advance, note: Note, is_over: Callable[[], bool]
) -> Sent:
    assert process.stdin is not None  # noqa: S101 (a pipe)
    assert process.stdout is not None  # noqa: S101 (a pipe)
    with process.stdin as orders, process.stdout as reports, contextlib.suppress(BrokenPipeError):
        orders.write(pickle.dumps(job))
        orders.flush()
        for line in reports:
            report = json.loads(line)
            if "advance" in report:
                advance(report["advance"])
            elif "note" in report:
                note(report["note"])
            elif "error" in report:
                kind = TryAgainError if report["is_busy"] else ImageError
                raise kind(report["error"], hint=report["hint"])
            else:
                return Sent(**report)
            if is_over():
                raise InterruptedError  # closing its input tells it to end its chunk
    raise ImageError("the process that sent the layers was killed", hint="run again: it goes on where it was")
