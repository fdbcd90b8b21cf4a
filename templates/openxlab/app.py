"""Start file on OpenXLab: answers on port 7860 at once, and fetches and checks the model meanwhile."""

from __future__ import annotations

import os
import runpy
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("DEPLOYTK_FETCH", shlex.join([sys.executable, str(HERE / "fetch_model.py")]))
runpy.run_path(str(HERE / "deploytk_app.py"), run_name="__main__")
