"""A conversation: what was asked and answered, what of it is sent, and what stays of it in a file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploytk.base.errors import UsageError
from deploytk.base.json import to_json
from deploytk.base.terminal import printable

Ending = Literal["stop", "length", "stopped", "other"]


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    reasoning: str  # what the model thought before, where its server parts that from the answer
    ended_by: Ending  # "stopped": by whoever asked
    prompt_tokens: int | None  # None when the server does not count
    completion_tokens: int | None
    first_s: float | None  # until the first text; None when there was none
    total_s: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that was said to one model."""

    url: str
    model: str
    system: str = ""
    turns: tuple[Turn, ...] = ()

    def messages(self, question: str) -> list[dict[str, str]]:
        """What is sent to ask `question` after all that was said."""
        said = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            said += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return [*said, {"role": "user", "content": question}]

    def grown(self, turn: Turn) -> Conversation:
        return dataclasses.replace(self, turns=(*self.turns, turn))

    def shortened(self) -> Conversation:
        return dataclasses.replace(self, turns=self.turns[:-1])

    def begun_anew(self) -> Conversation:
        return dataclasses.replace(self, turns=())

    def markdown(self) -> str:
        parts = [f"# {self.model}", *([f"*{self.system}*"] if self.system else [])]
        for turn in self.turns:
            parts += [f"**You:** {turn.question}", turn.answer]
        return printable("\n\n".join(parts) + "\n")

    def write(self, path: Path) -> None:
        """As Markdown, or as JSON where the name ends so; raises UsageError when that cannot be."""
        text = to_json(self, indent=2) + "\n" if path.suffix == ".json" else self.markdown()
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise UsageError(f"{path} is there already", hint="take another name") from error
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{path} cannot be written: {why}", hint="take another place") from error
