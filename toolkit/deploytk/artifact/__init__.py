"""Stage 1: model directory -> Artifact."""

from deploytk.artifact.attention import Attention, CompressedAttention, LatentAttention
from deploytk.artifact.chat_templates import ToolFormat, read_templates
from deploytk.artifact.contents import refuse_contents
from deploytk.artifact.read import read_artifact
from deploytk.artifact.remote_code import names_code
from deploytk.artifact.security import security_problems
from deploytk.artifact.tensor_sums import TensorSums
from deploytk.artifact.value import Artifact, KvPolicy, Layout, ModelFile, Problem, Rope, WeightFormat

__all__ = [
    "Artifact",
    "Attention",
    "CompressedAttention",
    "KvPolicy",
    "LatentAttention",
    "Layout",
    "ModelFile",
    "Problem",
    "Rope",
    "TensorSums",
    "ToolFormat",
    "WeightFormat",
    "names_code",
    "read_artifact",
    "read_templates",
    "refuse_contents",
    "security_problems",
]
