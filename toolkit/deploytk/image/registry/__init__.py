"""Images straight into a registry and out of it, without Docker."""
