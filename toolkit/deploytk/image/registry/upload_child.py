"""Sends layers for upload_process.py, and ends the chunks under way when its parent is killed.

python upload_child.py < JOB     (a pickled PushJob; the input stays open, one JSON object a line comes out)
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from dataclasses import asdict

from deploytk.base.import_path import leave_out_command_lines

leave_out_command_lines()  # before what follows imports httpx

from deploytk.base.errors import DeployError, TryAgainError  # noqa: E402
from deploytk.image.registry.push_job import PushJob, send_blobs  # noqa: E402

_END_WITHIN_S = 80.0  # how long an orphan may take for the rest of its chunks
_REPORT_EVERY_BYTES = 2**22


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
    os._exit(0)  # our parent waits for it, and all is said: taking modules down takes a while
