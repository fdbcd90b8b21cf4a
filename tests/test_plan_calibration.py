"""Measured servers are kept, each in the place of an older measurement of the same, and forgotten one by one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from deploytk.base.errors import SettingsError, UsageError
from deploytk.plan import MeasuredOverhead
from deploytk.plan.calibration import Calibration, add_measured, calibration_path, forget_measured, read_measured
from deploytk.plan.measured import nearest

A = MeasuredOverhead("A10", "0.18.0", "turbomind", "a shape", 1, 4000, 17_000, 18_000, "2026-11-27")
B = dataclasses.replace(A, step_tokens=100)
C = dataclasses.replace(A, gpu="H200")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEPLOYTK_DATA_DIR", str(tmp_path))
    return calibration_path()


def test_what_was_added_is_there_the_newest_last(place: Path) -> None:
    assert read_measured() == ()
    add_measured([A, B])
    newer = dataclasses.replace(A, before_pool_bytes=16_000)

    assert add_measured([C, newer]) == Calibration(place, (B, C, newer))
    assert read_measured() == (B, C, newer)
    assert place.read_text().endswith("}\n")


@pytest.mark.parametrize(("which", "left"), [("1", (B, C)), ("2", (A, C)), ("3", (A, B)), ("all", ())])
def test_one_is_forgotten_by_its_number(which: str, left: tuple[MeasuredOverhead, ...], place: Path) -> None:
    add_measured([A, B, C])

    assert forget_measured(which) == Calibration(place, left)
    assert read_measured() == left


@pytest.mark.parametrize("which", ["0", "4", "-1", "x", "", "1.0"])
def test_a_number_that_is_none_forgets_nothing(which: str) -> None:
    add_measured([A, B, C])

    with pytest.raises(UsageError, match="there is no measured server"):
        forget_measured(which)
    assert read_measured() == (A, B, C)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2, "measured": []}', '{"format": 1, "measured": [{}]}'])
def test_a_broken_file_is_said_and_can_be_forgotten(content: str, place: Path) -> None:
    place.write_text(content)

    with pytest.raises(SettingsError, match="cannot be used"):
        read_measured()
    with pytest.raises(SettingsError, match="cannot be used"):
        add_measured([A])
    assert place.read_text() == content
    assert forget_measured("all") == Calibration(place, ())
    assert read_measured() == ()


def test_the_file_says_its_format(place: Path) -> None:
    add_measured([A])

    assert json.loads(place.read_text())["format"] == 1


def test_the_nearest_is_of_the_same_server_and_of_the_nearest_steps() -> None:
    like = A.key[:-1]

    assert nearest((C, B, A), like, 4000) == A
    assert nearest((C, B, A), like, 2049) == B
    assert nearest((C, B, A), like, 2051) == A
    assert nearest((C,), like, 4000) is None
