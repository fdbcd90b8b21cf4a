"""Servers that lie, flood, stall and send elsewhere: every try ends in time, small, and in words."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from honest_server import CHUNKED, HEAD, STREAM, WORDS, Send, answer_json, events, honest, piece, usage
from lying_server import Asked, Script, lying, plain

ASKER = Path(__file__).with_name("hostile_asker.py")
MOST_MIB = 300
LONGEST_S = 20.0  # the limits in hostile_asker.py are 3 s and less
TITLE = "\x1b]0;owned\x07"
ZEROS = bytes(2**16)
TIME = "no whole answer within|no end within"  # what ends a flood first on a machine that has other things to do


def _always(data: bytes) -> Script:
    return lambda _, send: send(data)


def _going_on(start: bytes, more: bytes, pause_s: float = 0.0) -> Script:
    def script(_: Asked, send: Send) -> None:
        send(start)
        while True:
            send(more)
            time.sleep(pause_s)

    return script


def _silent(_: Asked, send: Send) -> None:
    send(b"")
    time.sleep(30)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _counters(prompt: str, generation: str) -> Script:
    names = zip(("prompt", "generation"), (prompt, generation), strict=True)
    return _always(plain("".join(f"lmdeploy:{name}_tokens_total {value}\n" for name, value in names).encode()))


def _packed(how: str, bomb: bytes) -> Script:
    return _always(plain(bomb, headers=f"Content-Encoding: {how}\r\nContent-Type: text/event-stream\r\n"))


def _to(address: str) -> Script:
    return _always(plain(b"", "302 Found", f"Location: {address}\r\n"))


BOMB = gzip.compress(bytes(2**26))
SQUEEZED = zlib.compress(bytes(2**26))

# Whatever is asked: what no server may do with any answer, and the reason that is given.
ANY: dict[str, tuple[Script, str]] = {
    "endless": (_going_on(HEAD + b"\r\n", ZEROS), "larger than|" + TIME),
    "endless in chunks": (_going_on(HEAD + CHUNKED, _chunk(ZEROS)), "larger than|" + TIME),
    "endless with a length": (_going_on(HEAD + b"Content-Length: 99999999999\r\n\r\n", ZEROS), "larger than|" + TIME),
    "byte by byte": (_going_on(HEAD + b"\r\n", b"x", 0.02), "no whole answer within|no end within"),
    "header by header": (_going_on(HEAD, b"X: y\r\n", 0.02), "no whole answer within|no end within"),
    "a header without end": (_going_on(HEAD + b"X: ", ZEROS), "does not speak HTTP|larger than|" + TIME),
    "nothing": (_silent, "no whole answer within|no end within|nothing came for"),
    "closed": (_always(b""), "broke off|without an answer"),
    "another protocol": (_always(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "does not speak HTTP"),
    "half": (_always(HEAD + b"Content-Length: 100\r\n\r\n{"), "broke off|not JSON"),
    "an odd status": (_always("HTTP/1.1 ²00 OK\r\n\r\n".encode("latin-1")), "does not speak HTTP"),
    "a long status": (_always(b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n"), "does not speak HTTP"),
    "before the answer for ever": (_going_on(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "100|no whole answer|broke off"),
    "gzip": (_packed("gzip", BOMB), "packed"),
    "deflate": (_packed("deflate", SQUEEZED), "packed"),
    "brotli": (_packed("br", b"\x00" * 100), "packed"),
    "in two layers": (_packed("gzip, gzip", gzip.compress(BOMB)), "packed"),
    "a circle": (_to("?again"), "circle|302"),
    "to a file": (_to("file:///etc/passwd"), "no address of a server|302"),
    "to another host": (_to("http://203.0.113.7/"), "another server|302"),
    "to another port": (_to("http://127.0.0.1:9/"), "another server|302"),
    "to nowhere": (_to("http://["), "IPv6|302|URL|another"),
    "refused": (_always(answer_json({"error": "no"}, "401 Unauthorized")), "--api-key-env|DEPLOYTK_API_KEY"),
    "broken": (_always(plain(b"<html>", "500 Oops")), "500|JSON|Expecting"),
    "no text": (_always(plain(b"\xff\xfe{")), "utf-8|JSON|can't decode"),
    "not a number": (_always(plain(b'{"data": NaN}')), "NaN|JSON"),
    "a number without end": (_always(plain(b'{"data": ' + b"9" * 5000 + b"}")), "digits|JSON"),
    "nested without end": (_always(plain(b"[" * 100_000)), "nested|JSON"),
    "a chunk below nothing": (_always(HEAD + CHUNKED + b"-5\r\nx\r\n"), "HTTP|chunks|broke off"),
    "no chunk": (_always(HEAD + CHUNKED + b"zz\r\nx\r\n"), "HTTP|chunks|broke off"),
}  # fmt: skip

# Of the list of models.
LISTS: dict[str, tuple[Script, str]] = {
    "a list": (_always(answer_json([])), "another shape"),
    "no data": (_always(answer_json({})), "another shape"),
    "data is an object": (_always(answer_json({"data": {}})), "another shape"),
    "no model": (_always(answer_json({"data": []})), "another shape"),
    "a model is text": (_always(answer_json({"data": ["tiny"]})), "another shape"),
    "a number for a name": (_always(answer_json({"data": [{"id": 1}]})), "another shape"),
    "a list for a name": (_always(answer_json({"data": [{"id": ["x"]}]})), "another shape"),
    "no name": (_always(answer_json({"data": [{"id": ""}]})), "another shape"),
    "a name too long": (_always(answer_json({"data": [{"id": "x" * 10_000}]})), "another shape"),
    "a name that sets the title": (_always(answer_json({"data": [{"id": TITLE}]})), "what no name does"),
    "a name that turns round": (_always(answer_json({"data": [{"id": "a\u202eb"}]})), "what no name does"),
    "half a letter for a name": (_always(answer_json({"data": [{"id": "\ud800"}]})), "what no name does"),
    "a name of two lines": (_always(answer_json({"data": [{"id": "a\n hint: run this"}]})), "what no name does"),
}

# Of a completion.
ANSWERS: dict[str, tuple[Script, str]] = {
    "a list for content": (_always(events(piece(["x"]))), "content is no text"),
    "a number for content": (_always(events(piece(1))), "content is no text"),
    "a number for text": (_always(events({"choices": [{"text": 1}]})), "text is no text"),
    "a list for a delta": (_always(events({"choices": [{"delta": ["x"]}]})), "delta is no object"),
    "an object for choices": (_always(events({"choices": {"0": {}}})), "choices are no list"),
    "a number for a choice": (_always(events({"choices": [1]})), "a choice of the answer is no object"),
    "a list for usage": (_always(events(piece(), {"usage": [1]})), "usage is no object"),
    "true for a count": (_always(events(piece(), usage(True))), "no possible number of tokens"),
    "1.0 for a count": (_always(events(piece(), usage(1.0))), "no possible number of tokens"),
    "text for a count": (_always(events(piece(), usage("1"))), "no possible number of tokens"),
    "a count below nothing": (_always(events(piece(), usage(-1))), "no possible number of tokens"),
    "a count without end": (_always(events(piece(), usage(10**299))), "no possible number of tokens"),
    "NaN in an event": (_always(events('{"choices": [{"delta": {"content": "x"}}], "x": NaN}')), "not JSON"),
    "half an event": (_always(events('{"choices": [{"del')), "not JSON"),
    "an event that is a list": (_always(events("[1]")), "unexpected"),
    "no event": (_always(events()), "answer is empty|never"),
    "broken off": (_always(events(piece(), end="")), "broke off"),
    "an error that sets the title": (
        _always(answer_json({"error": {"message": f"no {TITLE}"}}, "400 Bad")), r"no \\x1b]0;owned"),
    "an error of two lines": (_always(answer_json({"error": "no\n hint: rm"}, "400 Bad")), "no hint: rm"),
    "an error that is a list": (_always(answer_json({"error": [["x"]]}, "400 Bad")), "without a word"),
    "an error that is long": (_always(answer_json({"error": "x" * 100_000}, "400 Bad")), "xxxxx"),
    "events without end": (
        _going_on(STREAM + b"\r\n", b"data: " + json.dumps(piece()).encode() + b"\n\n"), "larger than|" + TIME),
    "pieces of a byte": (_going_on(STREAM + b"\r\n", b"\n"), "larger than|" + TIME),
    "a line without end": (_going_on(STREAM + b"\r\n", b"data: " + ZEROS), "larger than|" + TIME),
    "ends that are none": (
        _going_on(STREAM + CHUNKED, _chunk(b"data: 0\r\n\r\n")), "chunks that are none|larger|unexpected|" + TIME),
}  # fmt: skip

# A server that counts as it likes; asked for 6 tokens. What smoke says about it.
LIARS: dict[str, tuple[Script, str]] = {
    "more tokens than asked for": (
        _always(events(*WORDS, usage(60))), r"usage says 60 tokens, at most \d were asked for"),
    "fewer tokens than pieces": (
        _always(events(*WORDS, usage(2))), "usage says 2 tokens, 6 pieces of text came"),
    "all tokens in the first piece": (
        _always(events(piece("The ", usage={"completion_tokens": 6}), *WORDS[1:4], usage(6))),
        "the first piece is said to hold 6 of 6 tokens, and 3 more came"),
}  # fmt: skip

# Beside the answers, which are right: nothing of it may matter.
ASIDE: dict[str, tuple[str, Script]] = {
    "ready without end": ("/ready", _going_on(HEAD + b"\r\n", ZEROS)),
    "ready byte by byte": ("/ready", _going_on(HEAD + b"\r\n", b"x", 0.02)),
    "a list for a state": ("/ready", _always(answer_json({"state": ["ready"]}))),
    "a list for an engine": ("/ready", _always(answer_json({"state": "ready", "engine": ["x"]}))),
    "counters without end": ("/metrics", _going_on(HEAD + b"\r\n", ZEROS)),
    "counters byte by byte": ("/metrics", _going_on(HEAD + b"\r\n", b"x", 0.02)),
    "counters of nothing": ("/metrics", _counters("NaN", "NaN")),
    "counters beyond all": ("/metrics", _counters("1e999", "1")),
    "labels without end": ("/metrics", _always(plain(b"lmdeploy:prompt_tokens_total{\n" * 30_000))),
}  # fmt: skip


def _counter_of_one(asked: Asked, send: Send) -> None:
    if asked.path.endswith("/metrics"):
        _counters("1", "1")(asked, send)
    else:
        honest(asked, send)


def _instead(where: str, script: Script) -> Script:
    return lambda asked, send: (script if where in asked.path else honest)(asked, send)


SERVERS: dict[str, Script] = {
    "honest": honest,
    "a counter that stands still": _counter_of_one,
    **{f"models: {name}": _instead("/v1/models", script) for name, (script, _) in (ANY | LISTS).items()},
    **{f"answers: {name}": _instead("completions", script) for name, (script, _) in (ANY | ANSWERS | LIARS).items()},
    **{f"aside: {name}": _instead(where, script) for name, (where, script) in ASIDE.items()},
}
NAMES = list(SERVERS)


def _by_name(asked: Asked, send: Send) -> None:
    SERVERS[NAMES[int(asked.path.split("/")[1])]](asked, send)


@pytest.fixture(scope="module")
def tries() -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    """How each command fared with each server; all of one command in one process, whose memory is watched."""
    wanted = {
        "smoke": NAMES,
        "attach": [name for name in NAMES if not name.startswith("answers")],
        "await": NAMES,
        "chat": NAMES,
    }
    with lying(_by_name) as url:
        running = {
            way: subprocess.Popen(
                [sys.executable, str(ASKER), way, *(f"{url}/{NAMES.index(name)}" for name in names)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for way, names in wanted.items()
        }  # fmt: skip
        found = {}
        for way, process in running.items():
            out, _ = process.communicate(timeout=110)
            lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
            assert len(lines) == len(wanted[way]), out[-2000:]
            found |= {(way, name): line for name, line in zip(wanted[way], lines, strict=True)}
        yield found


def _ended(found: dict[str, Any]) -> str:
    """What was said, when it ended as anything must."""
    said: str = found["said"]
    assert "Traceback" not in said
    assert found["code"] in (0, 1, 75), said
    assert found["seconds"] < LONGEST_S
    assert found["peak_mib"] < MOST_MIB
    assert not any(mark in said for mark in ("\x1b", "\x07", "\u202e", "\ud800"))
    assert found["code"] == 0 or " hint: " in said or "smoke test: fail" in said
    return said


Tries = dict[tuple[str, str], dict[str, Any]]


def test_an_honest_server_passes(tries: Tries) -> None:
    for way in ("smoke", "attach", "await", "chat"):
        assert tries[way, "honest"]["code"] == 0, tries[way, "honest"]["said"]


@pytest.mark.parametrize("name", ANY | LISTS)
@pytest.mark.parametrize("way", ["smoke", "attach", "await", "chat"])
def test_a_list_of_models_that_is_none_is_refused_in_words(name: str, way: str, tries: Tries) -> None:
    found = tries[way, f"models: {name}"]

    assert _matches((ANY | LISTS)[name][1], _ended(found))
    assert found["code"] == 1


@pytest.mark.parametrize("name", ANY | ANSWERS)
def test_an_answer_that_is_none_fails_the_smoke_test_in_words(name: str, tries: Tries) -> None:
    found = tries["smoke", f"answers: {name}"]

    said = _ended(found)
    assert name == "no event" or _matches((ANY | ANSWERS)[name][1], said)
    assert found["code"] == 1


@pytest.mark.parametrize("name", ANY | ANSWERS | LIARS)
def test_an_answer_that_is_none_ends_the_wait_for_an_app_in_words(name: str, tries: Tries) -> None:
    found = tries["await", f"answers: {name}"]

    _ended(found)
    assert found["code"] == 1


# What a conversation does not look at: who pays for the tokens is another's question.
UNCOUNTED = ("true for a count", "1.0 for a count", "text for a count", "a count below nothing", "a count without end")


@pytest.mark.parametrize("name", ANY | ANSWERS)
def test_an_answer_that_is_none_ends_a_chat_of_a_pipe_in_words(name: str, tries: Tries) -> None:
    found = tries["chat", f"answers: {name}"]

    said = _ended(found)
    assert found["code"] == (0 if name in (*UNCOUNTED, "a number for text") else 1), said
    assert found["code"] == 0 or _matches((ANY | ANSWERS)[name][1], said)


@pytest.mark.parametrize("name", LIARS)
def test_a_server_that_counts_as_it_likes_is_named(name: str, tries: Tries) -> None:
    found = tries["smoke", f"answers: {name}"]

    assert _matches(LIARS[name][1], _ended(found))
    assert found["code"] == 1


def test_a_counter_that_counts_less_than_usage_claims_is_named(tries: Tries) -> None:
    found = tries["smoke", "a counter that stands still"]

    # 2 requests of 6 tokens, 0 counted between them
    assert _matches("12 tokens in 12 events, 0 by the server's own counter", _ended(found))
    assert found["code"] == 1


@pytest.mark.parametrize("name", ASIDE)
def test_what_is_beside_the_answers_spoils_nothing(name: str, tries: Tries) -> None:
    assert _ended(tries["smoke", f"aside: {name}"])
    assert tries["smoke", f"aside: {name}"]["code"] == 0
    _ended(tries["attach", f"aside: {name}"])
    _ended(tries["await", f"aside: {name}"])
    assert "The sky is blue" in _ended(tries["chat", f"aside: {name}"])


def _matches(pattern: str, said: str) -> bool:
    # A table wraps its cells: words count, not where lines end.
    assert re.search(pattern.replace(" ", r"\s+"), said), said[-1500:]
    return True
