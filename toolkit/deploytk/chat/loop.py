"""Question, answer, question: until there is none."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from deploytk.base.errors import DeployError, UsageError
from deploytk.base.terminal import Stripped, printable
from deploytk.chat.answer import Answering, Sampling
from deploytk.chat.conversation import Conversation, Turn
from deploytk.chat.ctrl_c import CtrlC, Stoppable
from deploytk.chat.reading import ReadLine, read_message
from deploytk.serve import Endpoint

_AGAIN_WITHIN_S = 2.0  # the second Ctrl-C ends it

HELP = """/system TEXT   what the model is told first; without TEXT it is shown
/reset         begin anew; the system text stays
/undo          take the last question and its answer back
/retry         ask the last question again
/history       what was said
/save FILE     as Markdown, or as JSON where FILE ends with .json
/help          this
/exit          end, as Ctrl-D does; Ctrl-C stops an answer, twice it ends
A line that ends with \\ goes on; between lines of \"\"\" is one message; // begins a message with /."""


@dataclasses.dataclass(frozen=True, slots=True)
class Screen:
    """Where things are shown: answers by `say`, what the model thought by `think`, all else by `note`."""

    say: Callable[[str], None]
    think: Callable[[str], None]
    note: Callable[[str], None]


class Chat:
    """A conversation at a keyboard, or one of questions that come through a pipe, where an error ends it."""

    def __init__(
        self, endpoint: Endpoint, screen: Screen, sampling: Sampling, system: str, *, is_interactive: bool
    ) -> None:
        self.conversation = Conversation(endpoint.url, endpoint.model, system)
        self._endpoint = endpoint
        self._screen = screen
        self._sampling = sampling
        self._is_interactive = is_interactive
        self._has_ended = False
        self._stoppable = Stoppable()
        self._stopped_s = float("-inf")  # when Ctrl-C last found nothing to stop
        self._commands: dict[str, Callable[[str], None]] = {
            "/system": self._system, "/reset": self._reset, "/undo": self._undo, "/retry": self._retry,
            "/history": self._history, "/save": self._save, "/help": self._help, "/exit": self._exit,
        }  # fmt: skip

    def run(self, read: ReadLine) -> Conversation:
        """All that was said, once nothing more is asked."""
        with self._stoppable.at_keyboard() if self._is_interactive else contextlib.nullcontext():
            while not self._has_ended:
                self._step(read)
        return self.conversation

    def _step(self, read: ReadLine) -> None:
        try:
            with self._stoppable:
                message = read_message(read)
            self._has_ended = message is None
            self._take(message or "")
        except CtrlC:
            self._note_ctrl_c()
        except DeployError as error:
            if not self._is_interactive:
                raise
            self._screen.note(f"{error}\n hint: {error.hint}")

    def _take(self, message: str) -> None:
        name, _, rest = message.strip().partition(" ")
        if not name:
            return
        if name.startswith("/") and not name.startswith("//"):
            if name not in self._commands:
                raise UsageError(f"there is no {name}", hint="/help lists what there is; // begins a message with /")
            self._commands[name](rest.strip())
        else:
            self._ask(message.strip().replace("//", "/", 1) if name.startswith("//") else message)

    def _ask(self, question: str) -> None:
        plain = Stripped()

        def write(text: str, is_thought: bool) -> None:
            shown = plain.feed(text)
            (self._screen.think if is_thought else self._screen.say)(shown)

        answering = Answering(question, write)
        try:
            with self._stoppable:
                answering.run(self._endpoint, self.conversation, self._sampling)
        except CtrlC:
            self._end(answering.turn(is_stopped=True))
            return
        except DeployError:
            if answering.turn().answer:
                self._screen.say("\n")
            raise
        self._end(answering.turn())

    def _end(self, turn: Turn) -> None:
        """An answer that was stopped stays: it is on the screen, and the next question may be about it."""
        self._screen.say("\n")
        self.conversation = self.conversation.grown(turn)
        if turn.ended_by == "stopped":
            self._screen.note("(stopped)")
        elif turn.ended_by == "length":
            self._screen.note("(it ends here: by --max-tokens, or because the session is full; /reset begins anew)")

    def _note_ctrl_c(self) -> None:
        now = time.monotonic()
        if now - self._stopped_s < _AGAIN_WITHIN_S:
            self._has_ended = True
            return
        self._stopped_s = now
        self._screen.note("\n(Ctrl-C once more, or Ctrl-D, ends it)")

    # Commands

    def _system(self, text: str) -> None:
        if text:
            self.conversation = dataclasses.replace(self.conversation, system=text)
        self._screen.note(self.conversation.system or "no system text is set: /system TEXT sets one")

    def _reset(self, _: str) -> None:
        self.conversation = self.conversation.begun_anew()
        self._screen.note("a new conversation has begun; the system text stays")

    def _undo(self, _: str) -> None:
        self._last()
        self.conversation = self.conversation.shortened()
        left = len(self.conversation.turns)
        self._screen.note(f"taken back; {left} {'question is' if left == 1 else 'questions are'} left")

    def _retry(self, _: str) -> None:
        question, before = self._last().question, self.conversation
        self.conversation = before.shortened()
        try:
            self._ask(question)
        except DeployError:
            self.conversation = before
            raise

    def _last(self) -> Turn:
        if not self.conversation.turns:
            raise UsageError("nothing was asked yet", hint="ask something first")
        return self.conversation.turns[-1]

    def _history(self, _: str) -> None:
        self._screen.note(self.conversation.markdown().rstrip())

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("/save wants the name of a file", hint="/save chat.md")
        self.conversation.write(Path(name).expanduser())
        self._screen.note(f"written to {printable(name)}")

    def _help(self, _: str) -> None:
        self._screen.note(HELP)

    def _exit(self, _: str) -> None:
        self._has_ended = True
