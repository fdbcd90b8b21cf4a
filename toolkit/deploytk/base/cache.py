"""The places of the user's own that deploytk keeps something in."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """What can be made again: DEPLOYTK_CACHE_DIR, or the user's cache; it need not exist yet."""
    return Path(os.environ.get("DEPLOYTK_CACHE_DIR") or platformdirs.user_cache_path("deploytk"))


def data_directory() -> Path:
    """What cannot: DEPLOYTK_DATA_DIR, or the user's data; it need not exist yet."""
    return Path(os.environ.get("DEPLOYTK_DATA_DIR") or platformdirs.user_data_path("deploytk"))
