"""Starts in the environment of a quantizer: `python start.py JOB.json`. The other modules are loaded by their place."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

_NAME = "deploytk_quantizers"


def main() -> None:
    here = Path(__file__).resolve().parent
    # Beside this file lie modules whose names others look for on the path; Python 3.10 puts it there.
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != str(here)]
    spec = importlib.util.spec_from_file_location(_NAME, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None  # noqa: S101 (the file is there)
    assert spec.loader is not None  # noqa: S101
    package = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    importlib.import_module(f"{_NAME}.job").main(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
