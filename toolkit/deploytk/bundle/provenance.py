"""How a model was quantized, as far as its own files say: nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.artifact import Artifact, QuantizationCost, cost_in_words, stated_quantization
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain

_LARGEST_BYTES = 2**20
_LONGEST = 100
# What quantizers write beside bits and group size. Sources: AutoAWQ, LMDeploy lite, AutoGPTQ, GPTQModel, AutoRound.
_TOLD = (
    ("version", "Kernel format", "内核格式"),
    ("zero_point", "Zero points", "零点"),
    ("sym", "Symmetric", "对称量化"),
    ("desc_act", "Columns by importance (desc_act)", "按重要性排列（desc_act）"),
    ("damp_percent", "Damping", "阻尼"),
    ("true_sequential", "Layer by layer (true_sequential)", "逐层（true_sequential）"),
    ("iters", "Iterations", "迭代次数"),
    ("nsamples", "Calibration samples", "校准样本数"),
    ("seqlen", "Tokens per sample", "每个样本的 token 数"),
    ("quantizer", "Tool", "工具"),
    ("autoround_version", "AutoRound", "AutoRound"),
    ("modules_to_not_convert", "Not quantized", "未量化的部分"),
)
_CHINESE = {"yes": "是", "no": "否"}
_DATA = ("dataset", "calibration_dataset", "calib_dataset")


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that is known of a quantization, in both languages of a card."""

    name: str
    name_zh: str
    value: str
    value_zh: str


def provenance_of(artifact: Artifact) -> tuple[Told, ...]:
    """What the model's files say: who, how, on what data, and what it cost; () for weights that are not quantized."""
    if not artifact.is_quantized:
        return ()
    stated = stated_quantization(artifact.config)
    found: dict[str, Any] = {**_own_file(artifact.root), **(stated if isinstance(stated, dict) else {})}
    found |= found["meta"] if isinstance(found.get("meta"), dict) else {}
    told = [
        Told(name, chinese, text, _CHINESE.get(text, text))
        for key, name, chinese in _TOLD
        if (text := _text(found.get(key)))
    ]
    by = artifact.quantized_by
    if by:
        tool = " ".join((by.tool, by.tool_version, *(f"({argument})" for argument in by.arguments)))
        told.append(Told("Quantized by", "量化工具", f"deploytk quantize, {tool}", f"deploytk quantize，{tool}"))
    return (*told, _data(artifact, found), _loss(by.cost if by else None))


def _data(artifact: Artifact, stated: Mapping[str, Any]) -> Told:
    by = artifact.quantized_by
    if by and by.calibration.windows:
        data = by.calibration
        name, chinese = ("the texts of deploytk", "deploytk 自带文本") if data.name == "deploytk" else (data.name,) * 2
        size = f"{data.windows} × {data.window_tokens} tokens"
        return Told("Calibrated on", "校准数据", f"{name}, {size}, {data.digest}", f"{chinese}，{size}，{data.digest}")
    if by:
        return Told("Calibrated on", "校准数据", "nothing: the weights alone", "无：只看权重")
    text = next((text for key in _DATA if (text := _text(stated.get(key)))), None)
    missing = ("not recorded in the model's files", "模型文件中没有记录")
    return Told("Calibrated on", "校准数据", *((text, text) if text else missing))


def _loss(cost: QuantizationCost | None) -> Told:
    """The one place of a card for what quantization cost. It never says that it cost nothing."""
    name, chinese = "Measured loss", "实测损失"
    if cost is None:
        return Told(
            name, chinese, "none was measured: compare its answers with the original's", "没有实测：请与原模型对比"
        )
    figures = f"{cost.perplexity_before:.3f} → {cost.perplexity_after:.3f} ({cost.perplexity_increase:+.2f} %)"
    same, text = f"{cost.top1_agreement:.1%}", f"{cost.windows} × {cost.window_tokens} tokens"
    golden_zh = f"；已知答案 {cost.golden_after}/{cost.golden}，量化前 {cost.golden_before}" if cost.golden else ""
    return Told(
        name,
        chinese,
        f"{cost_in_words(cost)}; says nothing of long answers",
        f"困惑度 {figures}，KL {cost.kl_mean:.4f} nats，最可能的 token 相同 {same}，{text}{golden_zh}；不说明长回答",
    )


def _own_file(root: Path) -> Mapping[str, Any]:
    try:
        found = parse_plain(read_bounded(root / "quantize_config.json", _LARGEST_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float, str)):
        return " ".join(str(value).split())[:_LONGEST] or None
    if isinstance(value, list) and value and all(isinstance(one, (str, int)) for one in value):
        return ", ".join(" ".join(str(one).split()) for one in value)[:_LONGEST]
    return None
