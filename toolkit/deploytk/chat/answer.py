"""Asks a running model one question, and hands its answer over as it comes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from deploytk.base.errors import DeployError, EndpointError, TryAgainError
from deploytk.base.events import Stream, post_for_events
from deploytk.base.json import parse_json
from deploytk.base.terminal import one_line
from deploytk.chat.conversation import Conversation, Ending, Turn
from deploytk.serve import Endpoint, require_key

_SILENT_S = 600.0  # as long as the app lets an engine think
_MOST_TOKENS = 2**31
_FULL = "the conversation is longer than this model's session"
_SHORTER = "/undo takes the last question back, /reset begins anew"
_MARKS_OF_FULL = ("context_length_exceeded", "context length", "input length", "session_len", "maximum context")

Write = Callable[[str, bool], None]  # a piece of text, and whether it is thought rather than said


@dataclass(frozen=True, slots=True)
class Sampling:
    """How it answers; None leaves it to the server."""

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None

    def fields(self) -> dict[str, object]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class ContextFullError(EndpointError):
    """Nothing is wrong with the server: the question is too much after all that was said."""


class Answering:
    """One answer that is coming: what of it has come stays, whatever ends it."""

    def __init__(self, question: str, write: Write) -> None:
        self._question = question
        self._write = write
        self._said: list[str] = []
        self._thought: list[str] = []
        self._usage: Mapping[str, Any] = {}
        self._finish: object = None
        self._has_begun = False
        self._started = time.monotonic()
        self._first_s: float | None = None

    def run(self, endpoint: Endpoint, conversation: Conversation, sampling: Sampling) -> None:
        """Until its end; raises EndpointError or TryAgainError when there is none."""
        body = {
            "model": endpoint.model,
            "messages": conversation.messages(self._question),
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling.fields(),
        }
        try:
            with post_for_events(f"{endpoint.url}/v1/chat/completions", body, endpoint.key, _SILENT_S) as stream:
                self._take(endpoint, stream)
        except ConnectionError as error:
            raise _gone(endpoint, one_line(str(error))) from error
        if not self._said and self._finish == "length":  # LMDeploy up to 0.9 says no more of a full session
            raise ContextFullError(_FULL, hint=_SHORTER)

    def turn(self, *, is_stopped: bool = False) -> Turn:
        endings: dict[object, Ending] = {"stop": "stop", "length": "length"}
        counts = [self._usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        prompt, completion = (count if type(count) is int and 0 <= count < _MOST_TOKENS else None for count in counts)
        return Turn(
            question=self._question,
            answer="".join(self._said),
            reasoning="".join(self._thought),
            ended_by="stopped" if is_stopped else endings.get(self._finish, "other"),
            prompt_tokens=prompt,
            completion_tokens=completion,
            first_s=self._first_s,
            total_s=time.monotonic() - self._started,
        )

    def _take(self, endpoint: Endpoint, stream: Stream) -> None:
        if stream.status != 200:
            raise _refusal(endpoint, stream)
        if stream.body:  # a server that knows no streams
            self._take_choice(_parsed(stream.body), "message")
            self._finish = self._finish or "stop"
            return
        for event in stream.events:
            if event == "[DONE]":
                if not self._has_begun:
                    raise ConnectionError("its answer is empty")
                return
            found = _parsed(event)
            if found.get("error"):
                raise _told(found["error"], 500)
            self._take_choice(found, "delta")
        if self._finish is None:
            raise ConnectionError("it broke off while it answered")

    def _take_choice(self, found: Mapping[str, Any], part: Literal["delta", "message"]) -> None:
        self._usage = _of_shape(found, "usage", dict, {}) or self._usage
        for choice in _of_shape(found, "choices", list, [])[:1]:
            if not isinstance(choice, dict):
                raise ConnectionError("a choice of the answer is no object")
            self._has_begun = True
            self._finish = choice.get("finish_reason") or self._finish
            said = _of_shape(choice, part, dict, {})
            self._note(_of_shape(said, "reasoning_content", str, ""), is_thought=True)
            self._note(_of_shape(said, "content", str, ""), is_thought=False)

    def _note(self, text: str, *, is_thought: bool) -> None:
        if not text:
            return
        if self._first_s is None:
            self._first_s = time.monotonic() - self._started
        (self._thought if is_thought else self._said).append(text)
        self._write(text, is_thought)


def _parsed(text: str | bytes) -> Mapping[str, Any]:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ConnectionError("it sends what is not JSON") from error
    if not isinstance(found, dict):
        raise ConnectionError("it sends JSON of an unexpected shape")
    return found


_SHAPES = {dict: "object", list: "list", str: "text"}
_Shape = TypeVar("_Shape", dict[str, Any], list[Any], str)


def _of_shape(found: Mapping[str, Any], name: str, kind: type[_Shape], default: _Shape) -> _Shape:
    """What `found` has under that name; raises ConnectionError when that is of another shape."""
    value = found.get(name)
    if value is not None and not isinstance(value, kind):
        raise ConnectionError(f"its {name} {'are' if kind is list else 'is'} no {_SHAPES[kind]}")
    return default if value is None else value


def _refusal(endpoint: Endpoint, stream: Stream) -> DeployError:
    require_key(endpoint.url, stream.status, endpoint.key)
    if 300 <= stream.status < 400:
        hint = "name the address at which the server itself answers"
        return EndpointError(f"{endpoint.url} sends questions elsewhere (HTTP status {stream.status})", hint=hint)
    try:
        found = parse_json(stream.body)
    except ValueError:
        found = None
    error = found.get("error", found) if isinstance(found, dict) else {}
    if stream.status in (429, 503):
        after = f" in {stream.retry_after_s:.0f} s" if stream.retry_after_s else " in a moment"
        why = one_line(str(error.get("message", ""))) if isinstance(error, dict) else ""
        return TryAgainError(f"{endpoint.url} is busy: {why or stream.status}", hint=f"ask again{after}")
    return _told(error, stream.status)


def _told(error: object, status: int) -> EndpointError:
    fields = error if isinstance(error, dict) else {"message": error} if isinstance(error, str) else {}
    message = one_line(str(fields.get("message") or f"HTTP status {status}, without a word"))
    marks = json.dumps([fields.get("code"), fields.get("type"), message]).lower()
    if any(mark in marks for mark in _MARKS_OF_FULL):
        return ContextFullError(f"{_FULL}: {message}", hint=_SHORTER)
    return EndpointError(f"the server refuses: {message}", hint="change what is asked, or see the server's log")


def _gone(endpoint: Endpoint, why: str) -> EndpointError:
    hint = "see whether the server still runs, and its log; then ask again: what was said so far is kept"
    return EndpointError(f"no answer from {endpoint.url}: {why}", hint=hint)
