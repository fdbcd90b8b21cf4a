"""A checkpoint of random fp16 weights in InternLM-Chat-7B's shape (7.3 billion parameters), with a tokenizer of bytes.

    python benchmarks/gpu/dense_7b.py DIR

About 25 s where there is a GPU, 14.6 GB. Time and memory of a quantizer do not depend on the values of weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 103168


def main() -> None:
    out = Path(sys.argv[1])
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    model.save_pretrained(out, max_shard_size="2GB")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*dict.fromkeys(["<unk>", "<s>", "</s>", *letters])]
    tokens = [*known, *(f"<{number}>" for number in range(VOCABULARY - len(known)))]
    tokenizer = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    fast.save_pretrained(out)


if __name__ == "__main__":
    main()
