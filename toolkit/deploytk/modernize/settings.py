"""Which keys of a workspace's configuration a Hugging Face directory carries; what it cannot carry is refused by name.

The keys are those of turbomind/deploy/target_model/base.py (v0.0.14 to v0.6.1) and turbomind/deploy/config.py
(v0.6.2 to v0.9.2), read at every tag.
"""

from __future__ import annotations

from collections.abc import Iterator

from deploytk.artifact import Artifact
from deploytk.artifact.workspace_rope import positions, uses_logn
from deploytk.base.errors import WeightsError

# In config.json, generation_config.json, the tensors, the tokenizer or the chat template.
_CARRIED = """
    model_name chat_template model_arch model_format tensor_para_size tp attn_tp_size mlp_tp_size head_num kv_head_num
    hidden_units vocab_size embedding_size tokenizer_size num_layer inter_size norm_eps attn_bias qk_norm start_id
    end_id weight_type size_per_head group_size rotary_embedding rope_theta rope_param max_position_embeddings
    rope_scaling_type rope_scaling_factor use_dynamic_ntk low_freq_factor high_freq_factor attention_factor beta_fast
    beta_slow original_max_position_embeddings type base dim factor use_logn_attn
""".split()

# How it is served, not what it answers: today's servers take these as flags, or work them out.
_SERVING = """
    session_len max_batch_size max_context_token_num step_length cache_max_entry_count cache_block_seq_len
    cache_chunk_size enable_prefix_caching num_tokens_per_iter max_prefill_iters extra_tokens_per_iter
    max_prefill_token_num use_context_fmha quant_policy tune_layer_num
""".split()

_NOTHING = ("", "0", "0.0", "[]", "None", "False")
_NEUTRAL = {
    "lora_policy": _NOTHING,
    "lora_r": _NOTHING,
    "lora_scale": _NOTHING,
    "lora_max_wo_r": _NOTHING,
    "lora_rank_pattern": _NOTHING,
    "lora_scale_pattern": _NOTHING,
    "softmax_scale": _NOTHING,
    "q_lora_rank": _NOTHING,
    "kv_lora_rank": _NOTHING,
    "qk_rope_dim": _NOTHING,
    "v_head_dim": _NOTHING,
    "mrope_section": _NOTHING,
    "expert_num": _NOTHING,
}
# Without experts they say nothing.
_OF_EXPERTS = """
    expert_inter_size experts_per_token moe_shared_gate norm_topk_prob routed_scale topk_group topk_method moe_group_num
""".split()


def refuse_lost_settings(artifact: Artifact, session_len: int | None) -> None:
    """Raises WeightsError when a key would be lost that changes an answer of at most `session_len` tokens.

    None stands for the session length of the workspace.
    """
    config = artifact.config
    for key, value in _own_keys(artifact):
        if str(value) not in _NEUTRAL.get(key, (str(value),)):
            raise WeightsError(
                f"{artifact.root}: {key} is {value}, which no directory of the family {artifact.architecture} can say",
                hint="start from the original model",
            )
        if key not in _NEUTRAL and key not in (*_CARRIED, *_SERVING, *_OF_EXPERTS):
            raise WeightsError(
                f"{artifact.root}: no LMDeploy is known to read the key {key}",
                hint="remove it from the configuration if it is yours, or start from the original model",
            )
    longest = session_len or artifact.session_len
    limit = positions(config)
    if uses_logn(config) and longest > limit:
        raise WeightsError(
            f"{artifact.root}: use_logn_attn changes answers beyond {limit} tokens, and no current LMDeploy has it",
            hint=f"--session-len {limit} makes a model for up to there, where it changes nothing"
            if limit
            else "set max_position_embeddings in its configuration to the positions of the original model",
        )
    if dict(artifact.rope.scaling).get("rope_type") == "dynamic" and not limit:
        raise WeightsError(
            f"{artifact.root}: it scales beyond max_position_embeddings, which is 0",
            hint="set it in the configuration to the positions of the original model, 2048 or 4096 for most",
        )


def _own_keys(artifact: Artifact) -> Iterator[tuple[str, object]]:
    """Every key with its value; experts of no layer are none."""
    for key, value in artifact.config.items():
        is_empty = key == "expert_num" and isinstance(value, list) and not any(value)
        yield key, [] if is_empty else value
