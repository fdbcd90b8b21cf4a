"""Writes a legacy workspace as a Hugging Face directory that current LMDeploy and transformers load."""

from deploytk.modernize.write import Modernized, modernize

__all__ = ["Modernized", "modernize"]
