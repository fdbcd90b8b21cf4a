"""The OpenAI-style API of the CPU engine."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from deploytk.app.features import CPU, refuse_missing
from deploytk.app.refused import RefusedError
from deploytk.app.relay import error_body
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
    """What both routes take. What of OpenAI's and LMDeploy's fields it does not have is refused before: features.py."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    ignore_eos: bool = False


class _ChatBody(_Body):
    messages: Annotated[list[_Message], Field(min_length=1)]


class _CompletionBody(_Body):
    prompt: str | Annotated[list[str], Field(min_length=1)]

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


async def _refuse_missing(request: Request) -> None:
    fields = await request.json()
    if isinstance(fields, dict):
        refuse_missing(request.url.path, fields, CPU, "cpu")


def make_app(loaded: LoadedModel, model_name: str, session_len: int, max_batch_size: int = 1) -> FastAPI:
    """The API for one model: it never serves another than `model_name`."""
    app = FastAPI(title="deploytk CPU engine", docs_url=None, redoc_url=None)
    generator = Generator(loaded, max_batch_size)
    entry = {"id": model_name, "object": "model", "created": int(time.time()), "owned_by": "deploytk-cpu"}
    _answer_errors(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{**entry, "max_model_len": session_len}]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        _require_model(name, model_name)
        return {**entry, "max_model_len": session_len}

    @app.post("/v1/chat/completions", dependencies=[Depends(_refuse_missing)])
    async def chat(body: _ChatBody, request: Request) -> Response:
        messages = [{"role": message.role, "content": message.text} for message in body.messages]
        try:
            text = loaded.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (ValueError, TypeError, KeyError) as error:
            message = f"the chat template refuses these messages: {error}"
            raise RefusedError(400, "invalid_request_error", message, param="messages") from error
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return await answer("chat.completion", body, [ids], request)

    @app.post("/v1/completions", dependencies=[Depends(_refuse_missing)])
    async def complete(body: _CompletionBody, request: Request) -> Response:
        prompts = [loaded.tokenizer(prompt)["input_ids"] for prompt in body.prompts]
        return await answer("text_completion", body, prompts, request)

    async def answer(kind: Kind, body: _Body, prompts: list[list[int]], request: Request) -> Response:
        if body.model:
            _require_model(body.model, model_name)
        param = "messages" if kind == "chat.completion" else "prompt"
        tasks = [(prompt, _sampling(body, len(prompt), session_len, param)) for prompt in prompts]
        reply = _Reply(kind, model_name, sum(map(len, prompts)))
        if body.stream:
            has_usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(
                _events(generator, reply, tasks, has_usage=has_usage), media_type="text/event-stream"
            )
        answers = await _all_pieces(generator, tasks, request)
        if not answers:
            return Response(status_code=_CLIENT_GONE)
        return JSONResponse(reply.whole([("".join(piece.text for piece in pieces), pieces[-1]) for pieces in answers]))

    return app


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape, those of the framework too."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse(error_body(error.status, error.code, error.message, error.param), error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        is_json = first["type"] != "json_invalid"
        where = ".".join(str(part) for part in first["loc"] if part != "body") if is_json else ""
        message = f"{where}: {first['msg']}" if where else str(first["msg"])
        return JSONResponse(error_body(400, "invalid_request_error", message, where or None), 400)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        message = f"there is no {request.method} {request.url.path}" if error.status_code < 406 else error.detail
        return JSONResponse(error_body(error.status_code, code, message), error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, "engine_error", f"the engine failed: {type(error).__name__}"), 500)


def _require_model(name: str, model_name: str) -> None:
    if name != model_name:
        message = f"the model {name!r} does not exist; there is {model_name!r}"
        raise RefusedError(404, "model_not_found", message, param="model")


def _sampling(body: _Body, prompt_tokens: int, session_len: int, param: str) -> Sampling:
    room = session_len - prompt_tokens
    if prompt_tokens == 0 or room < 1:
        message = f"the prompt has {prompt_tokens} tokens, between 1 and {session_len - 1} are possible"
        raise RefusedError(400, "context_length_exceeded", message, param=param)
    wanted = body.max_completion_tokens or body.max_tokens or room
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Sampling(
        max_tokens=min(wanted, room),
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p or 1.0,
        top_k=body.top_k or 0,
        min_p=body.min_p or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        seed=body.seed,
        stop=tuple(text for text in stop if text),
        ignores_end=body.ignore_eos,
    )


_Task = tuple[list[int], Sampling]  # a prompt, and how it is answered


async def _all_pieces(generator: Generator, tasks: list[_Task], request: Request) -> list[list[Piece]]:
    """The whole answers; nothing when their client went away before."""

    async def generate(prompt: list[int], sampling: Sampling) -> list[Piece]:
        async with aclosing(generator.stream(prompt, sampling)) as pieces:  # type: ignore[type-var]
            return [piece async for piece in pieces]

    async def until_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def generate_all() -> list[list[Piece]]:
        return await asyncio.gather(*(generate(*task) for task in tasks))

    generating, gone = asyncio.create_task(generate_all()), asyncio.create_task(until_gone())
    await asyncio.wait({generating, gone}, return_when=asyncio.FIRST_COMPLETED)
    if generating.done():
        gone.cancel()
        return generating.result()
    generating.cancel()
    await asyncio.wait({generating})
    return []


async def _events(generator: Generator, reply: _Reply, tasks: list[_Task], *, has_usage: bool) -> AsyncIterator[str]:
    tokens = 0
    for index, (prompt, sampling) in enumerate(tasks):
        if reply.kind == "chat.completion":
            yield _event(reply.chunk(index, {"role": "assistant", "content": ""}, None))
        last = Piece("", 0)
        async with aclosing(generator.stream(prompt, sampling)) as pieces:  # type: ignore[type-var]
            async for last in pieces:
                if last.text:
                    yield _event(reply.chunk(index, {"content": last.text}, None))
        yield _event(reply.chunk(index, {}, last.finish_reason))
        tokens += last.tokens
    if has_usage:
        yield _event(reply.usage_chunk(tokens))
    yield "data: [DONE]\n\n"


class _Reply:
    """The bodies of one answer."""

    def __init__(self, kind: Kind, model: str, prompt_tokens: int) -> None:
        self.kind = kind
        prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
        self._head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._prompt_tokens = prompt_tokens

    def whole(self, answers: list[tuple[str, Piece]]) -> dict[str, Any]:
        choices = [
            {"index": index, **self._content(text), "finish_reason": last.finish_reason, "logprobs": None}
            for index, (text, last) in enumerate(answers)
        ]
        usage = self._usage(sum(last.tokens for _, last in answers))
        return {**self._head, "object": self.kind, "choices": choices, "usage": usage}

    def _content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}} if self.kind == "chat.completion" else {"text": text}

    def chunk(self, index: int, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
        is_chat = self.kind == "chat.completion"
        content: dict[str, Any] = {"delta": delta} if is_chat else {"text": delta.get("content", "")}
        choice = {"index": index, **content, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk" if is_chat else self.kind, "choices": [choice]}

    def usage_chunk(self, tokens: int) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.kind == "chat.completion" else self.kind
        return {**self._head, "object": kind, "choices": [], "usage": self._usage(tokens)}

    def _usage(self, tokens: int) -> dict[str, int]:
        counts = {"prompt_tokens": self._prompt_tokens, "completion_tokens": tokens}
        return {**counts, "total_tokens": self._prompt_tokens + tokens}


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
