"""Shows the summary of a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploytk.display.rows import plain_line

if TYPE_CHECKING:
    from deploytk.workflow import Summary


def show_summary(summary: Summary) -> None:
    """As it stands: it is Markdown for a page elsewhere."""
    from deploytk.workflow import markdown

    for line in markdown(summary).splitlines():
        plain_line(line)
