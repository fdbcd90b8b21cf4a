"""Reads from LMDeploy's own sources which version serves what, and writes toolkit/deploytk/lmdeploy/support.json."""
