"""Hugging Face: a model repository by one commit, and a Space that runs the app."""

from deploytk.publish.targets.huggingface.target import HuggingFace

__all__ = ["HuggingFace"]
