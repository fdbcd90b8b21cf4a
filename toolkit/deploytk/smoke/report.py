"""The report: what was measured, with what, and the verdict. Its JSON has these field names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from deploytk.artifact import QuantizedBy
from deploytk.hardware.nvml import GpuMemory
from deploytk.plan import DecodeBound
from deploytk.smoke.budget import Budget
from deploytk.smoke.correctness import Finding
from deploytk.smoke.counters import Counters
from deploytk.smoke.memory import VramReport
from deploytk.smoke.selfcheck import ClientCheck
from deploytk.smoke.statistics import Summary
from deploytk.smoke.workload import Workload

SCHEMA = "deploytk.report/1"

Status = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Status
    exit_code: int  # 0 good, 1 wrong, 3 a budget was exceeded, 4 it cannot be told
    reasons: tuple[str, ...]  # of a status that is not "pass"
    inconclusive: tuple[str, ...]  # doubts about the figures, whatever the status


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    transport: str
    python: str
    cpu: str
    cores: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What was measured, with what."""

    deploytk: str
    url: str
    model: str
    engine: str | None  # which serving engine really answered; None when nobody tells
    lmdeploy: str | None
    package_digest: str | None
    weights: str | None  # "fp16", "awq 4 bit"
    kv_policy: str | None
    settings: dict[str, str]  # of the server: session_len, max_batch_size, cache_max_entry_count, tp
    gpu: GpuMemory | None
    client: ClientIdentity
    quantized_by: QuantizedBy | None = None  # as the model's own record says: it was measured then, and not here
    baseline_key: str = ""  # equal for measurements that may be compared

    def key(self, workload: Workload) -> str:
        """A digest of everything that makes figures comparable: GPU, driver, engine, model, KV knob, work."""
        gpu = self.gpu
        what: dict[str, Any] = {
            "gpu": [gpu.name, gpu.driver, gpu.total_bytes, gpu.power_limit_w] if gpu else None,
            "cpu": None if gpu else [self.client.cpu, self.client.cores],
            "server": [self.engine, self.lmdeploy, self.weights, self.kv_policy, sorted(self.settings.items())],
            "model": self.package_digest or self.model,
            "work": [
                workload.prompt_set,
                workload.output_tokens,
                workload.concurrency,
                workload.rate,
                workload.ignores_end,
            ],
        }
        return f"sha256:{hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Latency:
    n: int
    window_s: float  # from the first send to the last byte
    ttft_ms: Summary
    ttft_sched_ms: Summary  # from when the request was due; open loop only
    ttfo_ms: Summary  # first text that is no reasoning
    tpot_ms: Summary
    ntpot_ms: Summary
    e2e_ms: Summary
    e2e_content_ms: Summary
    chunk_gap_ms: Summary
    dispatch_delay_ms: Summary
    connect_ms: Summary


@dataclass(frozen=True, slots=True)
class Throughput:
    output_tps: float | None  # output tokens of all successes / window
    output_tps_steady: float | None  # the same while at least 95 % of the concurrency were under way
    decode_tps_p50: float | None  # 1000 / median TPOT
    prefill_tps_p50: float | None  # input tokens / TTFT: no figure of the GPU, a bound
    request_rate: float | None  # successes / s
    offered_rate: float | None  # requests / s that the schedule wanted; open loop only
    achieved_send_rate: float | None
    chars_per_s: float | None
    chars_per_token: float | None
    tokens_per_event: float | None
    goodput_rps: float | None  # successes within the latency budgets / s; None without such budgets
    goodput_fraction: float | None  # of all requests that were issued


@dataclass(frozen=True, slots=True)
class Counts:
    issued: int
    success: int
    failed: int
    errors: dict[str, int]

    @property
    def error_rate(self) -> float:
        return self.failed / self.issued if self.issued else 0.0


@dataclass(frozen=True, slots=True)
class Tokens:
    source: Literal["usage"] | None  # None when the server does not count
    input: int | None
    output: int | None
    events: int
    cached: int | None  # input tokens that the server did not compute
    server_counter_delta: Counters | None


@dataclass(frozen=True, slots=True)
class ClientReport:
    cpu_frac: float  # of one core, while measuring
    check: ClientCheck | None  # None without a self-check
    observed_events_s: float | None
    headroom: float | None  # capacity / observed
    lag_p99_ms: float | None = None  # how late the client was woken while measuring


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    metric: str
    op: Literal["<=", ">="]
    limit: float
    value: float | None
    status: Status


@dataclass(frozen=True, slots=True)
class Report:
    schema: str
    kind: Literal["smoke", "bench"]
    created: str
    verdict: Verdict
    identity: Identity
    load_s: float | None  # from the start of the server to its first token; None when we did not start it
    vram: VramReport | None
    workload: Workload
    latency: Latency
    throughput: Throughput
    counts: Counts
    tokens: Tokens
    correctness: tuple[Finding, ...]
    client: ClientReport
    budget: Budget
    checks: tuple[BudgetCheck, ...]
    bound: DecodeBound | None = None  # tokens/s that the GPU's memory allows one stream; None in older reports

    @property
    def bound_share(self) -> float | None:
        """Of the bound at the length of the measured conversations, what one stream at a time reached."""
        speed, tokens = self.throughput.decode_tps_p50, self.tokens
        if self.bound is None or not speed or self.workload.concurrency > 1 or self.workload.rate is not None:
            return None
        length = (tokens.input or 0) + (tokens.output or 0) / 2
        return speed / self.bound.at(length / max(1, self.counts.success))
