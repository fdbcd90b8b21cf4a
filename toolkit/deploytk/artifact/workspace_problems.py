"""What can be wrong with a workspace: LMDeploy itself only warns about a weight file that it cannot open."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from deploytk import lmdeploy
from deploytk.artifact.problems import few
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem
from deploytk.artifact.workspace_files import WorkspaceShape, expected_weights

_MODERNIZE = "`deploytk modernize WORKSPACE -o DIR` writes a directory that current LMDeploy loads"
_ONE_CONVERSION = "take the configuration and the weights from one conversion"

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
    messages = [f"{name} is of rank {_rank(name)}, but the configuration says {shape.ranks} rank(s)" for name in ranked]
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


def template_problems(chat_template: str | None) -> Iterator[Problem]:
    """Without a name LMDeploy guesses the chat template from the directory's."""
    if chat_template is None:
        message = "the configuration names no chat template"
        yield Problem("warning", message, "pass --chat-template to LMDeploy, or chat answers may be wrong")


def _rank(name: str) -> int:
    match = _RANK.search(name)
    return int(match[1]) if match else -1


def _is_shard(entry: FileEntry) -> bool:
    return entry.name.endswith((".safetensors", ".bin")) and not entry.is_leftover
