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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="Rewrite the golden files from what is rendered.")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests remember digests in a place of their own."""
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
