"""Finds the directories that are shipped beside the code: templates, images, and the tiny models of `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_IN_CHECKOUT = {"templates": "templates", "images": "images", "models": "tests/models"}


def shipped(name: Literal["templates", "images", "models"]) -> Path:
    """The directory `name`, in an installed wheel (inside the package) or in a checkout (at its root)."""
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parents[1] / _IN_CHECKOUT[name]
