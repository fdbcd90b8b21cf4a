"""python tools/read_lmdeploy --checkout DIR [--wheel FILE ...] [-o FILE]"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from read_lmdeploy.sources import UnreadableError, find_sources
from read_lmdeploy.table import make_table, to_text

_REPOSITORY = Path(__file__).resolve().parents[2]
_TABLE = _REPOSITORY / "toolkit/deploytk/lmdeploy/support.json"
_PAGE = _REPOSITORY / "docs/models.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help="a clone of LMDeploy with its tags")
    parser.add_argument(
        "--wheel", type=Path, action="append", default=[], help="of a release without a tag; repeatable"
    )
    parser.add_argument("-o", type=Path, default=_TABLE, help="where the table goes")
    options = parser.parse_args()
    try:
        table = make_table(find_sources(options.checkout, options.wheel))
    except UnreadableError as error:
        parser.exit(1, f"{error}\n")
    options.o.write_text(to_text(table), encoding="utf-8")
    if options.o == _TABLE:
        from deploytk.lmdeploy import models_page

        _PAGE.write_text(models_page(), encoding="utf-8")
    return 0


sys.exit(main())
