"""ModelFacts -> the LMDeploy versions that serve them."""

from __future__ import annotations

from deploytk.lmdeploy.architectures import WEIGHT_FORMATS, versions_for_huggingface
from deploytk.lmdeploy.facts import ModelFacts
from deploytk.lmdeploy.versions import LmdeployEngine, VersionRange


def support(facts: ModelFacts, engines: tuple[LmdeployEngine, ...] = ("turbomind", "pytorch")) -> VersionRange:
    """What serves a Hugging Face directory: the newest run of versions of the first of `engines` that does.

    Every version between its borders serves it. All None, with the reason, where none does.
    """
    method = facts.quantization.method
    if method not in WEIGHT_FORMATS:
        return VersionRange(None, None, None, None, f"no engine of LMDeploy serves weights quantized with {method}")
    return versions_for_huggingface(facts.architecture, method, engines)
