"""Chat templates of the legacy names, as Jinja that any tokenizer can carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_DATA = Path(__file__).with_name("chat_templates.json")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template of LMDeploy up to 0.9.2, by the names of `BaseChatTemplate` (lmdeploy/model.py)."""

    names: tuple[str, ...]
    begin: str
    system: str
    meta_instruction: str | None  # the system's words when a chat has none of its own
    eosys: str
    user: str
    eoh: str
    assistant: str
    generation: str  # what asks for an answer: `assistant`, often without its last blank
    eoa: str
    separator: str
    stop_words: tuple[str, ...]

    def jinja(self, *, with_bos: bool) -> str:
        """The template; `with_bos` where the tokenizer itself would put its first token."""

        def said(*texts: str) -> str:
            text = "".join(texts)
            return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""

        def around(before: str, after: str) -> str:
            return f"{said(before)}{{{{ message['content'] }}}}{said(after)}"

        begin = said(self.begin) or ("{{ bos_token }}" if with_bos else "")
        if self.meta_instruction is not None:
            default = said(self.system, self.meta_instruction, self.eosys)
            begin += f"{{% if messages[0]['role'] != 'system' %}}{default}{{% endif %}}"
        return (
            f"{begin}{{% for message in messages %}}"
            f"{{% if message['role'] == 'system' %}}{around(self.system, self.eosys)}"
            f"{{% elif message['role'] == 'user' %}}{around(self.user, self.eoh)}"
            f"{{% elif message['role'] == 'assistant' %}}{around(self.assistant, self.eoa + self.separator)}"
            f"{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{said(self.generation)}{{% endif %}}"
        )


def legacy_template(name: str) -> ChatTemplate | None:
    """The template of that name in LMDeploy 0.0.10 to 0.9.2; None for names without one (base, completion models)."""
    return _templates().get(name)


@cache
def _templates() -> dict[str, ChatTemplate]:
    found: dict[str, ChatTemplate] = {}
    for entry in json.loads(_DATA.read_text(encoding="utf-8"))["templates"]:
        fields: dict[str, Any] = {**entry, "names": tuple(entry["names"]), "stop_words": tuple(entry["stop_words"])}
        template = ChatTemplate(**fields)
        found |= dict.fromkeys(template.names, template)
    return found
