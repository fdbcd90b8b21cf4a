"""What the API server of each LMDeploy version does with a request beyond plain text.

A field that it takes and forgets is none that it has: `n` before 0.16.0, `echo` and `suffix` ever. Names are those of
deploytk.app.features.
Source: lmdeploy/serve/openai/protocol.py, api_server.py (from 0.16.0 on endpoints/ and chat_completions/) and
turbomind/turbomind.py of every tag, and of the wheel of 0.18.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploytk.lmdeploy.versions import NEWEST, LmdeployEngine, release_index

_BOTH: tuple[LmdeployEngine, ...] = ("turbomind", "pytorch")


@dataclass(frozen=True, slots=True)
class _Has:
    feature: str
    first: str
    last: str = NEWEST
    engines: tuple[LmdeployEngine, ...] = _BOTH


_TABLE = (
    # The PyTorch engine has log probabilities only where it is started with --logprobs-mode.
    _Has("logprobs", "0.4.0", engines=("turbomind",)),
    _Has("completion_logprobs", "0.4.0", "0.12.3", engines=("turbomind",)),  # 0.13.0: "logprobs is removed"
    _Has("response_format", "0.6.0", engines=("pytorch",)),
    _Has("response_format", "0.10.2", engines=("turbomind",)),
    _Has("choices", "0.16.0"),  # chat_completions/fanout.py
    _Has("prompts", "0.0.10"),  # in a stream, all of them have the index 0
    _Has("seed", "0.6.0"),
    _Has("min_p", "0.6.2.post1"),
    _Has("max_completion_tokens", "0.10.0"),
    _Has("logit_bias", "0.6.0", engines=("pytorch",)),
    _Has("reasoning_effort", "0.10.2"),
    _Has("lmdeploy_fields", "0.0.10"),
)

# Format of the calls -> the parser's names and the versions from which on they are registered.
_PARSERS = {
    "qwen2d5": (("qwen", "0.7.2"), ("qwen2d5", "0.9.1")),
    "qwen3": (("qwen", "0.7.2"), ("qwen3", "0.9.1")),
    "qwen3coder": (("qwen3coder", "0.12.2"),),
    "glm47": (("glm47", "0.13.0"),),
    "internlm": (("internlm", "0.7.2"),),
    "llama3": (("llama3", "0.7.2"),),
    "kimi_k2": (("kimi_k2", "0.18.0"),),
}
# Their prompts are made by LMDeploy's own code, not by a template.
_BY_ARCHITECTURE = {
    "DeepseekV32ForCausalLM": (("deepseek-v32", "0.15.0"),),
    "DeepseekV4ForCausalLM": (("deepseek-v4", "0.15.0"),),
}

# What `--reasoning-parser` takes, and from which version on; from 0.13.0 on the first three are `default`.
# Source: ReasoningParserManager of every tag (serve/openai/reasoning_parser/, from 0.13.0 on serve/parsers/).
_REASONING_PARSERS = {
    "deepseek-r1": "0.7.2",
    "qwen-qwq": "0.7.2",
    "intern-s1": "0.9.2",
    "default": "0.13.0",
    "deepseek-v3": "0.13.0",
    "deepseek-v32": "0.15.0",
    "deepseek-v3.2": "0.15.0",
    "deepseek-v4": "0.15.0",
}
REASONING_PARSERS = tuple(_REASONING_PARSERS)


def reasoning_parsers(version: str) -> tuple[str, ...]:
    """What `--reasoning-parser` of that version takes; nothing where there is no such flag."""
    at = release_index(version)
    return tuple(name for name, first in _REASONING_PARSERS.items() if release_index(first) <= at)


def api_features(version: str, engine: LmdeployEngine) -> tuple[str, ...]:
    """What every server of that version and engine has, sorted; tools and images depend on the model."""
    at = release_index(version)
    return tuple(
        sorted(
            one.feature
            for one in _TABLE
            if engine in one.engines and release_index(one.first) <= at <= release_index(one.last)
        )
    )


def tool_call_parser(version: str, tool_format: str | None, architecture: str) -> str | None:
    """What `--tool-call-parser` of that version is for a model that writes its calls so; None when it has none."""
    names = _BY_ARCHITECTURE.get(architecture) or _PARSERS.get(tool_format or "", ())
    known = [name for name, first in names if release_index(first) <= release_index(version)]
    return known[-1] if known else None


def forces_tool_calls(version: str, parser: str | None) -> bool:
    """Whether `tool_choice: required` makes a model call a tool; before 0.18.0 it was taken for `auto`.

    Source: 0.18.0 serve/parsers/tool_parser/tool_parser.py, `build_required_response_format`. That of llama3 has none.
    """
    return parser != "llama3" and release_index(version) >= release_index("0.18.0")


def brings_tool_parser(version: str, architecture: str) -> bool:
    """Whether tools work without a flag: of gpt-oss, whose answers are in a format of their own (Harmony)."""
    return architecture == "GptOssForCausalLM" and release_index(version) >= release_index("0.10.2")
