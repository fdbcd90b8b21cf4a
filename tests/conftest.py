"""Fixtures that several tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "models"


@pytest.fixture
def model_copy(tmp_path: Path) -> Callable[[str], Path]:
    """Copies one of the tiny models to a place where it can be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(MODELS / name, tmp_path / name))

    return copy
