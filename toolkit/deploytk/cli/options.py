"""Options that several commands have, one by one and in groups, and the texts in them as values.

A group is a frozen dataclass: a command has a parameter of its type, and every field is an option of the command.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploytk.base.errors import UsageError
from deploytk.cli.defaults import source_argument
from deploytk.cli.session import unused

if TYPE_CHECKING:
    from deploytk.bundle import BundleOptions
    from deploytk.plan import PlanRequest

AppKind = Literal["gradio", "api"]
EngineChoice = Literal["auto", "turbomind", "cpu"]

ModelDir = Annotated[Path, source_argument("MODEL", "A model directory: HF layout or workspace.")]
ModelDirOrHub = Annotated[
    Path, source_argument("MODEL", "A model directory, or hf:OWNER/NAME or ms:OWNER/NAME on a hub; @REVISION too.")
]
ModelOrBundle = Annotated[Path, source_argument("MODEL|BUNDLE", "A model directory or a bundle.")]
ModelBundleOrImage = Annotated[
    str, source_argument("MODEL|BUNDLE|IMAGE", "A model directory, a bundle, or a container image.")
]
Engine = Annotated[EngineChoice, typer.Option("--engine", help="auto: TurboMind when a GPU is there.")]
App = Annotated[AppKind, typer.Option("--app", help="The app that is generated: chat page and API, or API alone.")]
Golden = Annotated[
    Path | None, typer.Option("--golden", exists=True, dir_okay=False, help="JSON list of {prompt, answer}.")
]
Template = Annotated[
    Path | None, typer.Option("--template", exists=True, file_okay=False, help="Your templates, by shipped name.")
]
TrustBundle = Annotated[
    bool, typer.Option("--trust-bundle", help="Run the app of a bundle even if it is not the one deploytk renders.")
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let LMDeploy run the code that the model names; read it first.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="REPORT", help="Write the report: .json, .md, .html or .xml (JUnit)"),
]


AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Take pickles that name more than weights need: loading may run code.")
]


@dataclass(frozen=True, slots=True)
class Trust:
    """What of a source that others made may run here."""

    trust_bundle: TrustBundle = False
    trust_remote_code: TrustRemoteCode = False


Sign = Annotated[
    str | None,
    typer.Option(
        metavar="KEY|sigstore", help="Sign it: with the private key in a PEM file, or as Sigstore's identity."
    ),
]
RequireSignature = Annotated[
    Path | None,
    typer.Option(
        metavar="PUB", exists=True, dir_okay=False, help="Go on only when the owner of this public key has signed it."
    ),
]


@dataclass(frozen=True, slots=True)
class Contents:
    """What the files of a source may be, and who must have signed them."""

    allow_pickle: AllowPickle = False
    require_signature: RequireSignature = None


@dataclass(frozen=True, slots=True)
class Signed:
    """Who must have signed."""

    key: Annotated[
        Path | None, typer.Option(metavar="PUB", exists=True, dir_okay=False, help="Whose public key, a PEM file.")
    ] = None
    identity: Annotated[str | None, typer.Option(metavar="WHO", help="Whom Sigstore knows: an address, a URL.")] = None
    issuer: Annotated[str | None, typer.Option(metavar="URL", help="Who vouches for --identity.")] = None


@dataclass(frozen=True, slots=True)
class Planning:
    """How the model is to be served; None means: choose."""

    gpu: Annotated[str | None, typer.Option(metavar="NAME|SIZE", help="The GPU to plan for: A100-80G, 24G.")] = None
    session_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens per conversation, prompt and answer; up to 8192 by default.")
    ] = None
    max_batch_size: Annotated[int | None, typer.Option(min=1, help="Conversations at once; up to 8 by default.")] = None
    kv: Annotated[Literal["none", "int8", "int4"] | None, typer.Option(help="How the KV cache is quantized.")] = None
    tp: Annotated[int | None, typer.Option(min=1, help="GPUs that share the model.")] = None
    cache_max_entry_count: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of memory for the KV pool, instead of what is needed.")
    ] = None
    reasoning_parser: Annotated[
        str | None, typer.Option(metavar="NAME", help="Part what the model thinks from its answer: LMDeploy's parser.")
    ] = None

    def request(self, engine: EngineChoice = "auto", *, trusts_code: bool = False) -> PlanRequest:
        from deploytk.plan import PlanRequest

        return PlanRequest(
            gpu=self.gpu,
            session_len=self.session_len,
            max_batch_size=self.max_batch_size,
            kv_policy=self.kv,
            tensor_parallel=self.tp,
            serving_engine=None if engine == "auto" else engine,
            trust_remote_code=trusts_code,
            cache_max_entry_count=self.cache_max_entry_count,
            reasoning_parser=self.reasoning_parser,
        )

    def request_here(self, engine: EngineChoice = "auto", *, trusts_code: bool = False) -> PlanRequest:
        """With the GPUs of this machine and what is free on them, and what the user's smoke tests found.

        For what runs here; a bundle is the same wherever it is made.
        """
        from deploytk.hardware.here import gpus_here
        from deploytk.plan.calibration import read_measured

        wishes = self.request(engine, trusts_code=trusts_code)
        return wishes if engine == "cpu" else replace(wishes, here=gpus_here(), measured=read_measured())

    def on_cpu(self) -> Planning:
        """What the CPU engine can follow; raises UsageError for more on the command line."""
        because = "the CPU engine uses no GPU, has one conversation at a time and never quantizes the cache"
        options = ("gpu", "max_batch_size", "kv", "tp", "cache_max_entry_count")
        unused(*options, because=because, hint="leave it out, or --engine cpu")
        unused("reasoning_parser", because="the CPU engine gives the text of a model as it is")
        unused("trust_remote_code", because="the CPU engine runs no code of a model")
        return Planning(session_len=self.session_len)


@dataclass(frozen=True, slots=True)
class Packaging:
    """What the card and the manifest of a bundle say beside what the model and its plan do."""

    name: Annotated[str | None, typer.Option(help="Name of the deployment; the directory's by default.")] = None
    base_model: Annotated[str | None, typer.Option(metavar="OWNER/NAME", help="What was quantized.")] = None
    license: Annotated[str | None, typer.Option(help="Licence of the weights, as hubs write it: apache-2.0.")] = None
    language: Annotated[
        str | None, typer.Option(metavar="zh,en", help="Languages that the model speaks, as hubs write them.")
    ] = None
    notes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Your own words for the card: Markdown; NAME_zh.md too."
        ),
    ] = None
    golden: Golden = None
    template: Template = None
    trust_bundle: TrustBundle = False
    trust_remote_code: TrustRemoteCode = False
    allow_pickle: AllowPickle = False

    def options(self, source: Path, app: AppKind) -> BundleOptions:
        from deploytk.bundle import BundleOptions, read_golden, read_notes

        return replace(
            BundleOptions.titled(self.name) if self.name else BundleOptions.after(source),
            license=self.license,
            base_model=self.base_model,
            languages=list_of(self.language) or (),
            notes=read_notes(self.notes) if self.notes else None,
            app=app,
            golden=read_golden(self.golden) if self.golden else (),
            template=self.template,
        )


def key_in(variable: str | None) -> str | None:
    """The key for a server at a URL, from a variable: arguments of a command are seen by others."""
    from deploytk.serve.asking import API_KEY

    key = os.environ.get(variable or API_KEY, "").strip() or None
    if variable and key is None:
        raise UsageError(f"the variable {variable!r} holds no key", hint="set it, or leave out --api-key-env")
    return key


def list_of(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def pairs_of(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{text!r} is not NAME=VALUE", hint="write for example BASE_IMAGE=debian:12")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}
