"""Sends large layers from a process of its own, which ends the chunks under way when its parent is killed.

Registries that are built on CNCF distribution forget an upload of which a chunk was cut off: all of the layer would
have to be sent again. So the process that holds the connection is not the one that a user kills.

    python upload_process.py < JOB     (pickled by `send_in_process`; the input stays open)
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from deploytk.base.errors import DeployError, ImageError, TryAgainError
from deploytk.base.import_path import python_environment
from deploytk.base.progress import Advance
from deploytk.image.registry.connection import Note
from deploytk.image.registry.push_job import PushJob, send_blobs
from deploytk.image.registry.upload import Sent
from deploytk.image.value import Layer

_END_WITHIN_S = 60.0  # how long an orphan may take for the rest of its chunk
_REPORT_EVERY_BYTES = 2**22


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
        [sys.executable, str(Path(__file__))],
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


def main() -> None:
    job: PushJob = pickle.load(sys.stdin.buffer)  # noqa: S301 (our own parent wrote it)
    is_over = threading.Event()
    threading.Thread(target=_await_end, args=(is_over,), daemon=True).start()
    waiting = 0
    counting = threading.Lock()

    def advance(amount: int) -> None:
        nonlocal waiting
        with counting:
            waiting += amount
            if waiting >= _REPORT_EVERY_BYTES:
                _tell({"advance": waiting}, is_over)
                waiting = 0

    try:
        sent = send_blobs(job, advance, lambda text: _tell({"note": text}, is_over), is_over.is_set)
    except InterruptedError:
        return
    except DeployError as error:
        is_busy = isinstance(error, TryAgainError)
        _tell({"error": str(error), "hint": error.hint, "is_busy": is_busy}, is_over)
        return
    _tell({"advance": waiting}, is_over)
    _tell(asdict(sent), is_over)


def _await_end(is_over: threading.Event) -> None:
    """Wait until the parent closes our input, which the kernel does for it when it is killed."""
    while os.read(0, 1):  # not by sys.stdin, whose lock would be held when we end
        pass
    is_over.set()
    threading.Event().wait(_END_WITHIN_S)
    os._exit(1)


def _tell(report: dict[str, object], is_over: threading.Event) -> None:
    try:
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
    except OSError:  # nobody listens any more
        is_over.set()


if __name__ == "__main__":
    main()
