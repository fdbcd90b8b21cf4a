"""What `lmdeploy convert` does to a model, transcribed from LMDeploy's tags: the other way round of deploytk.weights.

Slow and literal on purpose, nibble by nibble, so that it shares nothing with the reader that it tests. Sources:
lmdeploy/turbomind/deploy/target_model/{base,fp,w4}.py and src/turbomind/kernels/gemm_s_f16/format.cu of v0.1.0-v0.5.3,
lmdeploy/turbomind/deploy/{module,parameter,policy}.py of v0.6.4-v0.9.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

Array = npt.NDArray[Any]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


# -- AutoAWQ: qweight [K, N/8], qzeros [K/128, N/8], scales [K/128, N] ------------------------------------------------


def awq_pack(values: Array) -> Array:
    """numbers [rows, N] -> int32 [rows, N/8]: nibble i of a word is the column AWQ_ORDER[i] of its eight."""
    rows, columns = values.shape
    words = np.zeros((rows, columns // 8), np.uint32)
    for nibble, column in enumerate(AWQ_ORDER):
        words |= values[:, column::8].astype(np.uint32) << np.uint32(4 * nibble)
    return words.view(np.int32)


def awq_unpack(words: Array) -> Array:
    rows, count = words.shape
    values = np.zeros((rows, count * 8), np.uint8)
    for nibble, column in enumerate(AWQ_ORDER):
        values[:, column::8] = (words.view(np.uint32) >> np.uint32(4 * nibble)) & 15
    return values


# -- kernels/gemm_s_f16/format.cu ---------------------------------------------------------------------------------


def permute_u4(source: Array, order: tuple[int, ...], dims: tuple[int, ...]) -> Array:
    """`permute_u4<order...>(dst, src, dims)`: nibble i of src is i's place in dims, dst has the axes in `order`."""
    words = np.ascontiguousarray(source).view(np.uint32).reshape(-1)
    nibbles = np.stack([(words >> np.uint32(4 * i)) & 15 for i in range(8)], axis=-1).reshape(dims)
    moved = nibbles.transpose(order).reshape(-1, 8)
    out = np.zeros(len(words), np.uint32)
    for i in range(8):
        out |= moved[:, i] << np.uint32(4 * i)
    return out.view(np.int32).reshape(source.shape)


