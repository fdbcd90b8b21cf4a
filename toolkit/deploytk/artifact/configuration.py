"""config.json as transformers would make of it: the language model's sizes under one set of names, gaps filled in.

Public files leave out what their class has by default (gemma-3 names neither heads nor vocabulary), nest the language
model under several keys, and use older names. configurations.json has the classes' own rules, written by
tools/configurations.py from transformers; nothing of transformers is imported here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploytk.artifact.text_formats import Reader, read_json
from deploytk.base.errors import ArtifactError

# Where models whose code is not in transformers keep their language model.
_TEXT_PATHS = ("text_config", "llm_config", "language_config", "thinker_config.text_config", "lm_config", "llm")

# Names of sizes in configurations whose type is not in the table.
_OTHER_NAMES = {
    "hidden_size": ("n_embd", "d_model", "dim", "hidden_dim"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "num_heads", "n_heads"),
    "num_key_value_heads": (
        "multi_query_group_num",
        "num_attention_groups",
        "num_query_groups",
        "num_multi_query_heads",
        "num_kv_heads",
        "n_kv_heads",
        "n_head_kv",
        "num_heads_kv",
    ),
    "head_dim": ("kv_channels", "attention_head_dim", "head_size", "d_head"),
    "vocab_size": ("padded_vocab_size", "n_vocab"),
    "intermediate_size": ("ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "feed_forward_size"),
}

# Beside a nested language model these say nothing about it.
_SIZES = frozenset((*_OTHER_NAMES, *(name for names in _OTHER_NAMES.values() for name in names), "layer_types"))


@dataclass(frozen=True, slots=True)
class Configuration:
    """A config.json and the language model in it."""

    top: dict[str, Any]  # as it is in the file
    text: Reader  # of the language model, sizes under transformers' names, defaults filled in
    stated: frozenset[str]  # under which of those names the file or its class has a value
    architecture: str  # of the whole model
    text_architecture: str | None  # of the language model inside another, where it is named
    model_type: str

    def states(self, name: str) -> bool:
        """Whether code that asks for a size under that very name finds one."""
        return name in self.stated


def read_configuration(path: Path) -> Configuration:
    """The configuration at `path`; ArtifactError where no architecture is named."""
    top = read_json(path)
    text, row = _text_part(top)
    names = row.get("names", {})
    found = {name: value for name, value in _renamed(text, names).items() if value is not None}
    beside = top if text is top or not row else {key: value for key, value in top.items() if key not in _SIZES}
    defaults = _defaults(row, text)
    values = {**defaults, **beside, **text, **found}
    _one_key_value_head(values)
    return Configuration(
        top=top,
        text=Reader(path, values),
        stated=frozenset(defaults) | {name for name, value in text.items() if value is not None},
        architecture=_architecture(top, path),
        text_architecture=_text_architecture(text, top),
        model_type=_type(top),
    )


def text_parts(top: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The whole configuration and its language model, where that is a part of its own."""
    text, _ = _text_part(top)
    return (top,) if text is top else (top, text)


@cache
def _table() -> dict[str, dict[str, Any]]:
    types: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("configurations.json").read_text())["types"]
    return types


def _type(part: dict[str, Any]) -> str:
    model_type = part.get("model_type")
    return model_type if isinstance(model_type, str) else ""


def _text_part(top: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The part that describes the language model, and the row of its class; an empty one where that is not known."""
    row = _table().get(_type(top), {})
    paths = (row["text"], *_TEXT_PATHS) if "text" in row else _TEXT_PATHS
    text = next((part for part in (_at(top, path) for path in paths) if part is not None), top)
    if text is top:
        # Before transformers 4.52 the sizes of Qwen2-VL and others were at the top.
        return top, _table().get(row.get("text_type", ""), row)
    return text, _table().get(_type(text) or row.get("text_type", ""), {})


def _at(part: dict[str, Any], path: str) -> dict[str, Any] | None:
    found: Any = part
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _renamed(text: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Our name -> the value that the file has under it, under the class's own name, or under another known one."""
    found = {}
    for name in {*names, *_OTHER_NAMES, *text}:
        candidates = [names[name]] if name in names else []
        candidates += [name, *_OTHER_NAMES.get(name, ())]
        found[name] = next((text[key] for key in candidates if text.get(key) is not None), None)
    return found


def _defaults(row: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    defaults = dict(row.get("defaults", {}))
    if "num_key_value_heads" in text and text["num_key_value_heads"] is None:
        defaults.pop("num_key_value_heads", None)  # null means: as many as heads
    if "head_dim" in text and text["head_dim"] is None:
        defaults.pop("head_dim", None)
    return defaults


def _one_key_value_head(values: dict[str, Any]) -> None:
    """Switches of old models that decide how many key/value heads there are."""
    attention = values.get("attn_config")  # DBRX
    if isinstance(attention, dict) and "kv_n_heads" in attention:
        values["num_key_value_heads"] = attention["kv_n_heads"]
    if values.get("multi_query_attention") is False:  # ChatGLM
        values["num_key_value_heads"] = None
    if values.get("model_type") == "falcon" and not values.get("new_decoder_architecture"):
        values["num_key_value_heads"] = 1 if values.get("multi_query", True) else None
    if values.get("model_type") == "gpt_bigcode":
        values["num_key_value_heads"] = 1 if values.get("multi_query", True) else None


def _architecture(top: dict[str, Any], path: Path) -> str:
    """What LMDeploy calls the model: architectures[0], else the class that auto_map names (archs.py)."""
    names = top.get("architectures")
    if isinstance(names, list) and names:
        return Reader(path, {"architectures": names[0]}).name("architectures")
    for part in (top, top.get("language_config")):
        classes = part.get("auto_map") if isinstance(part, dict) else None
        found = classes.get("AutoModelForCausalLM") if isinstance(classes, dict) else None
        if isinstance(found, str):
            return Reader(path, {"auto_map": found.rpartition(".")[2]}).name("auto_map")
    raise ArtifactError(f"{path} names no architecture", hint='it must have architectures: ["...ForCausalLM"]')


def _text_architecture(text: dict[str, Any], top: dict[str, Any]) -> str | None:
    names = text.get("architectures") if text is not top else None
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
