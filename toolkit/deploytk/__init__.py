"""deploytk: from a quantized model directory to a published, running, measured deployment."""

__version__ = "0.1.0"
