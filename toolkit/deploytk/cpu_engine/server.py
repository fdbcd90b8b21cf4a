"""The OpenAI-style API of the CPU engine."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from deploytk.cpu_engine.generation import Generator, Piece, Sampling
from deploytk.cpu_engine.load import LoadedModel

Kind = Literal["chat.completion", "text_completion"]

_CLIENT_GONE = 499  # what nginx calls it; nobody is there to read it


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    role: Annotated[str, Field(min_length=1, max_length=32)]
    content: str | list[_Part]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
    """What both routes take; fields that are not here are ignored, as LMDeploy does."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    n: Literal[1] | None = None
    ignore_eos: bool = False


class _ChatBody(_Body):
    messages: Annotated[list[_Message], Field(min_length=1)]


class _CompletionBody(_Body):
    prompt: str


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def make_app(loaded: LoadedModel, model_name: str, session_len: int, max_batch_size: int = 1) -> FastAPI:
    """The API for one model: it never serves another than `model_name`."""
    app = FastAPI(title="deploytk CPU engine", docs_url=None, redoc_url=None)
    generator = Generator(loaded, max_batch_size)

    @app.exception_handler(_RefusedError)
    async def refused(_: Request, error: _RefusedError) -> JSONResponse:
        return _error(error.status, error.code, error.message)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(400, "invalid_request_error", f"{where}: {first['msg']}" if where else str(first["msg"]))

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": model_name, "object": "model", "created": 0, "owned_by": "deploytk-cpu"}
        return {"object": "list", "data": [{**entry, "max_model_len": session_len}]}

    @app.post("/v1/chat/completions")
    async def chat(body: _ChatBody, request: Request) -> Response:
        messages = [{"role": message.role, "content": message.text} for message in body.messages]
        try:
            text = loaded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (ValueError, TypeError, KeyError) as error:
            raise _RefusedError(
                400, "invalid_request_error", f"the chat template refuses these messages: {error}"
            ) from error
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return await answer("chat.completion", body, ids, request)

    @app.post("/v1/completions")
    async def complete(body: _CompletionBody, request: Request) -> Response:
        return await answer("text_completion", body, loaded.tokenizer(body.prompt)["input_ids"], request)

    async def answer(kind: Kind, body: _Body, prompt: list[int], request: Request) -> Response:
        if body.model not in (None, "", model_name):
            raise _RefusedError(
                404, "model_not_found", f"the model {body.model!r} does not exist; there is {model_name!r}"
            )
        sampling = _sampling(body, len(prompt), session_len)
        reply = _Reply(kind, model_name, len(prompt))
        if body.stream:
            has_usage = body.stream_options is not None and body.stream_options.include_usage
            events = _events(generator, reply, prompt, sampling, has_usage=has_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        pieces = await _all_pieces(generator, prompt, sampling, request)
        if not pieces:
            return Response(status_code=_CLIENT_GONE)
        return JSONResponse(reply.whole("".join(piece.text for piece in pieces), pieces[-1]))

    return app


def _sampling(body: _Body, prompt_tokens: int, session_len: int) -> Sampling:
    room = session_len - prompt_tokens
    if prompt_tokens == 0 or room < 1:
        message = f"the prompt has {prompt_tokens} tokens, between 1 and {session_len - 1} are possible"
        raise _RefusedError(400, "context_length_exceeded", message)
    wanted = body.max_completion_tokens or body.max_tokens or room
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Sampling(
        max_tokens=min(wanted, room),
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p or 1.0,
        top_k=body.top_k or 0,
        seed=body.seed,
        stop=tuple(text for text in stop if text),
        ignores_end=body.ignore_eos,
    )


async def _all_pieces(generator: Generator, prompt: list[int], sampling: Sampling, request: Request) -> list[Piece]:
    """The whole answer; nothing when its client went away before."""

    async def generate() -> list[Piece]:
        async with aclosing(generator.stream(prompt, sampling)) as pieces:  # type: ignore[type-var]
            return [piece async for piece in pieces]

    async def until_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    generating, gone = asyncio.create_task(generate()), asyncio.create_task(until_gone())
    await asyncio.wait({generating, gone}, return_when=asyncio.FIRST_COMPLETED)
    if generating.done():
        gone.cancel()
        return generating.result()
    generating.cancel()
    await asyncio.wait({generating})
    return []


async def _events(
    generator: Generator, reply: _Reply, prompt: list[int], sampling: Sampling, *, has_usage: bool
) -> AsyncIterator[str]:
    if reply.kind == "chat.completion":
        yield _event(reply.chunk({"role": "assistant", "content": ""}, None))
    last = Piece("", 0)
    async with aclosing(generator.stream(prompt, sampling)) as pieces:  # type: ignore[type-var]
        async for last in pieces:
            if last.text:
                yield _event(reply.chunk({"content": last.text}, None))
    yield _event(reply.chunk({}, last.finish_reason))
    if has_usage:
        yield _event(reply.usage_chunk(last))
    yield "data: [DONE]\n\n"


class _Reply:
    """The bodies of one answer."""

    def __init__(self, kind: Kind, model: str, prompt_tokens: int) -> None:
        self.kind = kind
        prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
        self._head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._prompt_tokens = prompt_tokens

    def whole(self, text: str, last: Piece) -> dict[str, Any]:
        content = (
            {"message": {"role": "assistant", "content": text}} if self.kind == "chat.completion" else {"text": text}
        )
        choice = {"index": 0, **content, "finish_reason": last.finish_reason, "logprobs": None}
        return {**self._head, "object": self.kind, "choices": [choice], "usage": self._usage(last)}

    def chunk(self, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        is_chat = self.kind == "chat.completion"
        content: dict[str, Any] = {"delta": delta} if is_chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **content, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk" if is_chat else self.kind, "choices": [choice]}

    def usage_chunk(self, last: Piece) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        return {**self._head, "object": kind, "choices": [], "usage": self._usage(last)}

    def _usage(self, last: Piece) -> dict[str, int]:
        counts = {"prompt_tokens": self._prompt_tokens, "completion_tokens": last.tokens}
        return {**counts, "total_tokens": self._prompt_tokens + last.tokens}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _error(status: int, code: str, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "internal_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
