"""The Bundle: a directory that runs by itself, and its manifest `deploytk.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploytk.artifact import Artifact
from deploytk.base.names import is_title, slug
from deploytk.plan import ServingPlan

FORMAT = 1
"""Version of `deploytk.json`; raised when a key changes its meaning."""

MANIFEST = "deploytk.json"

SIGNATURE = "model.sig"
"""The signature of all other files of a bundle: it is in no manifest, because it signs that as well."""

START = "app.py"
"""What hubs start."""

ROOM = "deploytk_app"
"""The directory of the app in a bundle: nothing of a model is ever in it."""

CARDS = ("README.md", "README_zh.md")
"""The model card in English and in Chinese: generated, and its owner's to edit."""

ENGLISH_BESIDE = "README_en.md"
"""The English card where a hub's readers are Chinese: README.md is the Chinese one there."""

EDITABLE = (*CARDS, ENGLISH_BESIDE)

FileKind = Literal["weights", "model", "app", "card"]
AppKind = Literal["gradio", "api"]


@dataclass(frozen=True, slots=True)
class BundleFile:
    path: str  # relative to the bundle, with /
    size: int  # bytes
    sha256: str
    kind: FileKind  # weights and model lie where they lay in the model directory; app and card are generated


@dataclass(frozen=True, slots=True)
class Golden:
    """A prompt and the only right answer to it, decoded greedily."""

    prompt: str
    answer: str
    is_raw: bool = False  # sent to /v1/completions as it is, not as a chat message


CHART = "measured.png"


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of what was measured, and what it shows, for those who do not see it."""

    png: bytes
    kind: Literal["load", "spread"]  # speed over requests at once; least, median, 95 % and most of the requests
    figures: tuple[str, ...]  # a line each


@dataclass(frozen=True, slots=True)
class Measured:
    """What a smoke test measured; None where it has no figure."""

    gpu: str | None  # None: on CPU
    cpu: str | None  # "AMD EPYC 7763 (8 cores)"
    driver: str | None
    engine: str | None
    lmdeploy: str | None
    kv_policy: str | None
    deploytk: str
    date: str  # "2026-11-23"
    requests: int
    output_tokens: int  # at most, per request
    concurrency: int
    ttft_p50_ms: float | None  # until the first token
    ttft_p95_ms: float | None
    tpot_p50_ms: float | None  # per output token after the first
    output_tps: float | None  # tokens per second of all requests together
    decode_tps: float | None  # of one request
    vram_ready_bytes: int | None
    vram_peak_bytes: int | None
    checks_passed: int  # of the checks that answers are right
    checks: int  # that were run
    checks_not_run: int = 0
    chart: Chart | None = None


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What the packager is told besides the model and its plan."""

    name: str  # in ASCII, as hubs take names
    license: str | None = None  # an SPDX identifier in lower case as hubs write it: "apache-2.0"
    base_model: str | None = None  # "owner/name" of what was quantized
    app: AppKind = "gradio"
    golden: tuple[Golden, ...] = ()
    template: Path | None = None  # user templates that replace shipped ones by name
    is_passing: bool = False  # model files are symbolic links, there is no card: for a bundle that goes when we do
    measured: Measured | None = None  # goes onto the card
    typed: str | None = None  # the name in any script, where it is another
    notes: Mapping[str, str] | None = None  # card -> its owner's own words; None: those that are there already
    languages: tuple[str, ...] = ()  # that the model speaks, as hubs write them: "zh", "en"

    @property
    def title(self) -> str:
        """The name that people read."""
        return self.typed or self.name

    @classmethod
    def titled(cls, typed: str) -> BundleOptions:
        """Those of a deployment that is called `typed` in any script and served under its slug."""
        name = slug(typed)
        return cls(name, typed=None if typed == name else typed)

    @classmethod
    def after(cls, directory: Path) -> BundleOptions:
        """Those of a deployment that is called as its directory is, where that can be read."""
        name = directory.resolve().name
        return cls.titled(name) if is_title(name) else cls(slug(name))


@dataclass(frozen=True, slots=True)
class App:
    """What the app is told beside the plan."""

    kind: AppKind
    title: str
    host: str
    port: int
    examples: tuple[str, ...]  # prompts that the chat page offers


@dataclass(frozen=True, slots=True)
class Card:
    license: str | None
    base_model: str | None
    languages: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)  # card -> its owner's words, as they were given
    generated: dict[str, str] = field(default_factory=dict)  # card -> what deploytk wrote: what differs is its owner's


@dataclass(frozen=True, slots=True)
class Manifest:
    """`deploytk.json`, read back: every value is one that deploytk writes."""

    deploytk: str  # the version that wrote it
    name: str
    model: Artifact  # at the bundle; what `inspect` found, without its files, its config and its problems
    plan: ServingPlan
    app: App
    card: Card
    golden: tuple[Golden, ...]
    files: tuple[BundleFile, ...]  # sorted by path


@dataclass(frozen=True, slots=True)
class Bundle:
    path: Path
    name: str
    digest: str  # "sha256:..." over the sorted lines `sha256  path\n` of files
    files: tuple[BundleFile, ...]  # all but deploytk.json itself, sorted by path; model.sig as well where it is there
    manifest: Manifest
    bytes: int  # sum of the sizes of files
    copied_bytes: int  # what had to be copied because hard links did not work; 0 when read back
    home: Path | None = field(default=None, repr=False)  # of the bundle that this is the form of for one hub
    edited: tuple[str, ...] = ()  # the cards that the manifest on disk tells otherwise of: see settle_edits

    def beside(self, ending: str) -> Path:
        """The place of what is kept about the bundle: beside it, by its name."""
        path = self.home or self.path
        return path.with_name(f"{path.name}.{ending}")
