"""Asks lying servers, one after the other, as the commands do, and says how each try ended: a process of its own.

    python hostile_asker.py smoke|attach|await|chat URL...

Limits are short, so that a server that never ends is seen to be left.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
import traceback
from pathlib import Path

from deploytk.base import events
from deploytk.base.errors import DeployError
from deploytk.base.net import ask
from deploytk.base.progress import Silent
from deploytk.base.terminal import printable
from deploytk.cli import main
from deploytk.preflight import hosted
from deploytk.serve import asking, attach


def _peak_mib() -> float:
    """The most memory of this program; ru_maxrss has that of the one that started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _asked(way: str, url: str) -> int:
    if way == "smoke":
        return _run("smoke", url, *("--wait 0s --time-limit 3s --requests 2 --output-tokens 6".split()))
    if way == "chat":
        sys.stdin = io.StringIO("Why is the sky blue?\nAnd at night?\n")
        return _run("chat", url, "--max-tokens", "6")
    try:
        if way == "attach":
            attach(url)
        else:
            hosted.await_app(url, 0.0, Silent(), preflight_passed=False)
    except DeployError as error:
        sys.stdout.write(printable(f"error: {error}\n hint: {error.hint}\n"))
        return error.exit_code
    return 0


def _run(*words: str) -> int:
    sys.argv = ["deploytk", *words]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def run(way: str, urls: list[str]) -> None:
    with contextlib.suppress(ConnectionError):
        ask("http://127.0.0.1:9", 10)  # what the first request loads is not to count
    asking._ASK_WITHIN_S = 2.0
    hosted._COMPLETE_WITHIN_S = 2.0
    measuring = importlib.import_module("deploytk.smoke.measure")  # the package has a function of that name
    measuring._COUNTERS_WITHIN_S = 0.1
    measuring.check_client = lambda _: None
    answering = importlib.import_module("deploytk.chat.answer")
    answering._SILENT_S = events._WHOLE_WITHIN_S = 2.0
    events._CONNECT_WITHIN_S = 1.0
    events._LARGEST_BYTES = 2**22  # a flood of small events takes long to read
    for url in urls:
        out, started = io.StringIO(), time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = _asked(way, url)
            except BaseException:  # noqa: BLE001 (whatever it is, the test is to show it)
                code = -1
                traceback.print_exc()
        tries = {"code": code, "said": out.getvalue(), "seconds": time.monotonic() - started}
        peak_mib = _peak_mib()
        sys.stdout.write(json.dumps({**tries, "peak_mib": peak_mib}) + "\n")


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
