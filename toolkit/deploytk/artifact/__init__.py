"""Stage 1: model directory -> Artifact."""

from deploytk.artifact.read import read_artifact
from deploytk.artifact.value import Artifact, KvPolicy, Layout, ModelFile, Problem, Rope, WeightFormat

__all__ = ["Artifact", "KvPolicy", "Layout", "ModelFile", "Problem", "Rope", "WeightFormat", "read_artifact"]
