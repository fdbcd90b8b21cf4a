"""What can be wrong with a workspace: LMDeploy itself only warns about a weight file that it cannot open."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploytk import lmdeploy
from deploytk.artifact.problems import few
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem
from deploytk.artifact.workspace_files import WorkspaceShape, expected_weights

_MODERNIZE = "`deploytk modernize WORKSPACE -o DIR` writes a directory that current LMDeploy loads"
_ONE_CONVERSION = "take the configuration and the weights from one conversion"

# What they are called that also see: the converter took their language model alone.
_SEES = re.compile(
    r"Llava|MiniGemini|InternVL|VLChat|Qwen\w*VL|QWenVL|MiniCPMV|XComposer2|MultiModality|CogVLM|Molmo|Phi3V"
)

# Chat templates of workspaces that do not name their architecture (up to 0.4.2), by the first letters of the name.
# Source: the converter's own table, turbomind/deploy/converter.py at those tags.
TEMPLATE_FAMILIES = (
    ("internlm2", "InternLM2ForCausalLM"),
    ("internlm", "InternLMForCausalLM"),
    ("puyu", "InternLMForCausalLM"),
    ("baichuan", "BaichuanForCausalLM"),
    ("qwen1.5", "Qwen2ForCausalLM"),
    ("qwen-", "QWenLMHeadModel"),
)

_LARGEST_SCALES_BYTES = 16  # 4 float32

_RANK = re.compile(r"\.(\d{1,9})\.(?:weight|bias|qweight|scales|zeros|scales_zeros)$")

# Not among what every server needs: scales of an int8 cache that is switched off, and adapters (plora).
_OPTIONAL = (".past_kv_scale.", ".lora_a.", ".lora_b.")


def weight_problems(found: Mapping[str, int], shape: WorkspaceShape, weight_type: str) -> Iterator[Problem]:
    """Where the weight files `found` (name -> bytes) are not those of `shape`."""
    if weight_type == "fp8" or shape.has_latent_attention:
        kind = "fp8 weights" if weight_type == "fp8" else "multi-head latent attention"
        message = f"the sizes of the weight files are not checked: this model has {kind}"
        yield Problem("warning", message, "compare them with those of the original workspace")
        return
    if shape.is_int4 and shape.group_size != 128:
        hint = "quantize again with group size 128: LMDeploy has kernels for that alone"
        yield Problem("error", f"group_size is {shape.group_size}, 128 expected", hint)
        return
    expected = expected_weights(shape)
    hint = "copy the file from the original workspace, or convert the model again"
    missing = [f"{name} is missing, {size} bytes expected" for name, size in expected.items() if name not in found]
    yield from few(missing, "files missing", hint)
    sizes = [
        f"{name} has {found[name]} bytes, {size} expected"
        for name, size in expected.items()
        if found.get(name, size) != size
    ]
    yield from few(sizes, "files with wrong sizes", hint)
    surplus = [name for name in found if name not in expected]
    ranked = [name for name in surplus if _rank(name) >= shape.ranks]
    messages = [
        f"{name} is of rank {_rank(name)}, but the configuration has ranks below {shape.ranks}" for name in ranked
    ]
    yield from few(messages, "files of ranks that the configuration does not have", _ONE_CONVERSION)
    strangers = [
        f"{name} is no weight of this model"
        for name in surplus
        if name not in ranked and not any(part in name for part in _OPTIONAL)
    ]
    yield from few(strangers, "unknown files among the weights", f"remove it, or {_ONE_CONVERSION}", "warning")


def layout_problems(entries: Sequence[FileEntry], configs: Sequence[str]) -> Iterator[Problem]:
    """More than one model in the directory; `configs` are the workspace configurations that are there."""
    if len(configs) > 1:
        message = f"both {configs[0]} and {configs[1]} are here"
        yield Problem("error", message, "remove the one that the weights were not converted with")
    shards = [entry.path for entry in entries if "/" not in entry.path and _is_shard(entry)]
    if shards:
        hint = f"move {shards[0]} or triton_models/ elsewhere, so that only one model is here"
        yield Problem("error", f"both a workspace and Hugging Face weights ({shards[0]}) are here", hint)


def loading_problems(versions: lmdeploy.VersionRange) -> Iterator[Problem]:
    """What current versions of LMDeploy make of the workspace."""
    if versions.pin is None:
        message = "no LMDeploy serves this workspace: 0.8.0-0.9.2 never read its weights, later ones refuse it"
        yield Problem("warning", message, _MODERNIZE)
    else:
        yield Problem(
            "info", f"LMDeploy from {lmdeploy.FIRST_WITHOUT_WORKSPACES} on does not load workspaces", _MODERNIZE
        )


def template_problems(
    key: str, chat_template: str | None, architecture: str | None, versions: lmdeploy.VersionRange
) -> Iterator[Problem]:
    """A chat template that is missing under `key`, that no version has, or that is another model's.

    Without a name LMDeploy guesses the chat template from the directory's.
    """
    if chat_template is None:
        message = "the configuration names no chat template"
        yield Problem("warning", message, "pass --chat-template to LMDeploy, or chat answers may be wrong")
        return
    known = lmdeploy.chat_template_names(versions.pin) if versions.pin else ()
    if known and chat_template not in known:
        near = difflib.get_close_matches(chat_template, known, n=1, cutoff=0) or [known[0]]
        message = f"{key} is {chat_template!r}: LMDeploy {versions.pin} has no such chat template, and does not start"
        yield Problem("warning", message, f"set {key} to one that it has, such as {near[0]}")
    families = [named for start, named in TEMPLATE_FAMILIES if chat_template.lower().startswith(start)]
    if architecture and families and families[0] != architecture and architecture in dict(TEMPLATE_FAMILIES).values():
        message = f"the chat template {chat_template} is not that of {architecture}"
        yield Problem("warning", message, f"chat answers may be wrong: set {key} to the template of that model")


def vision_problems(architecture: str | None) -> Iterator[Problem]:
    """A workspace holds a language model alone, whatever it was converted from."""
    if architecture and _SEES.search(architecture):
        message = f"the workspace was converted from {architecture}, without its vision tower: it does not see images"
        yield Problem("warning", message, "serve the Hugging Face directory of the model to use images")


def kv_scale_problems(root: Path, sizes: Mapping[str, int]) -> Iterator[Problem]:
    """Scales of a static int8 cache that are all zero: calibration failed, and every answer is garbage."""
    scales = [name for name, size in sizes.items() if ".past_kv_scale." in name and 0 < size <= _LARGEST_SCALES_BYTES]
    zero = [name for name in scales if not any((root / name).read_bytes())]
    messages = [f"{name} holds KV scales of zero" for name in zero]
    yield from few(messages, "files with KV scales of zero", "run `lmdeploy lite kv_qparams` again", "warning")


def _rank(name: str) -> int:
    match = _RANK.search(name)
    return int(match[1]) if match else -1


def _is_shard(entry: FileEntry) -> bool:
    return entry.name.endswith((".safetensors", ".bin")) and not entry.is_leftover
