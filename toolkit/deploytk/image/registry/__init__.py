"""Images straight into a registry and out of it, without Docker."""

from deploytk.image.registry.pull import read_registry
from deploytk.image.registry.push import missing_layers, push_image, require_own_tag
from deploytk.image.registry.tag import TAKE_OVER

__all__ = ["TAKE_OVER", "missing_layers", "push_image", "read_registry", "require_own_tag"]
