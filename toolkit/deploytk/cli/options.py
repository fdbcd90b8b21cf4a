"""Options that several commands have, and the texts in them as values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploytk.base.errors import UsageError

AppKind = Literal["gradio", "api"]

ModelDir = Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory: HF layout or workspace.")]
ModelOrBundle = Annotated[Path, typer.Argument(metavar="MODEL|BUNDLE", help="A model directory or a bundle.")]
ModelBundleOrImage = Annotated[
    str, typer.Argument(metavar="MODEL|BUNDLE|IMAGE", help="A model directory, a bundle, or a container image.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the value as JSON on stdout, nothing else.")]
GpuOption = Annotated[
    str | None, typer.Option("--gpu", metavar="NAME|SIZE", help="The GPU to plan for: A100-80G, 'RTX 4090', 24G.")
]
SessionLen = Annotated[
    int | None,
    typer.Option("--session-len", min=1, help="Tokens per conversation, prompt and answer; up to 8192 by default."),
]
MaxBatch = Annotated[
    int | None, typer.Option("--max-batch-size", min=1, help="Conversations at once; up to 8 by default.")
]
Kv = Annotated[Literal["none", "int8", "int4"] | None, typer.Option("--kv", help="How the KV cache is quantized.")]
TensorParallel = Annotated[int | None, typer.Option("--tp", min=1, help="GPUs that share the model.")]
Engine = Annotated[
    Literal["auto", "turbomind", "cpu"], typer.Option("--engine", help="auto: TurboMind when a GPU is there.")
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the deployment; the directory's by default.")]
BaseModel = Annotated[str | None, typer.Option("--base-model", metavar="OWNER/NAME", help="What was quantized.")]
License = Annotated[str | None, typer.Option("--license", help="Licence of the weights, as hubs write it: apache-2.0.")]
Golden = Annotated[
    Path | None, typer.Option("--golden", exists=True, dir_okay=False, help="JSON list of {prompt, answer}.")
]
Template = Annotated[
    Path | None, typer.Option("--template", exists=True, file_okay=False, help="Your templates, by shipped name.")
]


def list_of(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def pairs_of(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{text!r} is not NAME=VALUE", hint="write for example BASE_IMAGE=debian:12")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def seconds_of(duration: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", duration)
    if not match:
        raise UsageError(f"{duration!r} is not a duration", hint="write 90s, 30m or 1h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]
