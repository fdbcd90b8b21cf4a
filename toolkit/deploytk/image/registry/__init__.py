"""Images straight into a registry and out of it, without Docker."""

from deploytk.image.registry.connection import Patience
from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import missing_layers, push_image
from deploytk.image.registry.reference import Reference, parse_reference

__all__ = ["Patience", "Reference", "missing_layers", "parse_reference", "push_image", "read_registry"]
