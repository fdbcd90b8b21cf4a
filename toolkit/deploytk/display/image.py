"""Shows an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from deploytk.base.terminal import console
from deploytk.display.rows import show_rows
from deploytk.hardware.catalogue import MIB

if TYPE_CHECKING:
    from deploytk.image.value import Image


def show_image(image: Image) -> None:
    table = Table("layer", "kind", "MiB", "", box=None)
    for layer in image.layers:
        was = "there already" if layer.reused else "sent"
        table.add_row(layer.digest.removeprefix("sha256:")[:12], layer.kind, f"{layer.size / MIB:,.1f}", was)
    console().print(table)
    where = {"daemon": "in Docker", "registry": "in the registry"}.get(image.output, f"in {image.output}")
    show_rows(
        [
            ("image", f"{image.tag}, {where}"),
            ("image ID", image.image_id),
            ("digest", image.digest),
            ("sent", f"{image.sent_bytes / MIB:,.1f} MiB in {image.seconds:.1f} s"),
        ]
    )
