"""A model of real size that gives the tiny model's answers: every matrix is made larger with zeros.

    python benchmarks/gpu/grown.py tests/models/hf-fp16 OUT [LAYERS]

The first layers are the tiny model's, in the corner of larger matrices; the rest add nothing to what passes through
them. Width is 16 times the tiny one's, so that the norms, whose mean is over 16 times as many numbers, are a quarter:
exactly the same in fp16. The file has holes where the zeros are: it is there in a second.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WIDER = 16
INNER, HEADS, KV_HEADS, VOCABULARY = 11008, 32, 8, 32000
Array = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Tiny:
    config: dict[str, Any]
    tensors: dict[str, Array]

    @classmethod
    def read(cls, model: Path) -> Tiny:
        with (model / "model.safetensors").open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            data = file.read()
        header.pop("__metadata__", None)
        tensors = {
            name: np.frombuffer(data[slice(*one["data_offsets"])], np.float16).reshape(one["shape"])
            for name, one in header.items()
        }
        return cls(json.loads((model / "config.json").read_text(encoding="utf-8")), tensors)


def shapes(tiny: Tiny, layers: int) -> dict[str, tuple[int, ...]]:
    hidden, dim = tiny.config["hidden_size"] * WIDER, tiny.config["head_dim"]
    vocabulary = (VOCABULARY, hidden)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": vocabulary, "lm_head.weight": vocabulary}
    found["model.norm.weight"] = (hidden,)
    of_layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (HEADS * dim, hidden),
        "self_attn.k_proj": (KV_HEADS * dim, hidden),
        "self_attn.v_proj": (KV_HEADS * dim, hidden),
        "self_attn.o_proj": (hidden, HEADS * dim),
        "mlp.gate_proj": (INNER, hidden),
        "mlp.up_proj": (INNER, hidden),
        "mlp.down_proj": (hidden, INNER),
    }
    for layer in range(layers):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return found


def rows_of(name: str, tiny: Tiny) -> npt.NDArray[np.int64] | None:
    """Where the heads of queries go: each to a head that shares the key/value head of its own number."""
    if not name.endswith(("q_proj.weight", "o_proj.weight")):
        return None
    heads, dim = tiny.config["num_attention_heads"], tiny.config["head_dim"]
    starts = np.repeat(np.arange(heads) * (HEADS // KV_HEADS) * dim, dim)
    return starts + np.tile(np.arange(dim), heads)


def grown(name: str, shape: tuple[int, ...], tiny: Tiny) -> Array:
    """The first rows of a larger tensor: all that are not zero."""
    small = tiny.tensors[name]
    if small.ndim == 1:
        whole = np.zeros(shape, np.float16)
        whole[: len(small)] = small / np.float16(math.sqrt(WIDER))
        return whole
    places = rows_of(name, tiny)
    is_query = places is not None and name.endswith("q_proj.weight")
    rows = int(places[-1]) + 1 if places is not None and is_query else small.shape[0]
    whole = np.zeros((rows, shape[1]), np.float16)
    if places is None:
        whole[:, : small.shape[1]] = small
    elif is_query:
        whole[places, : small.shape[1]] = small
    else:
        whole[:, places] = small
    return whole


def write(tiny: Tiny, layers: int, path: Path) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes(tiny, layers).items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
        for name in tiny.tensors:
            data = grown(name, tuple(header[name]["shape"]), tiny)
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(data.tobytes())
    return at


def main() -> None:
    model, out = Path(sys.argv[1]), Path(sys.argv[2])
    layers = int(sys.argv[3]) if len(sys.argv) > 3 else 8
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    tiny = Tiny.read(model)
    size = write(tiny, layers, out / "model.safetensors")
    larger = {
        "hidden_size": tiny.config["hidden_size"] * WIDER,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "rms_norm_eps": tiny.config["rms_norm_eps"] / WIDER,
    }
    (out / "config.json").write_text(json.dumps(tiny.config | larger, indent=1) + "\n", encoding="utf-8")
    print(f"{size / 2**20:,.0f} MiB, {size / 2e9:.2f} billion parameters")


if __name__ == "__main__":
    main()
