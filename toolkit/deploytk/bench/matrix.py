"""What is measured: every model with every engine, KV cache and load that is possible."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deploytk.artifact import Artifact, KvPolicy, read_artifact
from deploytk.base.errors import DeployError, UsageError
from deploytk.base.validation import in_words
from deploytk.plan import (
    PlanRequest,
    ServingPlan,
    plan_serving,
    require_trust,
    require_trust_here,
    require_trusted_plan,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BenchEngine = Literal["turbomind", "pytorch", "huggingface", "cpu"]

_NO_WISHES = PlanRequest()
_SLACK_TOKENS = 64  # prompts are fitted to a length by the server's count, which may be off by a few


@dataclass(frozen=True, slots=True)
class Matrix:
    """The dimensions beside the models."""

    engines: tuple[BenchEngine, ...] = ("turbomind",)
    kv: tuple[KvPolicy, ...] = ("none",)
    concurrency: tuple[int, ...] = (1, 8, 32)
    input_tokens: tuple[int, ...] = (128,)
    output_tokens: tuple[int, ...] = (256,)
    repetitions: int = 3
    session_len: int | None = None  # None: as long as the longest load needs

    def loads(self) -> tuple[Load, ...]:
        return tuple(
            itertools.starmap(Load, itertools.product(self.input_tokens, self.output_tokens, self.concurrency))
        )

    @property
    def tokens_per_session(self) -> int:
        longest = max(self.input_tokens) + max(self.output_tokens)
        return self.session_len or -(-(longest + _SLACK_TOKENS) // 64) * 64


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests at once, of one length."""

    input_tokens: int
    output_tokens: int
    concurrency: int

    @property
    def name(self) -> str:
        return f"c{self.concurrency}.i{self.input_tokens}.o{self.output_tokens}"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to serve one model."""

    artifact: Artifact
    engine: BenchEngine
    kv_policy: KvPolicy
    plan: ServingPlan | None  # None for Hugging Face, which plans nothing
    ranks: int = 1  # GPUs that share the model
    share: float | None = None  # of memory for the KV pool; None: what the sessions need

    @property
    def model(self) -> str:
        return self.artifact.root.resolve().name

    @property
    def name(self) -> str:
        ranks = f".tp{self.ranks}" if self.ranks > 1 else ""
        share = f".pool{self.share:g}" if self.share is not None else ""
        return f"{self.model}.{self.engine}.kv-{self.kv_policy}{ranks}{share}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A deployment that is not possible, and why."""

    name: str
    reason: str


