"""One module per claim about speed or memory, each a program: `python -m benchmarks.NAME [--short]`, from the checkout.

All of them: `make bench`; in a short form that only has to finish: `make bench-short`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]  # servers and small models, as the tests have them
