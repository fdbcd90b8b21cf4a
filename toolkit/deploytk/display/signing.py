"""Shows what was found out about signatures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from deploytk.base.terminal import console
from deploytk.display.rows import show_rows

if TYPE_CHECKING:
    from deploytk.signing import Verification


def show_verification(found: Verification) -> None:
    for what, paths in (("changed", found.changed), ("missing", found.missing), ("not signed", found.extra)):
        for path in paths:
            console().print(Text(f"{what}: {path}", style="bold red"))
    show_rows(
        [
            ("signed", f"{found.files} files" if found.files else "the image"),
            ("by", found.signed_by),
            *([("image", found.digest)] if found.digest else []),
            *_statements(found),
            ("compared", found.compared),
            ("verified", "yes" if found.verified else "no: it is not what was signed"),
        ]
    )


def _statements(found: Verification) -> Iterator[tuple[str, str]]:
    for one in found.statements:
        yield one.says, one.trouble or "signed, and about this image"
