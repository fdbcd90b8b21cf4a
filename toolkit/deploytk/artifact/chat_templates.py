"""The chat templates that a directory brings, and how the model writes the calls of tools by them. None is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from deploytk.base.json import parse_json

ToolFormat = Literal["qwen2d5", "qwen3", "qwen3coder", "glm47", "internlm", "llama3", "kimi_k2"]
"""How calls of tools are written, by LMDeploy's names for it."""

_LARGEST_FILE_BYTES = 2**24
_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")

# The marks in a template that are a format's own; the first that has all of them counts. A template without tools has
# none, whatever the architecture can: what a fine-tuned model was taught is in its template.
_MARKS: tuple[tuple[ToolFormat, tuple[str, ...]], ...] = (
    ("qwen3coder", ("<tool_call>", "<function=", "<parameter=")),
    ("glm47", ("<tool_call>", "<arg_key>", "<arg_value>")),
    ("kimi_k2", ("<|tool_calls_section_begin|>",)),
    ("qwen3", ("<tool_call>", '"arguments"', "<think>")),
    ("qwen2d5", ("<tool_call>", '"arguments"')),
    ("internlm", ("<|action_start|>", "<|plugin|>")),
    ("llama3", ("<|python_tag|>", '"parameters"')),
)

# The templates that LMDeploy up to 0.9 has by name, and writes tools with: lmdeploy/model.py of v0.7.3.
_BY_NAME: dict[str, ToolFormat] = {
    "internlm2": "internlm",
    "internlm3": "internlm",
    "llama3_1": "llama3",
    "llama3_2": "llama3",
    "qwen2d5": "qwen2d5",
    "qwq": "qwen2d5",
}


def read_templates(root: Path) -> list[str]:
    """The templates that servers look for; those that cannot be read are for the server to refuse."""
    found: list[object] = []
    for name in _FILES:
        content = _content(root / name)
        if name.endswith(".jinja"):
            found.append(content.decode("utf-8", "replace"))
            continue
        try:
            value = parse_json(content)
        except ValueError:
            continue
        own = value.get("chat_template") if isinstance(value, dict) else None
        found += [one.get("template") for one in own if isinstance(one, dict)] if isinstance(own, list) else [own]
    return [template for template in found if isinstance(template, str) and template]


def tool_format(root: Path) -> ToolFormat | None:
    """How the templates in `root` have calls of tools written; None when they do not, or as no parser knows it."""
    # Jinja writes quotes in texts with a backslash before them.
    text = "\n".join(read_templates(root)).replace('\\"', '"')
    return next((name for name, marks in _MARKS if all(mark in text for mark in marks)), None)


def named_tool_format(name: str | None) -> ToolFormat | None:
    """The same of the chat template that a workspace names."""
    return _BY_NAME.get(name or "")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE_BYTES)
    except OSError:
        return b""
