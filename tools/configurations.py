"""Writes toolkit/deploytk/artifact/configurations.json: what transformers' configuration classes fill in.

python tools/configurations.py

For every type of model that generates text: where its language model is described (`text`, and of which `text_type`),
which of our names the class has under another (`names`), and the sizes that it takes where a config.json leaves them
out (`defaults`; a size that follows from others is left out). Types whose code is not in transformers come from
tools/remote_configurations.json, with their source.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "toolkit/deploytk/artifact/configurations.json"
REMOTE = Path(__file__).with_name("remote_configurations.json")

SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "global_head_dim",
    "num_global_key_value_heads",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "sliding_window",
    "use_sliding_window",
    "num_kv_shared_layers",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "index_head_dim",
    "v_head_dim",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
)


def model_types() -> list[str]:
    """Every type that generates text, and the types of the language models inside them."""
    from transformers.models.auto import modeling_auto as auto

    maps = (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )
    return sorted({model_type for names in maps for model_type in names})


def rows() -> dict[str, dict[str, Any]]:
    """Type -> row, of all that transformers knows."""
    from transformers import CONFIG_MAPPING

    found: dict[str, dict[str, Any]] = {}
    waiting = model_types()
    while waiting:
        model_type = waiting.pop()
        if model_type in found or model_type not in CONFIG_MAPPING:
            continue
        row = row_of(CONFIG_MAPPING[model_type])
        if row:
            found[model_type] = row
        if row and "text_type" in row:
            waiting.append(row["text_type"])
    return dict(sorted(found.items()))


def row_of(config_class: Any) -> dict[str, Any] | None:
    """What `config_class` fills in; None for a class that does not stand alone."""
    config = _with(config_class, {})
    try:
        text = config.get_text_config(decoder=True)
    except (ValueError, AttributeError):
        return None
    if text is not config:
        key = _key_of(config, text)
        row: dict[str, Any] = {"text": key, "text_type": text.model_type} if key else {}
        stated = getattr(config, "tie_word_embeddings", None)
        return row | ({"defaults": {"tie_word_embeddings": stated}} if row and isinstance(stated, bool) else {})
    names = {name: own for name, own in config_class.attribute_map.items() if name in SIZES}
    defaults = {name: value for name in SIZES if _is_size(value := _value(config, name))}
    for name in _following(config_class, defaults, names):
        del defaults[name]
    if "kv_lora_rank" in defaults:  # head_dim is that of the rotated part alone
        defaults.pop("head_dim", None)
        names.pop("head_dim", None)
    period = _linear_period(config)
    extra = {"full_attention_interval": period} if period else {}
    return ({"names": names} if names else {}) | {"defaults": defaults | extra}


def _key_of(config: Any, text: Any) -> str:
    """The path of the language model in the configuration: "text_config", "thinker_config.text_config"."""
    for key in getattr(config, "sub_configs", {}):
        inner = getattr(config, key, None)
        if inner is text:
            return key
        if inner is not None and hasattr(inner, "get_text_config"):
            with contextlib.suppress(ValueError, AttributeError):
                if inner.get_text_config(decoder=True) is text:
                    return f"{key}.{_key_of(inner, text)}"
    return ""


def _value(config: Any, name: str) -> object:
    try:
        return getattr(config, name, None)
    except RuntimeError:  # it differs from layer to layer
        return config.to_dict().get(name)


def _is_size(value: object) -> bool:
    return isinstance(value, (bool, int))


def _following(config_class: Any, defaults: dict[str, Any], names: dict[str, str]) -> Iterator[str]:
    """Sizes that the class works out from others: they change when those do."""
    for name, others in (
        ("head_dim", ("hidden_size", "num_attention_heads")),
        ("num_key_value_heads", ("num_attention_heads",)),
        ("intermediate_size", ("hidden_size",)),
    ):
        for other in others:
            if name in defaults and other in defaults:
                changed = _with(config_class, {names.get(other, other): defaults[other] * 2})
                if changed is not None and _value(changed, name) != defaults[name]:
                    yield name
                    break


def _with(config_class: Any, values: dict[str, Any]) -> Any:
    """A configuration with those values, None where its class refuses them."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return config_class(**values)
    except (ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError, StrictDataclassError):
        return None


def _linear_period(config: Any) -> int | None:
    """p where every p-th layer has full attention and the others have linear attention, by default."""
    kinds = getattr(config, "layer_types", None) or []
    if "linear_attention" not in kinds or "full_attention" not in kinds:
        return None
    period = kinds.index("full_attention") + 1
    regular = all((kind == "full_attention") == ((place + 1) % period == 0) for place, kind in enumerate(kinds))
    return period if regular else None


def table() -> dict[str, Any]:
    """The whole file."""
    import transformers

    types = rows() | json.loads(REMOTE.read_text())["types"]
    return {"transformers": transformers.__version__, "types": dict(sorted(types.items()))}


def text_of(found: dict[str, Any]) -> str:
    """One line per type, so that a new transformers is a diff that can be read."""
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in found["types"].items()]
    body = ",\n".join(lines)
    return f'{{"transformers": {json.dumps(found["transformers"])}, "types": {{\n{body}\n}}}}\n'


def main() -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    TABLE.write_text(text_of(table()))
    sys.stderr.write(f"{TABLE.relative_to(ROOT)}: {len(json.loads(TABLE.read_text())['types'])} types\n")


if __name__ == "__main__":
    main()
