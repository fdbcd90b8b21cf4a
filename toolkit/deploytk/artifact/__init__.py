"""Stage 1: model directory -> Artifact."""

from deploytk.artifact.value import Artifact, KvPolicy, Layout, ModelFile, Problem, Rope, WeightFormat

__all__ = ["Artifact", "KvPolicy", "Layout", "ModelFile", "Problem", "Rope", "WeightFormat"]
