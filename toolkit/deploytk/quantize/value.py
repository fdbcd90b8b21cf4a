"""What is asked of a quantizer, and what it made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploytk.artifact import QuantizedBy
from deploytk.bundle import Golden

Method = Literal["awq", "autoround"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
Device = Literal["cpu", "cuda"]

SAMPLES = 128  # windows; LMDeploy's own default
SEQLEN = 2048
ITERATIONS = 200  # AutoRound's own default


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    method: Method = "awq"
    calibration: str | None = None  # a file or a directory, "none"; None: the set that ships with deploytk
    samples: int = SAMPLES  # windows at most
    seqlen: int = SEQLEN  # tokens of a window
    search_scale: bool = False  # awq: search the smoothing of each layer instead of a fixed one
    iterations: int = ITERATIONS  # autoround: steps for each layer
    device: DeviceChoice = "auto"
    session_len: int | None = None  # the longest session the model is made for; None: as long as before
    python: Path | None = None  # of an environment that has the tool
    trusts_code: bool = False
    measures: bool = True  # what it cost
    measured_text: str | None = None  # a file to measure with, instead of the text that ships with deploytk
    golden: tuple[Golden, ...] = ()
    max_perplexity_increase: float | None = None  # percent


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long the parts of a run took."""

    before: float  # checks, and the model as the tool reads it
    tool: float  # the quantizer, from the start of its process to its end
    after: float  # looking at what it wrote
    measuring: float


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that were predicted, and what the tool took at most; None where it was not seen."""

    predicted_ram: int
    ram: int | None
    predicted_gpu: int | None  # None: on the CPU
    gpu: int | None  # what torch reserved, without the context of CUDA


@dataclass(frozen=True, slots=True)
class Quantized:
    """A directory with 4-bit weights that TurboMind loads."""

    path: Path
    architecture: str
    quantized_by: QuantizedBy
    device: Device
    files: tuple[str, ...]  # sorted
    bytes: int  # all files together
    source_bytes: int  # of the weights before
    is_within_budget: bool | None  # None: there was none
    memory: MemoryUse
    seconds: Seconds
    notes: tuple[str, ...]
