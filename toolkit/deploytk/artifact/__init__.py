"""Stage 1: model directory -> Artifact."""

from deploytk.artifact.attention import Attention, CompressedAttention, LatentAttention
from deploytk.artifact.chat_templates import ToolFormat, read_templates
from deploytk.artifact.contents import refuse_contents
from deploytk.artifact.facts import stated_quantization
from deploytk.artifact.quantization import other_groups
from deploytk.artifact.quantized_by import COST_SHOWS, RECORD, cost_in_words, recordable
from deploytk.artifact.quantized_by import FORMAT as RECORD_FORMAT
from deploytk.artifact.read import left_out, read_artifact
from deploytk.artifact.remote_code import names_code
from deploytk.artifact.security import security_problems
from deploytk.artifact.tensor_sums import TensorSums
from deploytk.artifact.value import (
    Artifact,
    CalibrationData,
    KvPolicy,
    Layout,
    ModelFile,
    Problem,
    QuantizationCost,
    QuantizedBy,
    Rope,
    WeightFormat,
)

__all__ = [
    "COST_SHOWS",
    "RECORD",
    "RECORD_FORMAT",
    "Artifact",
    "Attention",
    "CalibrationData",
    "CompressedAttention",
    "KvPolicy",
    "LatentAttention",
    "Layout",
    "ModelFile",
    "Problem",
    "QuantizationCost",
    "QuantizedBy",
    "Rope",
    "TensorSums",
    "ToolFormat",
    "WeightFormat",
    "cost_in_words",
    "left_out",
    "names_code",
    "other_groups",
    "read_artifact",
    "read_templates",
    "recordable",
    "refuse_contents",
    "security_problems",
    "stated_quantization",
]
