"""Stage 3: Artifact + ServingPlan -> Bundle."""

from deploytk.bundle.golden import bundle_place, read_golden
from deploytk.bundle.manifest import bundle_digest, is_bundle, read_bundle, verify_bundle
from deploytk.bundle.render import export_templates, render_bundle
from deploytk.bundle.value import MANIFEST, Bundle, BundleFile, BundleOptions, Golden

__all__ = [
    "MANIFEST",
    "Bundle",
    "BundleFile",
    "BundleOptions",
    "Golden",
    "bundle_digest",
    "bundle_place",
    "export_templates",
    "is_bundle",
    "read_bundle",
    "read_golden",
    "render_bundle",
    "verify_bundle",
]
