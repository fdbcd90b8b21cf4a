"""A signal while an event loop runs: what runs is cancelled and cleans up, and nothing is lost or printed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from lying_server import lying, plain

import deploytk
from deploytk.base.event_loop import interrupt, run
from deploytk.base.net import ask


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


def test_what_runs_is_cancelled_and_cleans_up_first() -> None:
    done = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            done.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run(work())
    assert done == ["cleaned up"]
    assert run(asyncio.sleep(0, "the next one is another")) == "the next one is another"


def test_who_ends_all_the_same_or_otherwise_is_interrupted_too() -> None:
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
            run(work)


def test_errors_and_cancellation_of_its_own_are_handed_on() -> None:
    async def fails() -> None:
        raise ConnectionError("no whole answer")

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ConnectionError):
        run(fails())
    with pytest.raises(asyncio.CancelledError):
        run(is_cancelled())


def test_in_a_thread_and_within_a_loop_it_runs_as_well() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(run(asyncio.sleep(0, 1))))
    thread.start()
    thread.join()

    async def outer() -> int:
        return run(asyncio.sleep(0, 2))

    assert [*found, run(outer())] == [1, 2]


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


def test_no_other_place_runs_a_loop_in_the_main_thread() -> None:
    """What runs inside a bundle has no deploytk, and signals of its own."""
    root = Path(deploytk.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "asyncio.run(" in path.read_text(encoding="utf-8") and path.parts[-2] not in ("app", "cpu_engine")
    }
    assert found == {"base/event_loop.py"}
