"""What a request may ask for beyond plain text, and the refusal of what the engine would ignore without a word.

Which engine has what is decided by the plan (`features` in deploytk.json); of the CPU engine it is written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Sequence, Tuple  # noqa: UP035 (Python 3.8 in old images)

from .refused import RefusedError

Neutral = Dict[str, Tuple[Any, ...]]  # noqa: UP006 (field -> the values with which it asks for nothing)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BOTH = (CHAT, TEXT)


@dataclass(frozen=True)
class Feature:
    """Something that not every engine has."""

    name: str  # in a plan's `features`
    words: str  # what people call it
    fields: Neutral
    paths: tuple[str, ...] = BOTH
    parts: tuple[str, ...] = ()  # of a message: their types

    def asked_by(self, path: str, fields: Mapping[str, Any]) -> str:
        """The first field that asks for it, "" when none does."""
        if path not in self.paths:
            return ""
        if self.name == "required_tools":
            return "tool_choice" if _must_call(fields.get("tool_choice")) else ""
        if self.name in ("prompts", "streamed_prompts"):
            return self._asked_by_prompt(fields)
        for name, neutral in self.fields.items():
            if name in fields and not _asks_nothing(fields[name], neutral):
                return name
        messages = fields.get("messages") if path == CHAT and self._is_in_messages else None
        for at, message in enumerate(messages if isinstance(messages, list) else ()):
            name = self._asked_by_message(message)
            if name:
                return f"messages.{at}.{name}"
        return ""

    @property
    def _is_in_messages(self) -> bool:
        return bool(self.parts) or self.name == "tools"

    def _asked_by_prompt(self, fields: Mapping[str, Any]) -> str:
        prompt = fields.get("prompt")
        asks = isinstance(prompt, list) and (self.name == "prompts" or (len(prompt) > 1 and bool(fields.get("stream"))))
        return "prompt" if asks else ""

    def _asked_by_message(self, message: Any) -> str:
        if not isinstance(message, dict):
            return ""
        if self.name == "tools" and message.get("tool_calls"):
            return "tool_calls"
        if self.name == "tools" and message.get("role") in ("tool", "function"):
            return "role"
        content = message.get("content")
        for at, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and part.get("type") in self.parts:
                return f"content.{at}.type"
        return ""


FEATURES = (
    Feature("tools", "tools (function calls)", {"tools": ([],), "tool_choice": ("none", "auto")}, (CHAT,)),
    Feature("required_tools", "calls that must be made", {"tool_choice": ()}, (CHAT,)),
    Feature("response_format", "JSON by a schema", {"response_format": ({"type": "text"},)}, (CHAT,)),
    Feature("logprobs", "log probabilities in a chat", {"logprobs": (False,), "top_logprobs": (0,)}, (CHAT,)),
    Feature("completion_logprobs", "log probabilities of a completion", {"logprobs": (False,)}, (TEXT,)),
    Feature("choices", "several answers in a chat", {"n": (1,)}, (CHAT,)),
    Feature("completion_choices", "several completions", {"n": (1,), "best_of": (1,)}, (TEXT,)),
    Feature("prompts", "a list of prompts", {}, (TEXT,)),
    Feature("streamed_prompts", "a stream of several prompts", {}, (TEXT,)),
    Feature("echo", "the prompt before its completion", {"echo": (False,)}, (TEXT,)),
    Feature("suffix", "a text after the completion", {"suffix": ("",)}, (TEXT,)),
    Feature(
        "images",
        "images and other media",
        {"image_data": ()},
        (CHAT,),
        parts=("image_url", "image", "image_data", "video_url", "video", "audio_url", "audio", "time_series_url"),
    ),
    Feature(
        "speech",
        "speech, and files in messages",
        {"audio": (), "modalities": (["text"],)},
        (CHAT,),
        parts=("input_audio", "file", "input_file"),
    ),
    Feature("reasoning_effort", "an effort of thinking", {"reasoning_effort": ("none",)}, (CHAT,)),
    Feature("seed", "a seed", {"seed": ()}),
    Feature("min_p", "a least probability", {"min_p": (0,)}),
    Feature("logit_bias", "a bias of tokens", {"logit_bias": ({},)}),
    Feature(
        "penalties", "penalties other than repetition_penalty", {"presence_penalty": (0,), "frequency_penalty": (0,)}
    ),
    Feature(
        "lmdeploy_fields",
        "LMDeploy's own fields",
        {
            "min_new_tokens": (0,),
            "skip_special_tokens": (True,),
            "include_stop_str_in_output": (False,),
            "return_token_ids": (False,),
            "return_logprob": (False,),
            "repetition_ngram_size": (0,),
            "chat_template_kwargs": ({},),
            "enable_thinking": (),
            "input_ids": (),
        },
    ),
    Feature(
        "functions", "functions, which tools replaced", {"functions": ([],), "function_call": ("none", "auto")}, (CHAT,)
    ),
    Feature("prediction", "a predicted answer", {"prediction": ()}, (CHAT,)),
    Feature("web_search", "a search of the web", {"web_search_options": ()}, (CHAT,)),
    Feature("verbosity", "a verbosity", {"verbosity": ()}, (CHAT,)),
)
NAMES = tuple(feature.name for feature in FEATURES)
RENAMED = {"max_completion_tokens": "max_tokens"}  # where an engine has the old name alone: the app says that

CPU = ("max_completion_tokens", "min_p", "prompts", "seed", "streamed_prompts")
"""What the CPU engine has."""


def renamed(fields: dict[str, Any], has: Sequence[str]) -> dict[str, Any]:
    """The request with the names that its engine knows."""
    if _must_call(fields.get("tool_choice")):
        fields = _required(fields)
    missing = {new: old for new, old in RENAMED.items() if fields.get(new) is not None and new not in has}
    kept = {name: value for name, value in fields.items() if name not in missing}
    return {**kept, **{old: fields[new] for new, old in missing.items()}}


def _must_call(choice: Any) -> bool:
    """Whether the model must call a tool, whichever, a named one, or one of some."""
    if not isinstance(choice, dict):
        return bool(choice == "required")
    allowed = choice.get("allowed_tools")
    return choice.get("type") != "allowed_tools" or (isinstance(allowed, dict) and allowed.get("mode") == "required")


def _required(fields: dict[str, Any]) -> dict[str, Any]:
    """The same request without names: LMDeploy offers only the tools that are named, and forces none but `required`."""
    choice, tools = fields["tool_choice"], fields.get("tools")
    if not isinstance(choice, dict) or not isinstance(tools, list):
        return fields
    allowed = choice.get("allowed_tools", {}).get("tools") if choice.get("type") == "allowed_tools" else [choice]
    names = {_name(one) for one in (allowed if isinstance(allowed, list) else ())}
    named = [tool for tool in tools if _name(tool) in names]
    return {**fields, "tool_choice": "required", "tools": named} if named else fields


def _name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


_ENGINES = {"cpu": "CPU engine", "turbomind": "TurboMind engine", "pytorch": "PyTorch engine"}
_HINTS = {
    "completion_logprobs": "ask for them in a chat",
    "penalties": "take repetition_penalty",
    "streamed_prompts": "ask for each by itself, or without stream",
    "required_tools": "take tool_choice auto, and see whether it called one",
}


def refuse_missing(path: str, fields: Mapping[str, Any], has: Sequence[str], engine: str) -> None:
    """Raises RefusedError (400) for the first field that asks for a feature which `engine` does not have."""
    for feature in FEATURES:
        param = "" if feature.name in has else feature.asked_by(path, fields)
        if param:
            hint = "" if engine == "cpu" and feature.name != "penalties" else _HINTS.get(feature.name, "")
            why = f"{param}: the {_ENGINES.get(engine, engine)} of this model has no {feature.words}"
            raise RefusedError(400, "unsupported_parameter", f"{why}; {hint}" if hint else why, param=param)


def _asks_nothing(value: Any, neutral: Sequence[Any]) -> bool:
    """None asks for nothing; True is not 1, and 0 is not False: `"logprobs": 0` asks for those of the tokens chosen."""
    return value is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)
