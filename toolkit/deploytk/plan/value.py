"""The ServingPlan: how a model is served."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass

from deploytk import lmdeploy
from deploytk.artifact import Artifact, KvPolicy
from deploytk.base.names import SLUG
from deploytk.base.typed import typed
from deploytk.hardware.catalogue import Gpu
from deploytk.plan.api import ServingEngine, api_features, tool_call_parser
from deploytk.plan.measured import MeasuredOverhead
from deploytk.plan.memory import PREFILL, Vram
from deploytk.plan.speed import DecodeBound

MODEL_AT = 3
"""Where the model's path is in `ServingPlan.argv`."""

PORT = 23333
"""LMDeploy's own default."""

NO_WINDOWS = ("NCCL_WIN_ENABLE", "0")
Command = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
"""A command line, and what goes into config.ini instead where a version has no flag for it."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a user asked for; None means: choose."""

    gpu: str | Gpu | None = None  # "A100-80G", "RTX 4090", or a size: "24G", "24GiB", "24576MiB"
    session_len: int | None = None  # tokens, prompt and answer together
    max_batch_size: int | None = None
    kv_policy: KvPolicy | None = None
    tensor_parallel: int | None = None
    serving_engine: ServingEngine | None = None
    cache_max_entry_count: float | None = None  # the share itself instead of the sessions that must fit
    model_name: str | None = None  # what /v1/models shows; the directory's name by default
    reasoning_parser: str | None = None  # parts what the model thinks from its answer; None: both are one text
    trust_remote_code: bool = False  # code that the model names (auto_map) may run
    here: tuple[Gpu, ...] = ()  # of this machine, in CUDA's order: planned for where `gpu` names none
    measured: tuple[MeasuredOverhead, ...] = ()  # what smoke tests found of servers, which beats what deploytk knows


def _sessions(count: int, session_len: int) -> str:
    return f"{count} {'session' if count == 1 else 'sessions'} of {session_len} tokens"


