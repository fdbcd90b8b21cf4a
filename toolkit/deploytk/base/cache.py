"""The one place where what can be made again is kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """DEPLOYTK_CACHE_DIR, or the user's cache; it need not exist yet."""
    return Path(os.environ.get("DEPLOYTK_CACHE_DIR") or platformdirs.user_cache_path("deploytk"))
