"""What is known to be weak in the LMDeploy that serves a model, said of that model."""

from __future__ import annotations

from collections.abc import Iterator

from deploytk import lmdeploy
from deploytk.artifact.value import Artifact, Problem

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def present(artifact: Artifact) -> frozenset[lmdeploy.Need]:
    """What the model has that some advisories need."""
    found: set[lmdeploy.Need] = set()
    if artifact.layout == "huggingface" and any(file.path.endswith(".py") for file in artifact.files):
        found.add("code")
    if artifact.layout == "huggingface" and any(f.is_weight and f.path.endswith(_PICKLES) for f in artifact.files):
        found.add("pickles")
    if artifact.tensors.tower_bytes:
        found.add("images")
    return frozenset(found)


def security_problems(artifact: Artifact, version: str | None) -> Iterator[Problem]:
    """The advisories that LMDeploy `version` has for this model: those that the app shields from in one, the others."""
    found = lmdeploy.advisories_of(version, present(artifact)) if version else ()
    shielded = [advisory for advisory in found if advisory.is_shielded]
    if shielded:
        names = ", ".join(
            advisory.id + ("" if advisory.fixed else " (not fixed in any release)") for advisory in shielded
        )
        hint = (
            "the app shields from it: it passes three routes and keeps the engine on 127.0.0.1; keep bare servers there"
        )
        yield Problem("info", f"LMDeploy {version} has the advisories {names}", hint)
    for advisory in found:
        if not advisory.is_shielded:
            whose = (
                f"LMDeploy {version}"
                if advisory.package == "lmdeploy"
                else f"LMDeploy {version} with its {advisory.package}"
            )
            yield Problem("warning", f"{advisory.id} ({whose}): {advisory.what}", advisory.why)
