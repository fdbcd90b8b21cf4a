"""Whether a tag may be released, and what is new in it: python tools/release.py v0.1.0 > notes.md

The tag has to be the version in pyproject.toml, and the newest heading of CHANGELOG.md that version with a date, as in
`## 0.1.0 - 2026-11-27`. Then prints what stands below the heading. Ends with 0, or with 1 and a sentence on stderr.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
_HEADING = re.compile(r"^## +(.+?) *$", re.MULTILINE)


class ReleaseError(ValueError):
    """What has to be done first, in one sentence."""


def notes(tag: str, version: str, changelog: str) -> str:
    """What the changelog says of the version that `tag` names; raises ReleaseError when the three do not agree."""
    if tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, and pyproject.toml has version {version}: the tag has to be v{version}")
    headings = list(_HEADING.finditer(changelog))
    newest = headings[0][1] if headings else "missing"
    if not re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", newest):
        raise ReleaseError(f"the newest heading of CHANGELOG.md is {newest!r}, it has to be {version!r} and a date")
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    text = changelog[headings[0].end() : end].strip()
    if not text:
        raise ReleaseError(f"CHANGELOG.md says nothing of {version}")
    return text


def main(arguments: list[str]) -> int:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        print(notes(arguments[0], version, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))  # noqa: T201
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
