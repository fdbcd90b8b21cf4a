"""What runs in the environment of a quantizer: imports nothing of deploytk, and is started by start.py alone."""
