"""Stage 3: Artifact + ServingPlan -> Bundle."""

from deploytk.bundle.app_files import SHIPPED_APP, code_of, require_own_app, require_trusted_code
from deploytk.bundle.chat_template import require_ending_template
from deploytk.bundle.edited import settle_edits
from deploytk.bundle.edited_there import Edits, edits_there, take_over
from deploytk.bundle.golden import bundle_place, carried_manifest, read_golden
from deploytk.bundle.hub_card import HubCard, shown_on
from deploytk.bundle.manifest import bundle_digest, to_text_of_app
from deploytk.bundle.measured import measured_in, read_measured
from deploytk.bundle.own_card import read_notes
from deploytk.bundle.read import (
    described_bundle,
    is_bundle,
    read_bundle,
    require_taken_contents,
    verify_bundle,
    with_signature,
)
from deploytk.bundle.render import Exported, export_templates, render_bundle
from deploytk.bundle.value import (
    CARDS,
    CHART,
    EDITABLE,
    MANIFEST,
    ROOM,
    SIGNATURE,
    START,
    Bundle,
    BundleFile,
    BundleOptions,
    Chart,
    Golden,
    Manifest,
    Measured,
)
from deploytk.bundle.words import merge_cards

__all__ = [
    "CARDS",
    "CHART",
    "EDITABLE",
    "MANIFEST",
    "ROOM",
    "SHIPPED_APP",
    "SIGNATURE",
    "START",
    "Bundle",
    "BundleFile",
    "BundleOptions",
    "Chart",
    "Edits",
    "Exported",
    "Golden",
    "HubCard",
    "Manifest",
    "Measured",
    "bundle_digest",
    "bundle_place",
    "carried_manifest",
    "code_of",
    "described_bundle",
    "edits_there",
    "export_templates",
    "is_bundle",
    "measured_in",
    "merge_cards",
    "read_bundle",
    "read_golden",
    "read_measured",
    "read_notes",
    "render_bundle",
    "require_ending_template",
    "require_own_app",
    "require_taken_contents",
    "require_trusted_code",
    "settle_edits",
    "shown_on",
    "take_over",
    "to_text_of_app",
    "verify_bundle",
    "with_signature",
]
