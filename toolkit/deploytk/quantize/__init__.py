"""Stage 2: a model in 16 bits -> the same in 4 bits that TurboMind loads, and what that cost.

The quantizers are others' (LMDeploy's auto_awq, AutoRound), each in an environment of its own and as a process:
engines/ is what runs there. Nothing of them is imported here.
"""

from deploytk.quantize.calibration import NONE, OWN
from deploytk.quantize.once import quantize_once
from deploytk.quantize.tools import Tool, find_tool, tool_here
from deploytk.quantize.value import (
    ITERATIONS,
    SAMPLES,
    SEQLEN,
    DeviceChoice,
    MemoryUse,
    Method,
    Quantized,
    QuantizeOptions,
    Seconds,
)
from deploytk.quantize.write import quantize

__all__ = [
    "ITERATIONS",
    "NONE",
    "OWN",
    "SAMPLES",
    "SEQLEN",
    "DeviceChoice",
    "MemoryUse",
    "Method",
    "QuantizeOptions",
    "Quantized",
    "Seconds",
    "Tool",
    "find_tool",
    "quantize",
    "quantize_once",
    "tool_here",
]
