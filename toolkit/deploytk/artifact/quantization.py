"""What `quantization_config` in a config.json says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.artifact.configuration import text_parts
from deploytk.artifact.text_formats import Reader
from deploytk.artifact.value import Problem, WeightFormat
from deploytk.base.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Quantization:
    """How weights are quantized; what LMDeploy takes of it is for lmdeploy.support to say."""

    weight_format: WeightFormat
    bits: int
    group_size: int | None
    problems: tuple[Problem, ...] = ()


_SERVED = "LMDeploy serves awq, gptq, fp8, mxfp4, compressed-tensors and smooth_quant"
NOT_QUANTIZED = Quantization("none", 16, None)


def read_quantization(path: Path, config: dict[str, Any]) -> Quantization | None:
    """The quantization that `config` (parsed from `path`) states at its top or in its text part; None for none."""
    stated = next((part["quantization_config"] for part in text_parts(config) if part.get("quantization_config")), None)
    if isinstance(config.get("quantization"), dict) and not _has_method(stated):
        raise ArtifactError(f"{path}: weights are quantized with MLX", hint=_SERVED)
    if stated is None:
        return None
    if not isinstance(stated, dict):
        raise ArtifactError(f"{path}: quantization_config is not a mapping", hint="take config.json from the model")
    reader = Reader(path, stated)
    method = reader.name("quant_method").lower()
    if method in ("awq", "gptq"):
        bits, group_size = reader.whole("bits", 4, largest=16), reader.whole("group_size", 128, smallest=-1)
        weight_format: WeightFormat = "awq" if method == "awq" else "gptq"
        return Quantization(weight_format, bits, group_size)
    if method == "fp8":
        return Quantization("fp8", 8, None)
    if method == "mxfp4":
        return Quantization("mxfp4", 4, 32)
    if method == "smooth_quant":
        return Quantization("smooth_quant", 8, None)
    if method == "compressed-tensors":
        return _compressed_tensors(path, reader)
    raise ArtifactError(
        f"{path}: weights are quantized with {method or 'an unnamed method'}",
        hint=_SERVED,
    )


def _has_method(stated: object) -> bool:
    return isinstance(stated, dict) and "quant_method" in stated


def _compressed_tensors(path: Path, reader: Reader) -> Quantization:
    groups = reader.values.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
    weights = first.get("weights") if isinstance(first, dict) else None
    if not isinstance(weights, dict):
        raise reader.wrong("config_groups", "groups that say how weights are quantized")
    of_weights = Reader(path, weights)
    bits = of_weights.whole("num_bits", 4, largest=16)
    group_size = of_weights.whole("group_size", 128, smallest=-1)
    return Quantization("compressed-tensors", bits, group_size, tuple(_unread(groups)))


def other_groups(stated: object) -> tuple[str, ...]:
    """Names of the groups that say something else than the one that LMDeploy reads: its group_0, or the first."""
    groups = stated.get("config_groups") if isinstance(stated, dict) else None
    if not isinstance(groups, dict) or len(groups) < 2:
        return ()
    read = "group_0" if "group_0" in groups else next(iter(groups))
    return tuple(
        str(name) for name, group in groups.items() if name != read and _scheme(group) != _scheme(groups[read])
    )


def _scheme(group: object) -> object:
    """What a group says of its weights; which layers are its targets is another thing."""
    return (group.get("weights"), group.get("format")) if isinstance(group, dict) else group


def _unread(groups: object) -> Iterator[Problem]:
    others = other_groups({"config_groups": groups})
    if others:
        named = ", ".join(name if name.isidentifier() else "another" for name in others[:3])
        message = (
            f"config_groups has {named} with another scheme: LMDeploy reads one group, and misreads the others' layers"
        )
        yield Problem("warning", message, "quantize the model again with one scheme: deploytk quantize")
