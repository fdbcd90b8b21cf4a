"""What one may ask of Hugging Face beside what one may ask of every target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from deploytk.base.errors import UsageError
from deploytk.publish.options import WAIT_S, EditedCard, Option, PublishOptions, Wait

AppSdk = Literal["docker", "gradio"]


@dataclass(frozen=True, slots=True)
class SpaceRequest:
    """What is asked of the Space."""

    sdk: AppSdk
    hardware: str | None  # what it runs on, "t4-small"; None leaves it as it is
    wait_s: float  # how long to wait until it runs
    is_private: bool
    is_mirror: bool  # files of others that lie there are deleted
    edited_card: EditedCard  # what becomes of a README.md that somebody edited there


@dataclass(frozen=True, slots=True)
class HuggingFaceOptions:
    app: Annotated[bool, Option("Create or update the Space OWNER/NAME-app as well.")] = False
    app_sdk: Annotated[
        AppSdk | None, Option("What runs the Space: docker by default; gradio needs LMDeploy 0.10 or later.")
    ] = None
    app_hardware: Annotated[
        str | None, Option("What the Space runs on, such as t4-small; costs money.", metavar="NAME")
    ] = None
    wait: Wait = None

    def __post_init__(self) -> None:
        if self.wait is not None and not self.has_app:
            raise UsageError("--wait does nothing without an app to wait for", hint="add --app, or leave --wait out")

    @property
    def has_app(self) -> bool:
        return self.app or self.app_sdk is not None or self.app_hardware is not None

    def space(self, options: PublishOptions) -> SpaceRequest | None:
        """None when no Space is asked for."""
        if not self.has_app:
            return None
        return SpaceRequest(
            sdk=self.app_sdk or "docker",
            hardware=self.app_hardware,
            wait_s=WAIT_S if self.wait is None else self.wait,
            is_private=options.is_private,
            is_mirror=options.is_mirror,
            edited_card=options.edited_card,
        )
