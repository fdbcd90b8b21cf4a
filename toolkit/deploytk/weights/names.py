"""The names that tensors have in the Hugging Face model of each architecture that can be read back."""

from __future__ import annotations

from dataclasses import dataclass

from deploytk.artifact import Artifact
from deploytk.base.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Family:
    """How an architecture names its tensors; `layers.N` stands before those of a layer."""

    architecture: str  # of the config.json that goes with the names
    model_type: str
    embeddings: str
    head: str
    attention_norm: str
    ffn_norm: str
    qkv: str  # of the merged projection; "" when the three are apart
    attention: tuple[str, str, str, str]  # query, key, value, output
    ffn: tuple[str, str, str]  # gate, up, down
    has_output_bias: bool = True  # when it has attention bias at all
    head_norms: tuple[str, ...] = ()  # of query and key

    def layer(self, index: int) -> str:
        return f"model.layers.{index}."


def _llama_like(
    architecture: str, model_type: str, *, has_output_bias: bool = True, head_norms: tuple[str, ...] = ()
) -> Family:
    return Family(
        architecture=architecture,
        model_type=model_type,
        embeddings="model.embed_tokens",
        head="lm_head",
        attention_norm="input_layernorm",
        ffn_norm="post_attention_layernorm",
        qkv="",
        attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        ffn=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        has_output_bias=has_output_bias,
        head_norms=head_norms,
    )


LLAMA = _llama_like("LlamaForCausalLM", "llama")
INTERNLM2 = Family(
    architecture="InternLM2ForCausalLM",
    model_type="internlm2",
    embeddings="model.tok_embeddings",
    head="output",
    attention_norm="attention_norm",
    ffn_norm="ffn_norm",
    qkv="attention.wqkv",
    attention=("", "", "", "attention.wo"),
    ffn=("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
)

FAMILIES = {
    "LlamaForCausalLM": LLAMA,
    # The tensors of InternLM are those of a Llama with bias, name by name, and current LMDeploy's TurboMind and
    # transformers know only the latter.
    "InternLMForCausalLM": LLAMA,
    "InternLM2ForCausalLM": INTERNLM2,
    "MistralForCausalLM": _llama_like("MistralForCausalLM", "mistral"),
    "Qwen2ForCausalLM": _llama_like("Qwen2ForCausalLM", "qwen2", has_output_bias=False),
    "Qwen3ForCausalLM": _llama_like("Qwen3ForCausalLM", "qwen3", head_norms=("self_attn.q_norm", "self_attn.k_norm")),
}


def family_of(artifact: Artifact) -> Family:
    """The names of the tensors of `artifact`; refuses architectures whose tensors are laid out otherwise."""
    family = FAMILIES.get(artifact.architecture)
    if family is None:
        known = ", ".join(FAMILIES)
        raise WeightsError(
            f"{artifact.root}: the weights of {artifact.architecture} cannot be read back",
            hint=f"deploytk reads {known}; for others start from the original model",
        )
    return family
