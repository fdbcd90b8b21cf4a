"""Where a release can go: one module per target, registered under the entry points `deploytk.targets`."""
