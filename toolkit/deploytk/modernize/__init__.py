"""Writes a legacy workspace as a Hugging Face directory that current LMDeploy and transformers load."""

from deploytk.modernize.write import Modernized, ModernizeOptions, modernize

__all__ = ["ModernizeOptions", "Modernized", "modernize"]
