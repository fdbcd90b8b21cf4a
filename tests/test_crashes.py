"""Kill -9 in the middle, then again: the same as without, and no reader ever sees a part.

`crash_points.py` kills at every change to the file system, here at a sample of them; `kill_publish.py` at random times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MODELS, require


@pytest.mark.parametrize(
    ("work", "model", "every", "at_least"),
    [
        ("package", "hf-awq", 17, 9),  # about 170 changes: links, files, their modes, directories, renames
        ("replace", "hf-awq", 25, 8),  # about 230, those of removing the old bundle among them
        ("publish", "hf-awq", 53, 8),  # about 480: 45 objects and a tree of as many links
        ("modernize", "workspace-0.7.3-awq", 5, 3),
        ("scale", "hf-awq", 4, 3),
    ],
)
def test_killed_anywhere_and_run_again_is_as_if_nothing_had_been(
    tmp_path: Path, work: str, model: str, every: int, at_least: int
) -> None:
    script = Path(__file__).with_name("crash_points.py")

    done = subprocess.run(
        [sys.executable, str(script), work, str(MODELS / model), str(tmp_path), str(every)],
        capture_output=True,
        text=True,
        timeout=110,
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= at_least


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: kill -9 loses nothing that a disk would have kept."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


@pytest.mark.parametrize(
    ("target", "model", "points"),
    [
        ("local", "hf-awq", 10),
        ("huggingface", "hf-awq", 10),
        ("openxlab", "workspace-0.4.2-awq", 4),
        pytest.param("local", "hf-awq", 100, marks=[pytest.mark.services, pytest.mark.timeout(620)]),
        pytest.param("huggingface", "hf-awq", 100, marks=[pytest.mark.services, pytest.mark.timeout(620)]),
        pytest.param(
            "openxlab", "workspace-0.4.2-awq", 100, marks=[pytest.mark.services, pytest.mark.timeout(620)]
        ),
    ],
)  # fmt: skip
def test_whoever_reads_while_publishers_are_killed_sees_the_old_release_or_the_new_one(
    quick_disk: Path, target: str, model: str, points: int
) -> None:
    if target == "openxlab":
        require("git-lfs")
    script = Path(__file__).with_name("kill_publish.py")

    done = subprocess.run(
        [sys.executable, str(script), target, str(MODELS / model), str(quick_disk), str(points)],
        capture_output=True,
        text=True,
        timeout=110 if points < 100 else 600,
    )

    assert done.returncode == 0, done.stderr
    killed, looks = map(int, done.stdout.split())
    assert killed == points
    assert looks > 5 * points
