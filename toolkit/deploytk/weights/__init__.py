"""Weights of every layout, under their Hugging Face names.

    weights = open_weights(read_artifact(directory))
    for tensor in weights.tensors(dequantize=True):
        tensor.name, tensor.dtype, tensor.shape     # "model.layers.0.self_attn.q_proj.weight", "F16", (4096, 4096)
        values = tensor.read()                      # numpy; BF16 as uint16 bit patterns

`open_weights` takes workspaces of config.ini (0.0.x to 0.5.3) and config.yaml (0.6.0 to 0.9.2) and Hugging Face
directories of safetensors. Tensors are lazy: reading one after the other never holds more than that one.
`names="llama"` gives the tensors of InternLM and InternLM2 as the Llama model that they equal, for engines that
know no InternLM. `hf_config` is the config.json that goes with them, `tokenizer_files` what to put beside it.
"""

from deploytk.weights.read import hf_config, open_weights, tokenizer_files
from deploytk.weights.scratch import scratch
from deploytk.weights.value import STORED_AS, Dtype, ModelWeights, Source, Tensor

__all__ = [
    "STORED_AS",
    "Dtype",
    "ModelWeights",
    "Source",
    "Tensor",
    "hf_config",
    "open_weights",
    "scratch",
    "tokenizer_files",
]
