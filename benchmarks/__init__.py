"""One module per claim about speed or memory, each a program: `python -m benchmarks.NAME [--short]`, from the checkout.

All of them: `make bench`; in a short form that only has to finish: `make bench-short`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(ROOT / "tests"))  # its servers and small models
