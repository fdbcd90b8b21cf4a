"""What a publish to a container registry is told of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from deploytk.base.errors import UsageError
from deploytk.publish.options import Option

NAME = "oci"


@dataclass(frozen=True, slots=True)
class OciOptions:
    format: Annotated[
        Literal["image", "modelpack"],
        Option("An image that serves the model, or the model alone in CNCF's ModelPack format.", metavar="FORMAT"),
    ] = "image"
    base: Annotated[str | None, Option("A runtime image to use; built by default.", metavar="IMAGE|oci:DIR")] = None

    @property
    def is_modelpack(self) -> bool:
        """Raises UsageError for a base, which no artifact has."""
        if self.format == "modelpack" and self.base:
            raise UsageError("--base does nothing here: an artifact runs on nothing", hint="leave it out")
        return self.format == "modelpack"
