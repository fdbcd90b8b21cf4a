"""ModelScope: the model repository, and its Studio as the app."""

from deploytk.publish.targets.modelscope.target import ModelScope

__all__ = ["ModelScope"]
