"""Images straight into a registry and out of it, without Docker."""

from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import missing_layers, push_image

__all__ = ["missing_layers", "push_image", "read_registry"]
