"""What is asked of a target: the same of all, and how a target declares options of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints

from deploytk.base.durations import seconds_of

EditedCard = Literal["refuse", "keep", "replace"]


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What every target understands."""

    repo: str | None = None  # OWNER/NAME, or a directory for the target `local`; each target has a default
    is_private: bool = True
    is_mirror: bool = False  # files of others that lie there are deleted
    edited_card: EditedCard = "refuse"  # one that somebody edited there: taken into the bundle, or written over


@dataclass(frozen=True, slots=True)
class Option:
    """How a field of a target's options is written on a command line; name, type and default are the field's own."""

    help: str
    metavar: str | None = None
    parse: Callable[[str], object] | None = None  # from what is typed, where the type does not say it
    is_hidden: bool = False  # not shown by --help


@dataclass(frozen=True, slots=True)
class NoOptions:
    """A target without options of its own."""


def declared(options: type) -> dict[str, Option]:
    """What a dataclass of options declares, by field."""
    hints = get_type_hints(options, include_extras=True)
    return {
        field.name: one
        for field in dataclasses.fields(options)
        for one in getattr(hints[field.name], "__metadata__", ())
        if isinstance(one, Option)
    }


Wait = Annotated[
    float | None,
    Option("How long to wait for the app: 90s, 30m, 1h; 30m by default.", metavar="DURATION", parse=seconds_of),
]
WAIT_S = 1800.0
