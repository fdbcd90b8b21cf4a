"""The chat templates that LMDeploy up to 0.9.2 has by name: what `model_name` in a config.ini may say.

Source: `@MODELS.register_module` in lmdeploy/model.py at every tag.
"""

from __future__ import annotations

from deploytk.lmdeploy.versions import release_index

_LAST = "0.9.2.post1"

# Name, first version, last version where that is not the last of all.
_NAMES = """
    Mistral-7B-Instruct 0.2.5-0.5.1
    Mixtral-8x7B-Instruct 0.2.5-0.5.1
    baichuan-7b 0.0.10-0.5.1
    baichuan-base 0.2.6-0.5.1
    baichuan2 0.2.6-
    baichuan2-7b 0.0.10-0.5.1
    base 0.0.10-
    chatglm 0.2.6-
    chatglm2-6b 0.2.0-0.5.1
    chatglm3 0.5.0-
    codegeex4 0.5.1-
    codellama 0.0.10-
    cogvlm 0.5.0-
    cogvlm2 0.5.0-
    dbrx 0.3.0-0.7.3
    deepseek 0.2.6-
    deepseek-chat 0.2.5-0.5.1
    deepseek-coder 0.3.0-
    deepseek-r1 0.7.0.post2-
    deepseek-v3 0.7.2-
    deepseek-vl 0.3.0-
    deepseek-vl2 0.7.1-
    falcon 0.2.0-0.7.3
    gemma 0.2.5-
    glm4 0.5.0-
    intern-s1 0.9.2-
    internlm 0.0.10-
    internlm-20b 0.0.10-0.5.1
    internlm-chat 0.0.10-0.5.1
    internlm-chat-20b 0.0.10-0.5.1
    internlm-chat-7b 0.0.10-0.5.1
    internlm-chat-7b-8k 0.0.10-0.5.1
    internlm-xcomposer2 0.4.0-
    internlm-xcomposer2-4khd 0.4.0-0.5.0
    internlm-xcomposer2d5 0.5.1-
    internlm2 0.2.2-
    internlm2-1_8b 0.2.2-0.5.1
    internlm2-20b 0.2.0-0.5.1
    internlm2-7b 0.2.0-0.5.1
    internlm2-chat 0.2.2-0.5.1
    internlm2-chat-1_8b 0.2.2-0.5.1
    internlm2-chat-20b 0.2.0-0.5.1
    internlm2-chat-7b 0.2.0-0.5.1
    internlm3 0.7.0-
    interns1 0.9.2-
    internvl-internlm2 0.4.1-
    internvl-phi3 0.5.0-
    internvl-zh 0.4.0-
    internvl-zh-hermes2 0.4.0-
    internvl2-internlm2 0.5.1-
    internvl2-phi3 0.5.1-
    internvl2_5 0.6.4-
    llama 0.0.10-
    llama-2 0.2.0-0.5.1
    llama-2-chat 0.2.0-0.5.1
    llama2 0.0.10-
    llama3 0.4.0-
    llama3_1 0.5.2-
    llama3_2 0.6.2-
    llama4 0.7.3-
    llava-chatml 0.4.0-
    llava-v1 0.4.2-
    mini-gemini-vicuna 0.4.0-0.7.3
    minicpm3 0.6.1-
    minicpmv-2d6 0.6.0-
    mistral 0.2.6-
    mixtral 0.2.6-
    molmo 0.6.3-
    phi-3 0.4.2-
    phi-4 0.8.0-
    puyu 0.0.10-
    qwen 0.2.6-
    qwen-14b 0.0.11-0.5.1
    qwen-7b 0.0.10-0.5.1
    qwen2d5 0.6.4-
    qwen2d5-vl 0.8.0-
    qwen3 0.9.0-
    qwq 0.7.2-
    qwq_preview 0.7.2-
    solar 0.0.12-
    solar-70b 0.2.0-0.5.1
    ultracm 0.0.14-
    ultralm 0.0.14-
    vicuna 0.0.10-
    wizardlM 0.0.14-0.1.0
    wizardlm 0.2.0-
    yi 0.1.0-
    yi-200k 0.2.0-0.5.1
    yi-34b 0.2.0-0.5.1
    yi-chat 0.2.0-0.5.1
    yi-vl 0.2.6-
"""


def chat_template_names(version: str) -> tuple[str, ...]:
    """The names that `version` knows; it does not start with another. Empty from 0.10.0 on, where none is needed."""
    if release_index(version) > release_index(_LAST):
        return ()
    found = []
    for line in _NAMES.split("\n"):
        name, _, span = line.strip().rpartition(" ")
        first, _, last = span.partition("-")
        if name and release_index(first) <= release_index(version) <= release_index(last or _LAST):
            found.append(name)
    return tuple(found)
