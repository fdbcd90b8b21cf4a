"""The pieces of LMDeploy's code that decide support, each as it is written, and the name of what it asks for.

The code is compared as `ast.unparse` prints it, so neither comments nor line breaks matter. A piece that is not here
stops the program: read it, find its name in toolkit/deploytk/lmdeploy/conditions.py or add one, and put it here.
"""

_HEAD_DIM = "hidden_size // num_attn_head"
_NO_VISION = "if getattr(cfg, 'vision_config', None) is not None:\n    support_by_turbomind = False"
_LLAMA_INSIDE = (
    "llm_arch = cfg.text_config.architectures[0]\nif llm_arch in ['Qwen2ForCausalLM', 'LlamaForCausalLM']:\n"
)
_SHAPE_OF = "num_attn_head = cfg{0}num_attention_heads{1}\nhidden_size = cfg{0}hidden_size{1}\n"

HELPERS = {
    # The bodies of the functions inside `is_supported`: what the rest calls by their names.
    f"num_attn_head = cfg.num_attention_heads\nhidden_size = cfg.hidden_size\nreturn {_HEAD_DIM} == 128": "hidden_128",
    f"num_attn_head = cfg.num_attention_heads\nhidden_size = cfg.hidden_size\nreturn {_HEAD_DIM} in [128, 64]": (
        "hidden_64_128"
    ),
    "head_dim = cfg.head_dim if hasattr(cfg, 'head_dim') else cfg.hidden_size // cfg.num_attention_heads\n"
    "return head_dim in [128, 64]": "head_64_128",
}
"""Body of a helper -> condition."""

GATES = {
    "num_attn_head = cfg.num_attention_heads\nif num_attn_head == 40:\n    support_by_turbomind = False": (
        "heads_not_40",
    ),
    "num_attn_head = cfg['num_attention_heads']\nif num_attn_head == 40:\n    support_by_turbomind = False": (
        "heads_not_40",
    ),
    "num_attn_head = cfg['num_attention_heads']\nhidden_size = cfg['hidden_size']\n"
    f"if {_HEAD_DIM} != 128:\n    support_by_turbomind = False": ("hidden_128",),
    "num_attn_head = cfg.num_attention_heads\nhidden_size = cfg.hidden_size\n"
    f"if {_HEAD_DIM} != 128:\n    support_by_turbomind = False": ("hidden_128",),
    "support_by_turbomind = cfg.num_layers == 40": ("layers_40",),
    f"support_by_turbomind = cfg.num_layers == 40\n{_NO_VISION}": ("layers_40", "no_vision"),
    _NO_VISION: ("no_vision",),
    "support_by_turbomind = HELPER(cfg)": ("HELPER",),
    "support_by_turbomind = HELPER(cfg.llm_config)": ("HELPER",),
    "llm_arch = cfg.llm_config.architectures[0]\n"
    "support_by_turbomind = llm_arch in SUPPORTED_ARCHS and HELPER(cfg.llm_config)": ("inner_supported", "HELPER"),
    f"{_LLAMA_INSIDE}    support_by_turbomind = HELPER(cfg.text_config)": ("inner_llama_HELPER",),
    "kv_heads = cfg.num_key_value_heads\nsupport_by_turbomind = kv_heads is not None": ("states_kv_heads",),
}
"""Body of `if arch == ...` in turbomind/supported_models.py -> conditions; HELPER stands for a helper's."""

_UNSUPPORTED = "f'unsupported quant config: {quant_config}'"
_AWQ = f"assert version == 'gemm', {_UNSUPPORTED}"
_COMPRESSED = (
    "_format = quant_config['config_groups']['group_0']['format']\n"
    "assert _format == 'pack-quantized', "
    "f'compressed-{0}sors only supports pack-quantized format, but got {{_format}}'\n"
    "_weights = quant_config['config_groups']['group_0']['weights']\n_group_size = _weights['group_size']\n"
    "_num_bits = _weights['num_bits']\n_type = _weights['type']\n"
    "assert _num_bits == 4 and _type == 'int', "
    "f'pack-quantized requires 4-bit int, but got {{_num_bits}}-bit {{_type}}'"
)

TURBOMIND_WEIGHTS = {
    # bits and the kind of zero points are not looked at, but there is no other kernel: weight_format.py, GPTQFormat.
    _AWQ: ("stated_gemm", "bits_4"),
    f"{_AWQ}\nmodules_to_not_convert = quant_config.get('modules_to_not_convert') or []\n"
    "if any(('self_attn' in name for name in modules_to_not_convert)):\n    mixed_awq = True": (
        "stated_gemm",
        "bits_4",
    ),
    f"assert not quant_config.get('desc_act', False) and quant_config.get('sym', True), {_UNSUPPORTED}": (
        "bits_4",
        "no_desc_act",
        "symmetric",
        "zeros_v1",
    ),
    "pass": ("block_128",),  # fp8: the loader knows .weight_scale_inv alone, one scale per 128 x 128
    "_group_size = 32": (),  # mxfp4
    # Only group_0 is read; `weight_g_idx` is not.
    _COMPRESSED.format("tenn"): ("group_0_packed", "bits_4", "integers", "no_actorder"),
    _COMPRESSED.format("ten"): ("group_0_packed", "bits_4", "integers", "no_actorder"),
}
"""Body of `if quant_method == ...` in TurboMind's converter -> conditions."""

PYTORCH_WEIGHTS = {
    # It reads every file as "gemm" and asks nothing; its kernel takes a group at a time, a power of two that fits into
    # shared memory (kernels/cuda/awq_kernels.py, BLOCK_SIZE_K).
    "awq": ("is_stated", "stated_gemm", "bits_4", "group_32_64_128"),
    "smooth_quant": ("is_stated",),
    "fp8": ("is_stated", "block_or_static"),
    "modelslim_w8a8_static": None,  # Ascend
    "compressed-tensors": ("is_stated", "group_0_packed", "bits_4", "group_32", "symmetric", "experts_alone"),
}
"""Quantization method in the PyTorch engine's layers -> conditions; None: not on an NVIDIA GPU."""

PYTORCH_COMPRESSED = {
    "num_bits": 4,
    "group_size": 32,
    "strategy": "group",
    "symmetric": True,
    "dynamic": False,
    "type": "int",
}
"""What pytorch/config.py expects of compressed-tensors; the conditions above say the same."""
