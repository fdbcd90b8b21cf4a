"""What holds for the one run of this process, and how a command prints its value."""

from __future__ import annotations

from typing import cast

import typer

from deploytk.base.json import plain, to_json
from deploytk.base.progress import Progress, Silent
from deploytk.base.settings import Settings


class Session:
    """What the options before the command set, for the one run of this process."""

    settings = Settings()
    progress: Progress = Silent()


def show(value: object, as_json: bool, show: str, leave_out: tuple[str, ...] = ()) -> None:
    """Print `value` as JSON, or by the function `show` of deploytk.display, which is loaded only then."""
    if not as_json:
        from deploytk import display

        getattr(display, show)(value)
        return
    fields = cast(dict[str, object], plain(value))
    kept = {name: item for name, item in fields.items() if name not in leave_out}
    typer.echo(to_json(kept, indent=2))
