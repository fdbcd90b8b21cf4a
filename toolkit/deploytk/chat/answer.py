"""Asks a running model one question, and hands its answer over as it comes."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deploytk.base.errors import DeployError, EndpointError, TryAgainError
from deploytk.base.events import Stream, post_for_events
from deploytk.base.json import parse_json
from deploytk.base.terminal import one_line
from deploytk.chat.conversation import Conversation, Ending, Turn
from deploytk.serve import Endpoint, require_key

_SILENT_S = 600.0  # as long as the app lets an engine think
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
        prompt, completion = (count if type(count) is int else None for count in counts)
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
                return
            found = _parsed(event)
            if isinstance(found.get("error"), dict):
                raise _told(found["error"], 500)
            self._take_choice(found, "delta")
        if self._finish is None:
            raise ConnectionError("it ended while it answered")

    def _take_choice(self, found: Mapping[str, Any], part: Literal["delta", "message"]) -> None:
        usage, choices = found.get("usage"), found.get("choices")
        self._usage = usage if isinstance(usage, dict) else self._usage
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self._finish = choice.get("finish_reason") or self._finish
        said = choice.get(part)
        text: Mapping[str, Any] = said if isinstance(said, dict) else {}
        self._note(text.get("reasoning_content"), is_thought=True)
        self._note(text.get("content"), is_thought=False)

    def _note(self, text: object, *, is_thought: bool) -> None:
        if not isinstance(text, str) or not text:
            return
        if self._first_s is None:
            self._first_s = time.monotonic() - self._started
        (self._thought if is_thought else self._said).append(text)
        self._write(text, is_thought)


def _parsed(text: str | bytes) -> Mapping[str, Any]:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise ConnectionError("it sends what is no JSON") from error
    return found if isinstance(found, dict) else {}


def _refusal(endpoint: Endpoint, stream: Stream) -> DeployError:
    require_key(endpoint.url, stream.status, endpoint.key)
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
    fields = error if isinstance(error, dict) else {}
    message = one_line(str(fields.get("message") or f"HTTP status {status}"))
    marks = json.dumps([fields.get("code"), fields.get("type"), message]).lower()
    if any(mark in marks for mark in _MARKS_OF_FULL):
        return ContextFullError(f"{_FULL}: {message}", hint=_SHORTER)
    return EndpointError(f"the server refuses: {message}", hint="change what is asked, or see the server's log")


def _gone(endpoint: Endpoint, why: str) -> EndpointError:
    hint = "see whether it runs still; what was said so far is kept: ask again once it does"
    return EndpointError(f"no answer from {endpoint.url}: {why}", hint=hint)
