"""Stage 4: Artifact + ServingPlan -> Bundle."""

from deploytk.bundle.value import Bundle, BundleFile, BundleOptions, Golden

__all__ = ["Bundle", "BundleFile", "BundleOptions", "Golden"]
