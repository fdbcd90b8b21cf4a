"""`deploytk chat`: what is typed, what is sent, what is shown, and how it ends. The server is a stand-in."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from commands import run
from quiet_server import QuietServer

from deploytk.base.errors import DeployError, EndpointError, TryAgainError, UsageError
from deploytk.base.terminal import Stripped
from deploytk.chat import Chat, Sampling, Screen
from deploytk.chat.answer import ContextFullError
from deploytk.chat.reading import read_message
from deploytk.serve import attach


class Model(QuietServer):
    """Answers what is asked by the last message: its own words, or what they name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.gone = threading.Event()  # a client went away while an answer came

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Model

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"data": [{"id": "m"}]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        asked = body["messages"][-1]["content"]
        refusals = {
            "full": (400, {"error": {"message": "Input length (9) must be smaller", "code": "invalid_request_error"}}),
            "busy": (429, {"error": {"message": "too many requests are waiting"}}),
            "key": (401, {"error": {"message": "no"}}),
            "odd": (400, {"message": "flat \x1b[31m", "type": "x"}),
            "whole": (200, {"choices": [{"message": {"content": "at once"}, "finish_reason": "stop"}]}),
        }
        if asked in refusals:
            self._json(*refusals[asked])
        else:
            self._stream(asked)

    def _json(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, asked: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        pieces = {"colours": ["a\x1b", "[31mb\x1b]0;title", "\x07c\x9b2Jd\u202e\r\n"], "empty": []}.get(
            asked, ["you ", asked]
        )
        if asked == "think":
            self._event({"choices": [{"delta": {"reasoning_content": "hm"}}]})
        try:
            for piece in pieces:
                self._event({"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
            while asked == "for ever":
                self._event({"choices": [{"delta": {"content": "and on "}}]})
                time.sleep(0.02)
        except OSError:
            self.server.gone.set()
            return
        if asked == "break":
            return
        if asked == "late":
            self._event({"error": {"message": "the engine ended while it answered"}})
            return
        ending = "length" if asked in ("long", "empty") else "stop"
        self._event({"choices": [{"delta": {}, "finish_reason": ending}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: Any) -> None:
        self.wfile.write(b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n")
        self.wfile.flush()


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Shown:
    def __init__(self) -> None:
        self.said, self.thought, self.notes = "", "", ""

    def screen(self) -> Screen:
        return Screen(self._say, self._think, self._note)

    def _say(self, text: str) -> None:
        self.said += text

    def _think(self, text: str) -> None:
        self.thought += text

    def _note(self, text: str) -> None:
        self.notes += text + "\n"


def talk(model: Model, *lines: str, is_interactive: bool = True, **sampling: Any) -> tuple[Any, Shown]:
    """What was said, and shown, after all these lines."""
    shown, left = Shown(), list(lines)
    chat = Chat(attach(model.url), shown.screen(), Sampling(**sampling), "", is_interactive=is_interactive)
    return chat.run(lambda _: left.pop(0) if left else None), shown


def test_what_was_said_is_sent_again_with_the_next_question(model: Model) -> None:
    said, shown = talk(model, "/system be kind", "你好", "and?", max_tokens=5, temperature=0.0)

    assert shown.said == "you 你好\nyou and?\n"
    assert [(turn.question, turn.answer) for turn in said.turns] == [("你好", "you 你好"), ("and?", "you and?")]
    assert (said.turns[0].prompt_tokens, said.turns[0].completion_tokens, said.turns[0].ended_by) == (3, 2, "stop")
    assert model.bodies[1]["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "you 你好"},
        {"role": "user", "content": "and?"},
    ]
    assert (model.bodies[0]["max_tokens"], model.bodies[0]["temperature"]) == (5, 0.0)
    assert "seed" not in model.bodies[0]


def test_commands_change_what_is_sent(model: Model) -> None:
    said, shown = talk(model, "a", "b", "/undo", "/retry", "/reset", "//x", "/nothing", "/undo", "/undo", "/help", "  ")

    sent = [[message["content"] for message in body["messages"]] for body in model.bodies]
    assert sent == [["a"], ["a", "you a", "b"], ["a"], ["/x"]]
    assert said.turns == ()
    assert "there is no /nothing" in shown.notes
    assert "nothing was asked yet" in shown.notes
    assert "/system TEXT" in shown.notes


def test_a_conversation_is_saved_and_no_file_is_lost(model: Model, tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("mine")
    lines = [f"/save {tmp_path}/{name}" for name in ("a.md", "a.json", "there.md", "no/where.md")]

    _, shown = talk(model, "你好", *lines, "/save", "/history")

    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "# m\n\n**You:** 你好\n\nyou 你好\n"
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["turns"][0]["answer"] == "you 你好"
    assert (tmp_path / "there.md").read_text() == "mine"
    assert "there.md is there already" in shown.notes
    assert "cannot be written: No such file or directory" in shown.notes
    assert "/save wants the name of a file" in shown.notes
    assert "**You:** 你好" in shown.notes


def test_what_a_terminal_obeys_is_taken_out_of_answers(model: Model) -> None:
    said, shown = talk(model, "colours", "/history", "odd")

    assert shown.said == "abcd\n\n"
    assert said.turns[0].answer.startswith("a\x1b[31mb")  # what is sent again is what the model said
    assert "\x1b" not in shown.notes


@pytest.mark.parametrize("cut", range(1, 24))
def test_sequences_go_wherever_they_are_cut(cut: int) -> None:
    text = "a\x1b[1;31mb\x1b]8;;http://x\x1b\\c\x1bMd"
    plain = Stripped()

    assert plain.feed(text[:cut]) + plain.feed(text[cut:]) == "abcd"


def test_a_sequence_that_never_ends_hides_nothing_for_ever() -> None:
    plain = Stripped()
    shown = "".join(plain.feed("x" * 100) for _ in range(2))
    shown += plain.feed("\x1b]0;") + "".join(plain.feed("y" * 1000) for _ in range(6))

    assert shown == "x" * 200 + "]0;" + "y" * 6000


def test_what_a_model_thinks_is_no_part_of_what_it_says(model: Model) -> None:
    said, shown = talk(model, "think", "whole")

    assert (shown.thought, shown.said) == ("hm", "you think\nat once\n")
    assert (said.turns[0].reasoning, said.turns[0].answer) == ("hm", "you think")
    assert model.bodies[1]["messages"][1]["content"] == "you think"


@pytest.mark.parametrize(
    ("question", "kind", "words", "hint"),
    [
        ("full", ContextFullError, "longer than this model's session: Input length (9)", "/undo"),
        ("empty", ContextFullError, "longer than this model's session", "/reset"),
        ("busy", TryAgainError, "too many requests are waiting", "ask again in 7 s"),
        ("key", EndpointError, "wants a key", "--api-key-env"),
        ("odd", EndpointError, "the server refuses: flat", "server's log"),
        ("late", EndpointError, "the engine ended while it answered", "server's log"),
        ("break", EndpointError, "it broke off while it answered", "then ask again"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_the_conversation_goes_on(
    model: Model, question: str, kind: type[DeployError], words: str, hint: str
) -> None:
    said, shown = talk(model, "a", question, "b")

    assert words in shown.notes
    assert hint in shown.notes
    assert [turn.question for turn in said.turns] == ["a", "b"]
    with pytest.raises(kind, match=words.split(":")[0].replace("(", r"\(")):
        talk(model, question, "b", is_interactive=False)


def test_a_server_that_is_gone_is_a_sentence(model: Model) -> None:
    endpoint = attach(model.url)
    model.shutdown()
    model.server_close()
    shown, lines = Shown(), ["a"]

    Chat(endpoint, shown.screen(), Sampling(), "", is_interactive=True).run(lambda _: lines.pop() if lines else None)

    assert f"no answer from {model.url}: the connection is refused" in shown.notes


def test_an_answer_that_is_cut_by_its_length_says_so(model: Model) -> None:
    said, shown = talk(model, "long")

    assert said.turns[0].ended_by == "length"
    assert "--max-tokens" in shown.notes


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["a", "b"], ["a", "b"]),
        (["a\\", "b\\", "c", "d"], ["a\nb\nc", "d"]),
        (["a\\"], ["a"]),
        (['"""', "a", "", "b", '"""', "c"], ["a\n\nb", "c"]),
        (['"""a', 'b"""', "c"], ["a\nb", "c"]),
        (['"""一行"""'], ["一行"]),
        (['"""', "a"], ["a"]),
        ([], []),
    ],
)
def test_messages_have_one_line_or_several(lines: list[str], messages: list[str]) -> None:
    left = list(lines)
    found = iter(lambda: read_message(lambda _: left.pop(0) if left else None), None)

    assert list(found) == messages


# The command


def piped(url: str, text: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "deploytk", "chat", url, *options]
    return subprocess.run(command, input=text, capture_output=True, timeout=60)


def test_lines_of_a_pipe_are_questions_and_json_is_one_value(model: Model) -> None:
    done = piped(model.url, "\ufeff你好\nb\xff\n".encode() + b"\xff\n", "--json", "--system", "s")

    said = json.loads(done.stdout)
    assert [turn["question"] for turn in said["turns"]] == ["你好", "b\xff", "\ufffd"]
    assert (said["model"], said["system"], done.returncode) == ("m", "s", 0)


def test_an_error_in_a_pipe_ends_it_with_its_code(model: Model) -> None:
    full, busy = piped(model.url, b"a\nfull\nb\n"), piped(model.url, b"busy\n", "--json")

    assert (full.returncode, full.stdout) == (1, b"you a\n")
    assert full.stderr.startswith(b"error: the conversation is longer")
    assert (busy.returncode, json.loads(busy.stdout)["error"]["exit_code"]) == (75, 75)


def test_options_that_do_nothing_are_bad_usage(model: Model) -> None:
    for options in (["--tp", "2"], ["--engine", "cpu"], ["--template", "."], ["--trust-bundle"]):
        assert run("chat", model.url, *options).code == 2, options
    assert run("chat", "tests/models/hf-awq", "--engine", "cpu", "--wait", "5s").code == 2
    assert run("chat", model.url, "--api-key-env", "NOT_SET").code == 2


def test_ctrl_c_stops_an_answer_and_twice_it_ends(model: Model) -> None:
    with at_keyboard(model.url) as (keys, screen, process):
        screen.until("> ")
        os.write(keys, b"for ever\n")
        screen.until("and on and on")
        os.write(keys, b"\x03")
        screen.until("(stopped)")
        assert model.gone.wait(20)
        os.write(keys, "你\n".encode())
        screen.until("you 你")
        screen.until("> ")
        os.write(keys, b"half a lin")
        screen.until("half a lin")
        assert _press_ctrl_c(keys, process) == 0
        assert "once more" in screen.rest()
    sent = [message["content"] for message in model.bodies[1]["messages"]]
    assert sent[0] == "for ever"
    assert sent[1].startswith("you for everand on ")
    assert sent[2] == "你"


def test_two_ctrl_c_at_once_end_it(model: Model) -> None:
    """The second comes while something is said of the first."""
    assert _noted(model, [None, "never read"]) == ["once more"]


def test_ctrl_c_while_an_answer_is_ended_is_one_at_the_next_question(model: Model) -> None:
    assert _noted(model, ["for ever", None]) == ["stopped", "once more"]


def _noted(model: Model, typed: list[str | None]) -> list[str]:
    """What is said, where Ctrl-C comes with each piece of an answer, each thing that is said and each None."""
    noted: list[str] = []

    def press(_: str = "") -> None:
        signal.raise_signal(signal.SIGINT)

    def note(text: str) -> None:
        press()
        noted.append(next(words for words in ("stopped", "once more") if words in text))

    def read(_: str) -> str | None:
        line = typed.pop(0)
        return press() if line is None else line

    Chat(attach(model.url), Screen(press, press, note), Sampling(), "", is_interactive=True).run(read)
    return noted


def test_ctrl_d_ends_it_and_a_signal_of_others_too(model: Model) -> None:
    with at_keyboard(model.url) as (keys, screen, process):
        screen.until("> ")
        os.write(keys, b"\x04")
        assert process.wait(20) == 0
    with at_keyboard(model.url) as (keys, screen, process):
        screen.until("> ")
        os.write(keys, b"for ever\n")
        screen.until("and on")
        process.terminate()
        assert process.wait(20) == 128 + 15


def _press_ctrl_c(keys: int, process: subprocess.Popen[bytes]) -> int:
    """Again and again, as a person does: Python's readline forgets a signal that comes while it takes a key."""
    for _ in range(60):
        with contextlib.suppress(OSError):
            os.write(keys, b"\x03")
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.5)
    raise AssertionError("it does not end")


class Terminal:
    def __init__(self, place: int) -> None:
        self._place = place
        self.text = ""

    def until(self, words: str, within_s: float = 30) -> None:
        """Read what is shown until it has these words, and forget it up to them."""
        deadline = time.monotonic() + within_s
        while words not in self.text:
            ready, _, _ = select.select([self._place], [], [], deadline - time.monotonic())
            assert ready, self.text
            self.text += os.read(self._place, 65536).decode("utf-8", "replace")
        self.text = self.text.partition(words)[2]

    def rest(self) -> str:
        """What is there to read now."""
        with contextlib.suppress(OSError):  # the other end is closed
            while select.select([self._place], [], [], 0)[0]:
                self.text += os.read(self._place, 65536).decode("utf-8", "replace")
        return self.text


@contextlib.contextmanager
def at_keyboard(url: str) -> Iterator[tuple[int, Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_TERMINAL, url], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield ours, Terminal(ours), process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# The terminal is to send Ctrl-C to it.
_AT_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = ["deploytk", "chat", sys.argv[1]]
from deploytk.__main__ import run
run()
"""


def test_a_name_that_is_taken_is_bad_usage(tmp_path: Path) -> None:
    from deploytk.chat import Conversation

    with pytest.raises(UsageError, match="is there already"):
        Conversation("u", "m").write(tmp_path)
