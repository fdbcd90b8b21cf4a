"""What one may ask of OpenXLab beside what one may ask of every target."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from deploytk.base.errors import UsageError
from deploytk.publish.options import WAIT_S, Option, Wait


@dataclass(frozen=True, slots=True)
class OpenXLabOptions:
    app: Annotated[bool, Option("Write the app's repository as well, BUNDLE.app.")] = False
    app_remote: Annotated[str | None, Option("The git repository to push the app to.", metavar="URL")] = None
    app_url: Annotated[str | None, Option("Where the app runs, once you have created it.", metavar="URL")] = None
    wait: Wait = None
    via: Annotated[
        Literal["git", "sdk"] | None,
        Option("git by default; sdk is the hub's own package, for bundles without directories."),
    ] = None

    def __post_init__(self) -> None:
        if self.wait is not None and not self.app_url:
            raise UsageError(
                "--wait does nothing without --app-url: only a person can create the app",
                hint="leave it out, or say with --app-url where the app will answer",
            )
        if self.via == "sdk" and self.has_app:
            raise UsageError("--via sdk sends the model alone, no app", hint="leave --via or the app's options out")
        if self.app_remote and re.search(r"//[^/@]*:[^/@]*@", self.app_remote):
            raise UsageError(
                "--app-remote holds a password",
                hint="use an ssh address, or git's credential helper, without the password",
            )

    @property
    def has_app(self) -> bool:
        return self.app or self.app_remote is not None or self.app_url is not None

    @property
    def wait_s(self) -> float:
        return WAIT_S if self.wait is None else self.wait
