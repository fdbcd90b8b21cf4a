"""A signal while an event loop runs: what runs is cancelled and cleans up, and nothing is lost or printed."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import pytest
from lying_server import lying, plain

import deploytk
from deploytk.base.event_loop import interrupt, run
from deploytk.base.net import ask
from deploytk.smoke.client import Connection, _Wire


@pytest.fixture(autouse=True)
def interrupted() -> Iterator[None]:
    """SIGUSR1 does what SIGINT does in a command."""

    def handle(number: int, frame: FrameType | None) -> None:
        interrupt()

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_without_a_loop_it_is_a_keyboard_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt()


@pytest.fixture(params=["asyncio", "uvloop"])
def is_timed(request: pytest.FixtureRequest) -> bool:
    """What is timed runs on uvloop where that is installed, and is to behave as everything else."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return bool(request.param == "uvloop")


def test_what_is_timed_runs_on_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def name() -> str:
        return type(asyncio.get_running_loop()).__module__.split(".")[0]

    assert run(name()) == "asyncio"
    assert run(name(), is_timed=True) == ("uvloop" if find_spec("uvloop") else "asyncio")

    monkeypatch.setitem(sys.modules, "uvloop", None)  # as where it is not
    assert run(name(), is_timed=True) == "asyncio"


def test_what_runs_is_cancelled_and_cleans_up_first(is_timed: bool) -> None:
    done = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run(work(), is_timed=is_timed)
    assert done == ["cleaned up"]
    assert run(asyncio.sleep(0, "the next one is another"), is_timed=is_timed) == "the next one is another"


def test_who_ends_all_the_same_or_otherwise_is_interrupted_too(is_timed: bool) -> None:
    async def returns() -> str:
        interrupt()
        return "done"

    async def fails() -> None:
        interrupt()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise ConnectionError("no whole answer")

    for work in (returns(), fails()):
        with pytest.raises(KeyboardInterrupt):
            run(work, is_timed=is_timed)


def test_one_that_comes_when_the_loop_is_closed_is_not_lost_and_the_next_one_is_not_either() -> None:
    lines, first = inspect.getsourcelines(run)
    [last] = [first + number for number, line in enumerate(lines) if line.strip() == "_running = None"]
    came = []

    def trace(frame: FrameType, event: str, _: object) -> object:
        if event == "line" and frame.f_code is run.__code__ and frame.f_lineno == last and not came:
            came.append(True)
            interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(asyncio.sleep(0))
    finally:
        sys.settrace(before)

    assert came
    with pytest.raises(KeyboardInterrupt):
        interrupt()


def test_errors_and_cancellation_of_its_own_are_handed_on(is_timed: bool) -> None:
    async def fails() -> None:
        raise ConnectionError("no whole answer")

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ConnectionError):
        run(fails(), is_timed=is_timed)
    with pytest.raises(asyncio.CancelledError):
        run(is_cancelled(), is_timed=is_timed)


def test_in_a_thread_and_within_a_loop_it_runs_as_well(is_timed: bool) -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(run(asyncio.sleep(0, 1), is_timed=is_timed)))
    thread.start()
    thread.join()

    async def outer() -> int:
        return run(asyncio.sleep(0, 2), is_timed=is_timed)

    assert [*found, run(outer(), is_timed=is_timed)] == [1, 2]


def test_whenever_it_comes_it_is_never_lost(capfd: pytest.CaptureFixture[str]) -> None:
    """Within an answer that is on its way: at its start, in its look-up, between its bytes, at its end."""
    random.seed(7)
    main = threading.main_thread().ident
    assert main is not None
    with lying(lambda _, send: send(plain(b"{}"))) as url:
        for _ in range(150):
            after_s = random.uniform(0.0005, 0.01)
            sender = threading.Timer(after_s, signal.pthread_kill, (main, signal.SIGUSR1))
            with pytest.raises(KeyboardInterrupt):
                _ask_for_ever(url, sender)
            sender.join()

    assert capfd.readouterr().err == ""


def _ask_for_ever(url: str, sender: threading.Thread) -> None:
    sender.start()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError):
            ask(url, 5.0)


def test_it_is_not_lost_while_something_is_measured_either(is_timed: bool, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(7)
    main = threading.main_thread().ident
    assert main is not None

    async def measure(url: str) -> None:
        connection = Connection(url)
        while True:
            await connection.post("/", {}, 5.0)

    with lying(lambda _, send: send(plain(b"{}"))) as url:
        for _ in range(100):
            after_s = random.uniform(0.0005, 0.01)
            sender = threading.Timer(after_s, signal.pthread_kill, (main, signal.SIGUSR1))
            with pytest.raises(KeyboardInterrupt):
                _measure_for_ever(lambda: run(measure(url), is_timed=is_timed), sender)
            sender.join()

    assert capfd.readouterr().err == ""


def test_one_that_comes_with_the_last_byte_of_an_answer_ends_the_measurement(
    is_timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio.wait_for took it for the answer, and the next request was sent."""
    answered, finish = [], _Wire._finish

    def interrupted(wire: _Wire, *, is_reusable: bool) -> None:
        finish(wire, is_reusable=is_reusable)
        if not answered:
            signal.raise_signal(signal.SIGUSR1)
        answered.append(True)

    async def measure(url: str) -> None:
        connection = Connection(url)
        for _ in range(5):
            await connection.post("/", {}, 5.0)

    monkeypatch.setattr(_Wire, "_finish", interrupted)
    with lying(lambda _, send: send(plain(b"{}"))) as url, pytest.raises(KeyboardInterrupt):
        run(measure(url), is_timed=is_timed)

    assert len(answered) <= 2  # the other one: its connection is closed


def test_what_takes_a_cancellation_for_something_else_is_cancelled_again(
    is_timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.base.event_loop._CANCELLED_AGAIN_AFTER_S", 0.01)

    async def work() -> None:
        interrupt()
        for _ in range(3):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        run(work(), is_timed=is_timed)


def _measure_for_ever(measure: Callable[[], None], sender: threading.Thread) -> None:
    sender.start()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(ConnectionError):
            measure()


def test_no_other_place_runs_a_loop_in_the_main_thread() -> None:
    """What runs inside a bundle has no deploytk, and signals of its own."""
    root = Path(deploytk.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "asyncio.run(" in path.read_text(encoding="utf-8") and path.parts[-2] not in ("app", "cpu_engine")
    }
    assert found == {"base/event_loop.py"}


@pytest.mark.services
def test_all_of_that_holds_on_uvloop_which_the_tests_have_apart(tmp_path: Path) -> None:
    """Beside the others uvicorn would find it, and run the apps on what bundles have not."""
    installed = Path(__file__).parents[1] / ".venv" / "clients" / "uvloop"
    if not (installed / ".ready").is_file():
        assert not os.environ.get("DEPLOYTK_REQUIRE_SERVICES"), "run `make clients`"
        pytest.skip("needs `make clients`")
    [packages] = installed.glob("lib/python*/site-packages")
    own = ["-p", "no:cacheprovider", "--basetemp", str(tmp_path / "own")]  # else it ends by removing older runs' files
    command = [sys.executable, "-m", "pytest", "-q", *own, __file__]

    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout
