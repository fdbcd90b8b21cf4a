"""A wait that a signal ends, whenever it comes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deploytk.base.pause import pause


def test_a_long_one_is_many_short_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of them Python looks for signals: also for one that came just before the sleep began."""
    slept: list[float] = []
    monkeypatch.setattr("deploytk.base.pause.time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))

    pause(1.25)

    assert slept == [0.5, 0.5, 0.25]


def test_none_at_all_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("deploytk.base.pause.time", SimpleNamespace(monotonic=lambda: 0.0, sleep=slept.append))

    pause(0.0)
    pause(-1.0)

    assert slept == []