def read_matrix(path: Path) -> dict[str, object]:
    """The dimensions in a TOML file, unchecked, for `make_matrix`; raises UsageError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="write for example: concurrency = [1, 8]") from error


def make_matrix(values: Mapping[str, object]) -> Matrix:
    """A matrix of dimensions by name; raises UsageError for unknown names and for values that make no sense."""
    from pydantic import ConfigDict, ValidationError, with_config
    from pydantic.type_adapter import TypeAdapter

    try:
        matrix = TypeAdapter(with_config(ConfigDict(extra="forbid"))(Matrix)).validate_python(dict(values))
    except ValidationError as error:
        raise _wrong(error.errors(include_url=False)[0]) from error
    for name in ("engines", "kv", "concurrency", "input_tokens", "output_tokens"):
        if not getattr(matrix, name):
            raise UsageError(f"{_option(name)} is empty", hint="give at least one value")
    for name in ("concurrency", "input_tokens", "output_tokens", "repetitions"):
        value = getattr(matrix, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number < 1:
                raise UsageError(f"{_option(name)}: {number} is less than 1", hint="take whole numbers from 1 on")
    if matrix.tokens_per_session < max(matrix.input_tokens) + max(matrix.output_tokens):
        raise UsageError(
            f"a session of {matrix.session_len} tokens is shorter than input and output together",
            hint="leave --session-len out, or make it longer",
        )
    return matrix


def _wrong(found: ErrorDetails) -> UsageError:
    name = str(found["loc"][0])
    known = [field.name for field in dataclasses.fields(Matrix)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"a matrix has {', '.join(known)}"
        return UsageError(f"a matrix has no {name!r}", hint=hint)
    return UsageError(f"{_option(name)}: {in_words(found)}", hint="see `deploytk bench --help`")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def expand(
    models: Sequence[Path],
    matrix: Matrix,
    request: PlanRequest = _NO_WISHES,
    *,
    trusts_code: bool = False,
    allows_pickles: bool = False,
) -> tuple[list[Deployment], list[Skipped]]:
    """Everything that can be deployed, in the order of the models, and what cannot.

    `request` has the GPUs that are here, and what holds for all of the matrix. Raises UsageError for two models of
    one name, ArtifactError for a broken one, TrustError for one of which an engine would run code that nobody trusts.
    """
    artifacts = [read_artifact(model, allows_pickles=allows_pickles) for model in models]
    names = [artifact.root.resolve().name for artifact in artifacts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two models are called {twice[0]}", hint="rename one of the directories: rows need names")
    deployments, skipped = [], []
    for artifact in artifacts:
        artifact.require_usable()
        if not trusts_code and not {"turbomind", "pytorch"}.isdisjoint(matrix.engines):
            _require_trust(artifact)
        for engine, kv_policy in itertools.product(matrix.engines, matrix.kv):
            ranks = request.tensor_parallel or artifact.tensor_parallel
            found = Deployment(artifact, engine, kv_policy, None, ranks, request.cache_max_entry_count)
            reason = "; ".join(_obstacles(found, has_gpu=bool(request.here)))
            if reason:
                skipped.append(Skipped(found.name, reason))
                continue
            try:
                plan = _plan(found, matrix, dataclasses.replace(request, trust_remote_code=trusts_code))
            except DeployError as error:
                skipped.append(Skipped(found.name, str(error)))
                continue
            deployments.append(dataclasses.replace(found, plan=plan))
    return deployments, skipped


def _require_trust(artifact: Artifact) -> None:
    require_trust(artifact.remote_code, artifact.lmdeploy.pin, str(artifact.root), is_trusted=False)
    if shutil.which("lmdeploy"):
        require_trust_here(artifact.remote_code, str(artifact.root), is_trusted=False)


def _obstacles(deployment: Deployment, *, has_gpu: bool) -> Iterator[str]:
    """Why an engine cannot do this here, as far as no plan says it."""
    if deployment.engine != "cpu" and not has_gpu:
        yield "no GPU is here"
    if deployment.engine in ("turbomind", "pytorch") and shutil.which("lmdeploy") is None:
        yield "lmdeploy is not installed here"
    if deployment.engine in ("huggingface", "cpu") and deployment.ranks > 1:
        yield f"the {deployment.engine} engine does not share a model among GPUs"
    if deployment.engine in ("huggingface", "cpu") and deployment.share is not None:
        yield f"the {deployment.engine} engine has no KV pool"
    if deployment.engine == "huggingface" and deployment.kv_policy != "none":
        yield "transformers needs quanto or hqq to quantize its KV cache"
    if deployment.engine == "huggingface" and deployment.artifact.is_quantized:
        yield "transformers has no kernels for these weights: it would run them dequantized"


def _plan(deployment: Deployment, matrix: Matrix, request: PlanRequest) -> ServingPlan | None:
    if deployment.engine == "huggingface":
        return None
    is_on_cpu = deployment.engine == "cpu"
    wanted = dataclasses.replace(
        request,
        here=() if is_on_cpu else request.here,
        session_len=min(matrix.tokens_per_session, deployment.artifact.session_len),
        max_batch_size=None if is_on_cpu else max(matrix.concurrency),
        kv_policy=deployment.kv_policy,
        serving_engine=deployment.engine,
    )
    plan = plan_serving(deployment.artifact, wanted)
    require_trusted_plan(deployment.artifact, plan, is_trusted=wanted.trust_remote_code)
    return plan
