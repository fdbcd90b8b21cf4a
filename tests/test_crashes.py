"""Kill -9 in the middle, then again: the same as without. `crash_points.py` tries all points, these tests a sample."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODELS


@pytest.mark.parametrize(
    ("work", "every", "at_least"),
    [
        ("package", 6, 9),  # about 60 changes: links, files, their modes, directories, renames
        ("replace", 9, 8),  # about 80, those of removing the old bundle among them
        ("publish", 19, 8),  # about 180: 15 objects and a tree of 15 links
    ],
)
def test_killed_anywhere_and_run_again_is_as_if_nothing_had_been(
    tmp_path: Path, work: str, every: int, at_least: int
) -> None:
    script = Path(__file__).with_name("crash_points.py")

    done = subprocess.run(
        [sys.executable, str(script), work, str(MODELS / "hf-awq"), str(tmp_path), str(every)],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= at_least
