"""Which LMDeploy serves which architecture and weight format, by engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deploytk.lmdeploy.versions import NEWEST, LmdeployEngine, VersionRange, age


@dataclass(frozen=True, slots=True)
class _Support:
    """First and last version per engine; None where the engine never had it."""

    turbomind: tuple[str, str] | None
    pytorch: tuple[str, str] | None


def _support(turbomind: str, pytorch: str = "0.6.0-") -> _Support:
    def borders(text: str) -> tuple[str, str] | None:
        first, _, last = text.partition("-")
        return (first, last or NEWEST) if first else None

    return _Support(borders(turbomind), borders(pytorch))


# The gap that TurboMind has for Qwen2-VL (0.9.2-0.13.0, then 0.16.0) is taken at its end.
ARCHITECTURES = {
    "BaiChuanForCausalLM": _support("0.0.10-0.13.0", "0.15.0-"),
    "BaichuanForCausalLM": _support("0.0.10-0.13.0"),
    "ChatGLMForConditionalGeneration": _support("0.5.2-0.13.0"),
    "ChatGLMModel": _support("0.5.0-0.13.0", ""),
    "CogVLMForCausalLM": _support(""),
    "DbrxForCausalLM": _support("", "0.6.0-0.7.3"),
    "DeepseekForCausalLM": _support(""),
    "DeepseekV2ForCausalLM": _support("0.6.4-0.13.0"),
    "DeepseekV3ForCausalLM": _support("", "0.7.0-"),
    "DeepseekV32ForCausalLM": _support("", "0.11.1-"),
    "DeepseekV4ForCausalLM": _support("", "0.15.0-"),
    "DeepseekVLV2ForCausalLM": _support("", "0.7.1-"),
    "FalconForCausalLM": _support("", "0.6.0-0.7.3"),
    "Gemma2ForCausalLM": _support(""),
    "Gemma3ForCausalLM": _support("", "0.7.2-"),
    "Gemma3ForConditionalGeneration": _support("", "0.7.2-"),
    "GemmaForCausalLM": _support(""),
    "Glm4ForCausalLM": _support("", "0.10.0-"),
    "Glm4MoeForCausalLM": _support("", "0.10.1-"),
    "Glm4MoeLiteForCausalLM": _support("0.12.2-", "0.12.1-"),
    "Glm4vForConditionalGeneration": _support("", "0.10.0-"),
    "GptOssForCausalLM": _support("0.10.0-", "0.10.0-"),
    "InternLMForCausalLM": _support("0.0.10-0.13.0"),
    "InternLM2ForCausalLM": _support("0.2.0-"),
    "InternLM3ForCausalLM": _support("0.7.0-", "0.7.0-"),
    "InternLMXComposer2ForCausalLM": _support("0.4.0-0.13.0", ""),
    "InternS1ForConditionalGeneration": _support("0.9.2-", "0.9.2-"),
    "InternVLChatModel": _support("0.4.0-"),
    "InternVLForConditionalGeneration": _support("0.9.0-", "0.9.0-"),
    "Llama4ForConditionalGeneration": _support("", "0.7.3-"),
    "LlamaForCausalLM": _support("0.0.10-"),
    "LlavaForConditionalGeneration": _support("0.6.3-0.13.0"),
    "LlavaLlamaForCausalLM": _support("0.4.0-0.13.0", "0.6.0-0.6.4"),
    "LlavaMistralForCausalLM": _support("0.5.0-0.13.0", "0.6.0-0.6.4"),
    "LlavaNextForConditionalGeneration": _support(""),
    "MiniCPM3ForCausalLM": _support("", "0.6.1-"),
    "MiniCPMV": _support("0.5.0-0.13.0", "0.6.4-"),
    "MistralForCausalLM": _support("0.5.0-0.13.0"),
    "MixtralForCausalLM": _support("0.6.2-"),
    "MolmoForCausalLM": _support("0.6.3-0.13.0", ""),
    "MultiModalityCausalLM": _support("0.4.0-0.13.0", ""),
    "Phi3ForCausalLM": _support(""),
    "Phi3VForCausalLM": _support(""),
    "PhiMoEForCausalLM": _support(""),
    "QWenLMHeadModel": _support("0.0.10-0.13.0"),
    "Qwen2ForCausalLM": _support("0.4.0-"),
    "Qwen2MoeForCausalLM": _support("0.6.3-"),
    "Qwen2VLForConditionalGeneration": _support("0.16.0-", "0.6.1-"),
    "Qwen2_5_VLForConditionalGeneration": _support("0.16.0-", "0.7.2-"),
    "Qwen3ForCausalLM": _support("0.7.3-", "0.7.3-"),
    "Qwen3MoeForCausalLM": _support("0.7.3-", "0.7.3-"),
    "Qwen3NextForCausalLM": _support("", "0.11.0-"),
    "Qwen3OmniMoeForConditionalGeneration": _support("", "0.14.0-"),
    "Qwen3VLForConditionalGeneration": _support("", "0.11.0-"),
    "Qwen3VLMoeForConditionalGeneration": _support("", "0.11.0-"),
    "Qwen3_5ForConditionalGeneration": _support("0.12.2-", "0.12.2-"),
    "Qwen3_5MoeForConditionalGeneration": _support("0.12.2-", "0.12.2-"),
    "Starcoder2ForCausalLM": _support(""),
}

# Of HF directories. FP8: 0.16.0 broke GPUs before Hopper (lmdeploy #4871), so it starts again at 0.17.0.
WEIGHT_FORMATS = {
    "none": _support("0.2.0-"),
    "awq": _support("0.2.0-"),
    "gptq": _support("0.6.0-", ""),
    "fp8": _support("0.17.0-", "0.17.0-"),
    "mxfp4": _support("0.10.0-", ""),
    "compressed-tensors": _support("0.12.0-", "0.12.0-"),
    "smooth_quant": _support(""),
}


def versions_for_huggingface(
    architecture: str, weight_format: str, engines: tuple[LmdeployEngine, ...] = ("turbomind", "pytorch")
) -> VersionRange:
    """What can serve a Hugging Face directory: where the ranges of its architecture and its weight format meet.

    The first of `engines` that can.
    """
    model, weights = ARCHITECTURES.get(architecture), WEIGHT_FORMATS[weight_format]
    if model is None:
        return VersionRange(None, None, None, None, f"{architecture} is not in the table of supported architectures")
    for engine in engines:
        by_model, by_weights = getattr(model, engine), getattr(weights, engine)
        if not by_model or not by_weights:
            continue
        first = max(by_model[0], by_weights[0], key=age)
        last = min(by_model[1], by_weights[1], key=age)
        if age(first) <= age(last):
            weights_name = "unquantized weights" if weight_format == "none" else weight_format
            engine_name = {"turbomind": "TurboMind", "pytorch": "the PyTorch engine"}[engine]
            reason = f"{engine_name} serves {architecture} {_span(by_model)} and {weights_name} {_span(by_weights)}"
            return VersionRange(first, last, last, engine, reason)
    reason = f"no engine of LMDeploy serves {architecture} with {weight_format} weights"
    return VersionRange(None, None, None, None, reason)


def _span(borders: tuple[str, str]) -> str:
    first, last = borders
    return f"from {first}" if last == NEWEST else f"from {first} to {last}"


def compatibility() -> Iterator[tuple[str, str, str]]:
    """A table for people: architecture, what serves it with TurboMind, what with the PyTorch engine."""
    for name, support in ARCHITECTURES.items():
        turbomind, pytorch = ("-" if span is None else _span(span) for span in (support.turbomind, support.pytorch))
        yield name, turbomind, pytorch