@dataclass(frozen=True, slots=True)
class Alternative:
    """One change that makes a plan fit which does not."""

    change: str  # "shorter sessions"
    option: str  # what to type for it
    max_batch_size: int
    session_len: int
    kv_capacity_tokens: int

    @property
    def sessions(self) -> str:
        """In words: 3 sessions of 4000 tokens."""
        return _sessions(self.max_batch_size, self.session_len)


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """How a model is served. App, image, card and smoke test read this and decide nothing themselves."""

    engine: ServingEngine
    lmdeploy: str | None  # the version to install; None for the CPU engine
    argv: tuple[str, ...]  # starts the engine's API server; the model path is argv[MODEL_AT]
    config_ini: tuple[tuple[str, str], ...]  # keys to set in config.ini (LMDeploy <= 0.1.0 has no flags for them)
    model_name: str
    session_len: int
    max_batch_size: int
    tensor_parallel: int
    kv_policy: KvPolicy
    quant_policy: int  # the number that means kv_policy in that version
    cache_max_entry_count: float  # in the meaning of that version
    kv_bytes_per_token: int  # one GPU
    kv_capacity_tokens: int
    vram: Vram
    gpu: Gpu | None
    fits: bool | None  # None when no GPU is given
    largest_session_len: int | None  # at max_batch_size, on that GPU
    largest_batch: int | None  # at session_len, on that GPU
    notes: tuple[str, ...]  # what a user should know, one sentence each
    alternatives: tuple[Alternative, ...]  # what would fit; () where the plan itself does, or nobody knows
    environment: tuple[tuple[str, str], ...] = ()  # for the engine, where its user says nothing else
    features: tuple[str, ...] = ()  # what its API has beyond plain text: deploytk.app.features; of LMDeploy
    decode_bound: DecodeBound | None = None  # None where the GPU's bandwidth or what is read is not known

    def at(self, model: str) -> ServingPlan:
        """The same plan for the same model at another path."""
        argv = (*self.argv[:MODEL_AT], model, *self.argv[MODEL_AT + 1 :])
        return dataclasses.replace(self, argv=argv)

    @property
    def sessions(self) -> str:
        """In words: 3 sessions of 4000 tokens."""
        return _sessions(self.max_batch_size, self.session_len)

    @property
    def command_line(self) -> str:
        """What a shell takes: environment and command."""
        return " ".join([*(f"{name}={value}" for name, value in self.environment), shlex.join(self.argv)])

    @property
    def trusts_remote_code(self) -> bool:
        """Whether the server is started so that it runs code which the model names."""
        return "--trust-remote-code" in self.argv[MODEL_AT + 1 :]

    @property
    def reasoning_parser(self) -> str | None:
        """What the server is told in order to part what the model thinks from its answer."""
        flag = "--reasoning-parser"
        return self.argv[self.argv.index(flag, MODEL_AT + 1) + 1] if flag in self.argv[MODEL_AT + 1 : -1] else None

    def command(
        self, artifact: Artifact, *, trusts_remote_code: bool = False, reasoning_parser: str | None = None
    ) -> Command:
        """What starts the server that this plan describes, for a model of that kind at its root."""
        if self.lmdeploy is None:
            preview = ("python", "-m", "deploytk.cpu_engine", str(artifact.root), "--server-port", str(PORT))
            return (*preview, "--model-name", self.model_name, "--session-len", str(self.session_len)), ()
        start = ("lmdeploy", "serve", "api_server", str(artifact.root))
        if not lmdeploy.has_flag(self.lmdeploy, "--session-len"):
            return (
                *start,
                "--server_name",
                "127.0.0.1",
                "--server_port",
                str(PORT),
                "--tp",
                str(self.tensor_parallel),
            ), tuple(self._settings())
        # LMDeploy's default is every interface, without a key.
        flags = {
            "--server-name": "127.0.0.1",
            "--server-port": str(PORT),
            "--backend": self.engine,
            "--tp": str(self.tensor_parallel),
        }
        if lmdeploy.has_flag(self.lmdeploy, "--model-name") or artifact.architecture == lmdeploy.OWN_ARCHITECTURE:
            flags["--model-name"] = self.model_name
        flags |= {f"--{name.replace('_', '-')}": value for name, value in self._settings()}
        factor = dict(artifact.rope.scaling).get("factor")
        if factor and lmdeploy.flags_replace_ini(self.lmdeploy):
            flags["--rope-scaling-factor"] = str(factor)
        if artifact.layout == "huggingface" and artifact.weight_format in ("awq", "gptq"):
            flags["--model-format"] = artifact.weight_format
        if self.kv_capacity_tokens < PREFILL and lmdeploy.has_flag(self.lmdeploy, "--max-prefill-token-num"):
            flags["--max-prefill-token-num"] = str(min(self.session_len, self.kv_capacity_tokens))
        parser = tool_call_parser(artifact, self.lmdeploy)
        if parser:
            flags["--tool-call-parser"] = parser
        if reasoning_parser:
            flags["--reasoning-parser"] = reasoning_parser
        trusts = trusts_remote_code and lmdeploy.has_flag(self.lmdeploy, "--trust-remote-code")
        parts = [part for flag in flags.items() for part in flag]
        return (*start, *parts, *(("--trust-remote-code",) if trusts else ())), ()

    def needed_environment(self) -> tuple[tuple[str, str], ...]:
        """What the engine must be started with to be right.

        Several ranks of TurboMind disagree when NCCL 2.27 or later reduces in the windows that LMDeploy registers:
        wrong tokens, then one rank waits for ever (measured with LMDeploy 0.18.0 and NCCL 2.28.9 on two H100).
        """
        is_hit = self.engine == "turbomind" and self.tensor_parallel > 1
        return (NO_WINDOWS,) if is_hit and lmdeploy.registers_windows(str(self.lmdeploy)) else ()

    def _settings(self) -> list[tuple[str, str]]:
        share = f"{self.cache_max_entry_count:.12f}".rstrip("0").rstrip(".")  # never 6.4e-05
        return [
            ("session_len", str(self.session_len)),
            ("max_batch_size", str(self.max_batch_size)),
            ("cache_max_entry_count", share),
            ("quant_policy", str(self.quant_policy)),
        ]

    @classmethod
    def from_manifest(cls, found: object, artifact: Artifact) -> ServingPlan:
        """The plan that `found`, the `plan` of a manifest, is for that model.

        Raises ValueError, in words, for one that is not whole, that contradicts itself, or whose command is not what
        it would generate: whoever serves a bundle starts that command.
        """
        plan = typed(cls, found, "plan")
        plan._require_sense()
        own = template_name(artifact, plan.lmdeploy)
        if plan.model_name != own if own else not SLUG.fullmatch(plan.model_name):
            raise ValueError("plan.model_name is malformed")
        argv, config_ini = plan.command(
            artifact, trusts_remote_code=plan.trusts_remote_code, reasoning_parser=plan.reasoning_parser
        )
        if plan.argv != argv:
            raise ValueError("plan.argv is not the command that the plan itself means")
        if plan.features != api_features(artifact, plan.lmdeploy, plan.engine):
            raise ValueError("plan.features is not what its engine has")
        if plan.config_ini != config_ini:
            raise ValueError("plan.config_ini is not what the plan itself means")
        if plan.environment != plan.needed_environment():
            raise ValueError("plan.environment is not what the plan itself means")
        return plan

    def _require_sense(self) -> None:
        """Raises ValueError for values that no plan has."""
        is_cpu = self.engine == "cpu"
        version = self.lmdeploy if self.lmdeploy in lmdeploy.VERSIONS else None
        parsers = lmdeploy.reasoning_parsers(version) if version else ()
        checks = {
            "lmdeploy": is_cpu if self.lmdeploy is None else not is_cpu and self.lmdeploy in lmdeploy.VERSIONS,
            "session_len": self.session_len >= 1,
            "max_batch_size": self.max_batch_size >= 1,
            "tensor_parallel": self.tensor_parallel >= 1,
            "cache_max_entry_count": 0 <= self.cache_max_entry_count < 1e6,
            "argv": self.reasoning_parser in (None, *parsers),
            "fits": (self.fits is None) == (self.gpu is None),
        }
        for name, is_right in checks.items():
            if not is_right:
                raise ValueError(f"plan.{name} is malformed")
        meant = 0 if self.lmdeploy is None else lmdeploy.quant_policy(self.lmdeploy, self.kv_policy)
        if self.quant_policy != meant:
            raise ValueError("plan.quant_policy is not what its kv_policy means in that version")


def template_name(artifact: Artifact, version: str | None) -> str | None:
    """What a server that takes no name for its model calls it: its chat template's. None for one that takes a name."""
    if version is None or lmdeploy.has_flag(version, "--model-name"):
        return None
    return artifact.chat_template or "llama"
