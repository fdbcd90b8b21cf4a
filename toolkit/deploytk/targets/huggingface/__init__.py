"""Hugging Face: a model repository by one commit, and a Space that runs the app."""

from deploytk.targets.huggingface.target import HuggingFace

__all__ = ["HuggingFace"]
