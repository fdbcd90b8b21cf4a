"""The chat templates of legacy names build the prompts that LMDeploy built."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest
from conftest import MODELS

from deploytk.artifact import read_artifact
from deploytk.base.progress import Silent
from deploytk.modernize import ModernizeOptions, modernize
from deploytk.modernize.templates import legacy_template
from deploytk.modernize.tokens import adds_first_token, token_ids


def written(root: Path, destination: Path) -> Path:
    modernize(read_artifact(root), destination, ModernizeOptions(), Silent())
    return destination


ONE = [{"role": "user", "content": "A"}]
CHAT = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "A"},
    {"role": "assistant", "content": "B"},
    {"role": "user", "content": "C"},
]
IM = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
IM += "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n"
INTERNLM = (
    "You are an AI assistant whose name is InternLM (书生·浦语).\n- InternLM (书生·浦语) is a conversational "
    "language model that is developed by Shanghai AI Laboratory (上海人工智能实验室). It is designed to be "
    "helpful, honest, and harmless.\n- InternLM (书生·浦语) can understand and communicate fluently in the "
    "language chosen by the user such as English and 中文.\n"
)
LLAMA = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while "
    "being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
    "dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive "
    "in nature.\n\nIf a question does not make any sense, or is not factually coherent, explain why "
    "instead of answering something not correct. If you don't know the answer to a question, please "
    "don't share false information."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
ULTRA = (
    "A one-turn chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, very detailed, and polite answers to the user's questions."
)

# name: (a question, a chat) as `messages2prompt` of lmdeploy/model.py at the tags gives them.
PROMPTS = {
    "internlm-chat-7b": (
        f"<|System|>:{INTERNLM}\n<|User|>:A\n<|Bot|>:",
        "<|System|>:S\n<|User|>:A\n<|Bot|>:B<eoa>\n<|User|>:C\n<|Bot|>:",
    ),
    "internlm2-chat-7b": (
        f"<|im_start|>system\n{INTERNLM}<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n",
        IM,
    ),
    "llama2": (
        f"[INST] <<SYS>>\n{LLAMA}\n<</SYS>>\n\nA [/INST] ",
        "[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B</s><s>[INST] C [/INST] ",
    ),
    "codellama": (
        "[INST] <<SYS>>\n\n<</SYS>>\n\nA [/INST] ",
        "[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B</s><s>[INST] C [/INST] ",
    ),
    "qwen-7b": (
        (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nA<|im_end|>\n"
            "<|im_start|>assistant\n"
        ),
        IM,
    ),
    "yi": ("<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n", IM),
    "baichuan2": ("<reserved_106>A<reserved_107>", "S<reserved_106>A<reserved_107>B<reserved_106>C<reserved_107>"),
    "vicuna": (f"{VICUNA}USER: A ASSISTANT:", "S USER: A ASSISTANT: B</s>USER: C ASSISTANT:"),
    "solar": (
        "### System:\n\n\n### User:\nA\n\n### Assistant:\n",
        "### System:\nS\n\n### User:\nA\n\n### Assistant:\nB### User:\nC\n\n### Assistant:\n",
    ),
    "ultralm": (
        f"User: {ULTRA}</s>\nUser: A</s>\nAssistant: ",
        "User: S</s>\nUser: A</s>\nAssistant: B</s>\nUser: C</s>\nAssistant: ",
    ),
    "mistral": ("[INST] A [/INST]", "S[INST] A [/INST]B</s>[INST] C [/INST]"),
    "gemma": (
        "<start_of_turn>user\nA<end_of_turn>\n<start_of_turn>model\n",
        (
            "S<start_of_turn>user\nA<end_of_turn>\n<start_of_turn>model\nB<end_of_turn>\n"
            "<start_of_turn>user\nC<end_of_turn>\n<start_of_turn>model\n"
        ),
    ),
    "llama3": (
        (
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
        (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        ),
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_legacy_template_gives_the_prompt_that_lmdeploy_built(name):
    template = legacy_template(name)
    assert template is not None

    jinja = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template.jinja(with_bos=False))

    prompts = tuple(jinja.render(messages=chat, add_generation_prompt=True) for chat in (ONE, CHAT))
    assert prompts == PROMPTS[name]


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("internlm-chat-7b-8k", "internlm-chat-7b"), ("internlm-chat-20b", "internlm-chat-7b"),
        ("internlm2", "internlm2-chat-7b"), ("internlm2-chat-20b", "internlm2-chat-7b"), ("qwen", "qwen-7b"),
        ("qwen-14b", "qwen-7b"), ("baichuan2-7b", "baichuan2"), ("wizardlM", "vicuna"), ("llama-2-chat", "llama2"),
        ("yi-34b", "yi"), ("ultracm", "ultralm"), ("solar-70b", "solar"), ("mixtral", "mistral"),
    ],
)  # fmt: skip
def test_the_names_of_one_template_share_it(name, same_as):
    assert legacy_template(name) is legacy_template(same_as) is not None


def test_models_without_chats_get_no_template(tmp_path):
    assert legacy_template("base") is None
    assert legacy_template("internlm2-7b") is None
    written(MODELS / "workspace-0.7.3-awq", tmp_path / "model")
    assert not (tmp_path / "model" / "chat_template.jinja").exists()


def test_the_tokenizers_own_template_stays(tmp_path, model_copy):
    root = model_copy("workspace-0.4.2-awq")
    settings = root / "triton_models/tokenizer/tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": "{{ messages }}"}))

    done = modernize(read_artifact(root), tmp_path / "model", ModernizeOptions(), Silent())

    assert done.chat_template == "own"
    assert not (tmp_path / "model/chat_template.jinja").exists()
    assert json.loads((tmp_path / "model/tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"


def test_an_unknown_template_is_said(tmp_path, model_copy):
    root = model_copy("workspace-0.4.2-awq")
    config = root / "triton_models/weights/config.ini"
    config.write_text(config.read_text().replace("internlm-chat-7b", "my-own"))
    notes = []

    class Noting(Silent):
        def note(self, text):
            notes.append(text)

    done = modernize(read_artifact(root), tmp_path / "model", ModernizeOptions(), Noting())

    assert done.chat_template == "none"
    assert notes == ["chat template my-own is unknown: chats need LMDeploy's --chat-template"]


def test_an_answer_stops_where_the_template_says(tmp_path, model_copy):
    root = model_copy("workspace-0.4.2-awq")
    config = root / "triton_models/weights/config.ini"
    config.write_text(config.read_text().replace("internlm-chat-7b", "gemma"))
    tokenizer = root / "triton_models/tokenizer/tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 1000, "content": "<end_of_turn>"})
    tokenizer.write_text(json.dumps(content))

    generation = json.loads((written(root, tmp_path / "model") / "generation_config.json").read_text())

    assert generation["eos_token_id"] == [4, 1000]


def test_tokens_are_found_in_a_sentencepiece_model(tmp_path):
    def piece(text: str) -> bytes:
        inner = b"\x0a" + bytes([len(text)]) + text.encode() + b"\x15\x00\x00\x80\x3f"  # piece, score
        return b"\x0a" + bytes([len(inner)]) + inner

    path = tmp_path / "tokenizer.model"
    path.write_bytes(piece("<unk>") + piece("<s>") + piece("<eoa>") + b"\x12\x02\x08\x01")

    assert token_ids([path], ["<eoa>", "<eoh>"]) == {"<eoa>": 2}
    assert adds_first_token([path])


def test_a_template_begins_with_the_first_token_where_the_tokenizer_does(tmp_path):
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"add_bos_token": true}')
    template = legacy_template("internlm2")
    assert template is not None

    text = jinja2.Template(template.jinja(with_bos=adds_first_token([settings]))).render(bos_token="<s>", messages=CHAT)

    assert text.startswith("<s><|im_start|>system\nS")