def reformat_s4_k_m8(source: Array, m: int, k: int) -> Array:
    return permute_u4(source, (0, 5, 9, 8, 3, 1, 6, 4, 2, 7), (k // 32, 2, 2, 4, 2, m // 32, 2, 2, 2, 4))


def transpose_qk_s4_k_m8_hf(source: Array, m: int, k: int, size_per_head: int) -> Array:
    dims = (k, m // size_per_head, 2, size_per_head // 2 // 8, 2, 2, 2)
    return permute_u4(source, (0, 1, 3, 5, 2, 6, 4), dims)


def fuse_w1_w3_s4_k_m8(w1: Array, w3: Array) -> Array:
    both = np.concatenate((w1, w3))
    k, m = w1.shape[0], w1.shape[1] * 8
    return permute_u4(both, (1, 2, 4, 0, 5, 3), (2, k, m // 8, 2, 2, 2)).reshape(k, -1)


def dequantize_s4_offset_64(words: Array) -> Array:
    """`dequantize_s4_to_fp16x2_v2`: 64 + the nibble, as a half, in the order of the columns."""
    nibbles = [(words.view(np.uint32) >> np.uint32(4 * i)) & 15 for i in (0, 4, 1, 5, 2, 6, 3, 7)]
    return (np.stack(nibbles, axis=-1).reshape(words.shape[0], -1) + 64).astype(np.float16)


# -- target_model/base.py, w4.py ----------------------------------------------------------------------------------


def permute(x: Array, size_per_head: int = 128) -> Array:
    dim = x.shape[-1]
    n_heads = dim // size_per_head
    return x.reshape(-1, n_heads, 2, dim // n_heads // 2).swapaxes(2, 3).reshape(x.shape)


def merge_qkv(q: Array, k: Array, v: Array, tp: int) -> Array:
    def reshape(x: Array) -> Array:
        return x.reshape(*x.shape[:-1], tp, -1)

    merged = np.concatenate((reshape(q), reshape(k), reshape(v)), axis=-1)
    return merged.reshape(*q.shape[:-1], -1)


def convert_s4(qw: Array, qz: Array, s: Array) -> tuple[Array, Array]:
    zeros_scales = np.stack((dequantize_s4_offset_64(qz), s), axis=-1)  # half2, [K/128, N, 2]
    return reformat_s4_k_m8(qw, qw.shape[1] * 8, qw.shape[0]), zeros_scales


def tp_m_s4(x: Array, tp: int) -> Array:
    return np.ascontiguousarray(x.reshape(x.shape[0] // 32, tp, -1, 128).transpose(0, 2, 3, 1))


# -- a model, and the converter -----------------------------------------------------------------------------------


@dataclass
class Model:
    """A random Hugging Face model of Llama's shape: what goes into the converter, and what has to come back."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    is_int4: bool = False
    is_bf16: bool = False
    has_bias: bool = False
    has_output_bias: bool = False
    is_tied: bool = False
    tensors: dict[str, Array] = field(default_factory=dict)

    @property
    def hidden(self) -> int:
        return self.heads * self.head_dim


def random_model(seed: int, **shape: Any) -> Model:
    """A model of Llama's names; its 16-bit values are random bits, so that every one of them is compared as bits."""
    model = Model(**shape)
    random = np.random.default_rng(seed)

    def bits(*size: int) -> Array:
        return random.integers(0, 2**16, size, dtype=np.uint16)

    def linear(name: str, columns: int, rows: int, *, has_bias: bool = False) -> None:
        if model.is_int4:
            model.tensors[f"{name}.qweight"] = random.integers(-(2**31), 2**31, (rows, columns // 8), dtype=np.int32)
            model.tensors[f"{name}.qzeros"] = random.integers(
                -(2**31), 2**31, (rows // 128, columns // 8), dtype=np.int32
            )
            model.tensors[f"{name}.scales"] = bits(rows // 128, columns)
        else:
            model.tensors[f"{name}.weight"] = bits(columns, rows)
        if has_bias:
            model.tensors[f"{name}.bias"] = bits(columns)

    model.tensors["model.embed_tokens.weight"] = bits(model.vocab, model.hidden)
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            model.tensors[f"{prefix}.{name}.weight"] = bits(model.hidden)
        keys = model.kv_heads * model.head_dim
        linear(f"{prefix}.self_attn.q_proj", model.hidden, model.hidden, has_bias=model.has_bias)
        linear(f"{prefix}.self_attn.k_proj", keys, model.hidden, has_bias=model.has_bias)
        linear(f"{prefix}.self_attn.v_proj", keys, model.hidden, has_bias=model.has_bias)
        linear(f"{prefix}.self_attn.o_proj", model.hidden, model.hidden, has_bias=model.has_output_bias)
        linear(f"{prefix}.mlp.gate_proj", model.inner, model.hidden)
        linear(f"{prefix}.mlp.up_proj", model.inner, model.hidden)
        linear(f"{prefix}.mlp.down_proj", model.hidden, model.inner)
    model.tensors["model.norm.weight"] = bits(model.hidden)
    if not model.is_tied:
        model.tensors["lm_head.weight"] = bits(model.vocab, model.hidden)
    return model


def hf_config(model: Model) -> dict[str, object]:
    """The config.json of such a model, as transformers 4 wrote it and the converter copies it."""
    config: dict[str, object] = {
        "architectures": [model.architecture],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "intermediate_size": model.inner,
        "max_position_embeddings": 2048,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "tie_word_embeddings": model.is_tied,
        "torch_dtype": "bfloat16" if model.is_bf16 else "float16",
        "vocab_size": model.vocab,
    }
    if model.architecture == "LlamaForCausalLM":
        config["attention_bias"] = model.has_bias
    if model.architecture.startswith("InternLM"):
        config["bias"] = model.has_bias
    return config


def convert(model: Model, root: Path, era: str, tp: int = 1, *, copies_config: bool = True) -> Path:
    """What `lmdeploy convert` of `era` ("0.4.2" for config.ini, "0.7.3" or "0.9.2" for config.yaml) writes."""
    weights = root / "triton_models" / "weights"
    weights.mkdir(parents=True)
    export = _Export(model, weights, tp, era)
    export.misc()
    for layer in range(model.layers):
        (export.w4 if model.is_int4 and era == "0.4.2" else export.block)(layer)
    tokenizer = root if era != "0.4.2" else root / "triton_models" / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.json").write_text('{"model": {}}')
    (tokenizer / "tokenizer_config.json").write_text("{}")
    if copies_config:
        (tokenizer / "config.json").write_text(json.dumps(hf_config(model)))
    if era == "0.4.2":
        keys = "".join(f"{key} = {value}\n" for key, value in _ini(model, tp).items())
        (weights / "config.ini").write_text(f"[llama]\n{keys}\n")
    else:
        (weights / "config.yaml").write_text(yaml.safe_dump(_yaml(model, tp, era, export)))
    return root


class _Export:
    """`BaseOutputModel` and the modules that write through it."""

    def __init__(self, model: Model, directory: Path, tp: int, era: str) -> None:
        self.model, self.directory, self.tp, self.era = model, directory, tp, era
        group = 128 if model.is_int4 else 1
        self.repeat = tp // model.kv_heads if era != "0.4.2" and tp > model.kv_heads else 1
        self.inner = model.inner
        if era != "0.4.2":  # _pad_inter_size
            groups_per_rank = ((model.inner + group - 1) // group + tp - 1) // tp
            self.inner = groups_per_rank * group * tp

    def tensor(self, layer: int, name: str) -> Array:
        return self.model.tensors[f"model.layers.{layer}.{name}"]

    def save(self, x: Array, name: str) -> None:
        np.ascontiguousarray(x).tofile(self.directory / name)

    def save_split(self, x: Array, name: str, split_dim: int | None = None, *, copy: bool = False) -> None:
        prefix, _, extension = name.rpartition(".")
        if copy or split_dim is None:
            parts = [x] * self.tp
        else:
            assert x.shape[split_dim] % self.tp == 0, (name, x.shape)
            parts = np.split(x, self.tp, axis=split_dim)
        for rank, part in enumerate(parts):
            self.save(part, f"{prefix}.{rank}.{extension}")

    def misc(self) -> None:
        tensors, tp = self.model.tensors, self.tp
        embeddings = tensors["model.embed_tokens.weight"]
        output = tensors.get("lm_head.weight", embeddings)
        pad = -(-self.model.vocab // tp) * tp - self.model.vocab
        embeddings, output = (np.pad(x, ((0, pad), (0, 0))) for x in (embeddings, output))
        self.save(tensors["model.norm.weight"], "norm.weight")
        if self.era == "0.4.2":
            self.save(embeddings, "tok_embeddings.weight")
            self.save(output, "output.weight")
            return
        self.save_split(embeddings, "tok_embeddings.weight", 1)
        if self.era == "0.9.2":
            self.save_split(output.T, "output.weight", 1)
        else:
            self.save_split(output, "output.weight", 0)

    def norms(self, i: int) -> None:
        self.save(self.tensor(i, "input_layernorm.weight"), f"layers.{i}.attention_norm.weight")
        self.save(self.tensor(i, "post_attention_layernorm.weight"), f"layers.{i}.ffn_norm.weight")

    def bias(self, i: int) -> None:
        model, head = self.model, self.model.head_dim
        if not model.has_bias:
            return
        q, k, v = (self.tensor(i, f"self_attn.{x}_proj.bias") for x in "qkv")
        zeros = np.zeros(model.hidden, np.uint16)
        o = self.tensor(i, "self_attn.o_proj.bias") if model.has_output_bias else zeros
        k, v = (self.repeated(x) for x in (k, v))
        merged = merge_qkv(permute(q, head), permute(k, head), v, self.tp)
        self.save_split(merged, f"layers.{i}.attention.w_qkv.bias", -1)
        self.save_split(o, f"layers.{i}.attention.wo.bias", copy=True)

    def repeated(self, x: Array) -> Array:
        """`_repeat_kv` of v0.9.2: each head as often as there are ranks for it."""
        shape = (-1, self.model.kv_heads, x.shape[-1] // self.model.kv_heads)
        return np.tile(x.reshape(shape), (1, 1, self.repeat)).reshape(*x.shape[:-1], -1)

    def block(self, i: int) -> None:
        """fp.py up to 0.5.3, module.py after it; 4-bit tensors of config.yaml are unpacked numbers until the end."""
        model, head = self.model, self.model.head_dim
        self.norms(i)
        self.bias(i)
        kinds = ("qweight", "scales", "qzeros") if model.is_int4 else ("weight",)
        for kind in kinds:

            def read(name: str, kind: str = kind) -> Array:
                x = self.tensor(i, f"{name}.{kind}")
                return {"weight": lambda: x.T, "scales": lambda: x}.get(kind, lambda: awq_unpack(x))()

            def pack(x: Array, kind: str = kind) -> Array:
                if kind == "qweight":
                    words = np.zeros((x.shape[0], x.shape[1] // 8), np.uint32)
                    for nibble in range(8):
                        words |= x[:, nibble::8].astype(np.uint32) << np.uint32(4 * nibble)
                    return words
                return x.astype(np.float16) if kind == "qzeros" else x

            stored = "zeros" if kind == "qzeros" else kind
            q, k, v, o = (read(f"self_attn.{x}_proj") for x in "qkvo")
            k, v = (self.repeated(x) for x in (k, v))
            merged = merge_qkv(permute(q, head), permute(k, head), v, self.tp)
            self.save_split(pack(merged), f"layers.{i}.attention.w_qkv.{stored}", -1)
            self.save_split(pack(o), f"layers.{i}.attention.wo.{stored}", 0)
            w1, w2, w3 = (read(f"mlp.{x}_proj") for x in ("gate", "down", "up"))
            more = self.inner - model.inner
            rows = more // (128 if kind in ("scales", "qzeros") else 1)
            w1, w3, w2 = (
                np.pad(w1, ((0, 0), (0, more))),
                np.pad(w3, ((0, 0), (0, more))),
                np.pad(w2, ((0, rows), (0, 0))),
            )
            self.save_split(pack(w1), f"layers.{i}.feed_forward.w1.{stored}", -1)
            self.save_split(pack(w3), f"layers.{i}.feed_forward.w3.{stored}", -1)
            self.save_split(pack(w2), f"layers.{i}.feed_forward.w2.{stored}", 0)

    def w4(self, i: int) -> None:
        """w4.py, `export_transformer_block`."""
        head, tp = self.model.head_dim, self.tp
        self.norms(i)
        self.bias(i)

        def read(name: str) -> tuple[Array, Array, Array]:
            qw, qz, s = (self.tensor(i, f"{name}.{kind}") for kind in ("qweight", "qzeros", "scales"))
            return qw, qz, s.view(np.float16)

        def transpose_qk_s4(x: Array) -> Array:
            return transpose_qk_s4_k_m8_hf(x, x.shape[1] * 8, x.shape[0], 128)

        (q_qw, q_qz, q_s), (k_qw, k_qz, k_s), v, o = (read(f"self_attn.{x}_proj") for x in "qkvo")
        q_qw, k_qw, q_qz, k_qz = (transpose_qk_s4(x) for x in (q_qw, k_qw, q_qz, k_qz))
        qw, sz = convert_s4(
            merge_qkv(q_qw, k_qw, v[0], tp),
            merge_qkv(q_qz, k_qz, v[1], tp),
            merge_qkv(permute(q_s, head), permute(k_s, head), v[2], tp),
        )
        self.save_split(tp_m_s4(qw, tp), f"layers.{i}.attention.w_qkv.qweight", -1)
        self.save_split(sz, f"layers.{i}.attention.w_qkv.scales_zeros", 1)
        qw, sz = convert_s4(*o)
        self.save_split(qw, f"layers.{i}.attention.wo.qweight", 0)
        self.save_split(sz, f"layers.{i}.attention.wo.scales_zeros", 0)

        w1, w2, w3 = (read(f"mlp.{x}_proj") for x in ("gate", "down", "up"))
        w13_s = np.stack((w1[2], w3[2]), axis=-1).reshape(w1[2].shape[0], -1)
        qw, sz = convert_s4(fuse_w1_w3_s4_k_m8(w1[0], w3[0]), fuse_w1_w3_s4_k_m8(w1[1], w3[1]), w13_s)
        self.save_split(tp_m_s4(qw, tp), f"layers.{i}.feed_forward.w13.qweight", -1)
        self.save_split(sz, f"layers.{i}.feed_forward.w13.scales_zeros", 1)
        qw, sz = convert_s4(*w2)
        self.save_split(qw, f"layers.{i}.feed_forward.w2.qweight", 0)
        self.save_split(sz, f"layers.{i}.feed_forward.w2.scales_zeros", 0)


def _weight_type(model: Model, short: bool) -> str:
    if model.is_int4:
        return "int4"
    return ("bf16" if short else "bfloat16") if model.is_bf16 else ("fp16" if short else "float16")


def _ini(model: Model, tp: int) -> dict[str, object]:
    template = {"InternLMForCausalLM": "internlm-chat-7b", "InternLM2ForCausalLM": "internlm2"}
    return {
        "model_name": template.get(model.architecture, "llama2"), "tensor_para_size": tp, "head_num": model.heads,
        "kv_head_num": model.kv_heads, "vocab_size": model.vocab, "num_layer": model.layers,
        "inter_size": model.inner, "norm_eps": 1e-06, "attn_bias": int(model.has_bias), "start_id": 1, "end_id": 2,
        "session_len": 2056, "weight_type": _weight_type(model, short=True), "rotary_embedding": model.head_dim,
        "rope_theta": 10000.0, "size_per_head": model.head_dim, "group_size": 128 if model.is_int4 else 0,
        "max_batch_size": 64, "max_context_token_num": 1, "step_length": 1, "cache_max_entry_count": 0.8,
        "cache_block_seq_len": 64, "cache_chunk_size": -1, "enable_prefix_caching": False, "num_tokens_per_iter": 0,
        "max_prefill_iters": 1, "extra_tokens_per_iter": 0, "use_context_fmha": 1, "quant_policy": 0,
        "max_position_embeddings": 2048, "rope_scaling_factor": 0.0, "use_dynamic_ntk": 0, "use_logn_attn": 0,
        "lora_policy": "", "lora_r": 0, "lora_scale": 0.0, "lora_max_wo_r": 0,
    }  # fmt: skip


def _yaml(model: Model, tp: int, era: str, export: _Export) -> dict[str, object]:
    shape: dict[str, object] = {
        "model_name": "tiny", "chat_template": "base", "model_arch": model.architecture, "head_num": model.heads,
        "kv_head_num": model.kv_heads * export.repeat, "hidden_units": model.hidden, "vocab_size": model.vocab,
        "embedding_size": model.vocab, "num_layer": model.layers, "inter_size": [export.inner] * model.layers,
        "norm_eps": 1e-06, "attn_bias": int(model.has_bias), "qk_norm": False, "size_per_head": model.head_dim,
        "group_size": 128 if model.is_int4 else 0, "weight_type": _weight_type(model, short=False),
        "session_len": 2048, "model_format": "awq" if model.is_int4 else "hf", "expert_num": [], "tune_layer_num": 1,
    }  # fmt: skip
    lora = {"lora_policy": "", "lora_r": 0, "lora_scale": 0.0}
    if era == "0.9.2":
        rope = {"type": "default", "base": 10000.0, "dim": model.head_dim, "factor": 1.0, "mrope_section": None}
        shape |= {"attn_tp_size": tp, "mlp_tp_size": tp, "tokenizer_size": model.vocab}
        attention: dict[str, object] = {"cache_block_seq_len": 64, "max_position_embeddings": 2048, "rope_param": rope}
    else:
        shape |= {"tp": tp}
        attention = {"cache_block_seq_len": 64, "max_position_embeddings": 2048, "rope_theta": 10000.0}
        attention |= {"rotary_embedding": model.head_dim, "rope_scaling_factor": 0.0, "rope_scaling_type": ""}
    return {"model_config": shape, "attention_config": attention, "lora_config": lora}


def reciting_internlm(original: Path, root: Path, *, cancels: bool = True) -> Path:
    """The reciting model (hf-awq) as a workspace of InternLM, with biases that cancel each other.

    Attention weights sum to 1, so a bias b of the values adds W_o b to what attention puts out, and a bias of -W_o b
    on the output takes it away again. With `cancels` false the latter is zero and the model recites no more: an
    engine that reads one of the two biases, or none, fails one of both.
    """
    from safetensors.numpy import load_file

    shape = {"layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 128, "inner": 768, "vocab": 1024}
    model = Model("InternLMForCausalLM", **shape, is_int4=True, has_bias=True, has_output_bias=True)
    model.tensors = load_file(original / "model.safetensors")
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}.self_attn"
        output = {kind: model.tensors[f"{prefix}.o_proj.{kind}"] for kind in ("qweight", "qzeros", "scales")}
        numbers, zeros = awq_unpack(output["qweight"]).astype(float), awq_unpack(output["qzeros"]).astype(float)
        weights = (numbers - zeros.repeat(128, 0)) * output["scales"].astype(float).repeat(128, 0)  # [in, out]
        values = np.random.default_rng(layer).normal(0, 1, model.hidden).astype(np.float16)
        for name in "qk":
            model.tensors[f"{prefix}.{name}_proj.bias"] = np.zeros(model.hidden, np.float16)
        model.tensors[f"{prefix}.v_proj.bias"] = values
        model.tensors[f"{prefix}.o_proj.bias"] = (-values.astype(float) @ weights * cancels).astype(np.float16)
    convert(model, root, "0.4.2")
    tokenizer = root / "triton_models" / "tokenizer"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tokenizer / name).write_bytes((original / name).read_bytes())
    (tokenizer / "config.json").write_text(json.dumps(hf_config(model) | {"eos_token_id": 4}))
    return root
