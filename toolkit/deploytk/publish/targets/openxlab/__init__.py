"""OpenXLab: the model by git and git-lfs, the app as a repository of its own, both verified."""

from deploytk.publish.targets.openxlab.target import OpenXLab

__all__ = ["OpenXLab"]
