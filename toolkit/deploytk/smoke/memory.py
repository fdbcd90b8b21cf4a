"""Splits the VRAM of a server into weights, KV pool and the rest, and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from deploytk.hardware.catalogue import MIB
from deploytk.hardware.nvml import GpuMemory, Track
from deploytk.plan import MeasuredOverhead
from deploytk.smoke.correctness import Finding
from deploytk.smoke.engine_log import EngineLog
from deploytk.smoke.prediction import CHECK, Parts, PlannedVram, Predicted, check_prediction
from deploytk.smoke.record import Record

LEAK = "no memory leak"
"""The check of all that the GPUs of this machine hold."""

SLACK_BYTES = 64 * MIB
"""What may come and go on a GPU without anybody noticing."""

_LEAST_JUDGED_BYTES = 2**30  # of fp16 weights: beside smaller ones the CUDA context is too large to tell
_QUANTIZED_SHARE = 0.6  # of fp16
_WARM_REQUESTS = 5
_SERIES_POINTS = 200


@dataclass(frozen=True, slots=True)
class Components:
    """Bytes of one GPU; None where they cannot be told apart."""

    weights_bytes: int | None
    kv_pool_bytes: int | None
    overhead_bytes: int | None


@dataclass(frozen=True, slots=True)
class KvFacts:
    bytes_per_token: int | None
    capacity_tokens: int | None
    effective_session_len: int | None


@dataclass(frozen=True, slots=True)
class Sampling:
    interval_ms: float
    samples: int
    max_gap_ms: float
    series: tuple[tuple[float, float], ...]  # (seconds since the first sample, MiB), thinned out


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What was used on one of the GPUs that share a model."""

    name: str
    uuid: str
    total_bytes: int
    baseline_bytes: int
    ready_bytes: int
    peak_bytes: int
    after_stop_bytes: int | None
    predicted_error_pct: float | None

    @property
    def ready_of_ours(self) -> int:
        return self.ready_bytes - self.baseline_bytes


@dataclass(frozen=True, slots=True)
class VramReport:
    """Device-wide use of one GPU by the driver's count; of several, the one that is used most, and all in `gpus`."""

    api: str
    scope: Literal["device", "mig"]
    method: Literal["engine_log", "two_point"] | None  # how it was split
    parser: str | None
    sampling: Sampling
    total_bytes: int
    reserved_bytes: int | None
    baseline_bytes: int  # before the server started; when we did not start it, 0
    ready_bytes: int  # after warm-up and requests
    peak_bytes: int
    after_stop_bytes: int | None  # None when we did not start it
    growth_bytes: int | None  # from the fifth request to the last
    used_before_pool_bytes: int | None  # weights and CUDA context, by the engine's own count of what was free
    components: Components
    kv: KvFacts
    predicted: Predicted | None
    foreign_processes: int  # that computed on the GPUs before ours started
    gpus: tuple[GpuUse, ...] = ()  # every GPU that the server uses; () in older reports
    measured: MeasuredOverhead | None = None  # for `deploytk calibrate`

    @property
    def ready_of_ours(self) -> int:
        return self.ready_bytes - self.baseline_bytes

    @property
    def peak_of_ours(self) -> int:
        """Of all its GPUs the most."""
        uses: Iterable[GpuUse | VramReport] = self.gpus or (self,)
        return max(one.peak_bytes - one.baseline_bytes for one in uses)

    @property
    def parts(self) -> Parts:
        return Parts(self.ready_of_ours, self.components.kv_pool_bytes, self.used_before_pool_bytes)


def two_point(share_1: float, used_1: int, share_2: float, used_2: int) -> tuple[int, int]:
    """(what the pool takes at share 1, what everything else takes) from two starts with different pools.

    A pool is a share of what was free before it, so use grows linearly with the share.
    """
    if share_1 == share_2:
        raise ValueError("the two shares must differ")
    free = (used_2 - used_1) / (share_2 - share_1)
    pool = round(free * share_1)
    return pool, used_1 - pool


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of one GPU around one measurement."""

    ready: GpuMemory
    track: Track
    is_ours: bool  # we started the server
    after_stop_bytes: int | None

    @property
    def grown_bytes(self) -> int:
        return self.ready.used_bytes - self.track.first.used_bytes


def used_gpus(watched: Sequence[Watched], ranks: int | None) -> tuple[Watched, ...]:
    """Those that a server of so many ranks uses; where that is not known, the first, and all on which use grew."""
    if ranks is not None:
        return tuple(watched[:ranks])
    grown = tuple(one for one in watched if one.is_ours and one.grown_bytes > SLACK_BYTES)
    return grown or tuple(watched[:1])


def report_gpus(
    watched: Sequence[Watched], log: EngineLog, planned: PlannedVram | None, records: tuple[Record, ...]
) -> VramReport:
    """The report of the GPU that is used most, with the use of each."""
    reports = [report_vram(one, log, planned, records) for one in watched]
    largest = max(reports, key=lambda report: report.ready_of_ours)
    uses = tuple(_use(one, report) for one, report in zip(watched, reports, strict=True))
    foreign = max(report.foreign_processes for report in reports)
    return replace(largest, gpus=uses, foreign_processes=foreign)


def _use(watched: Watched, report: VramReport) -> GpuUse:
    return GpuUse(
        name=watched.ready.name,
        uuid=watched.ready.uuid,
        total_bytes=report.total_bytes,
        baseline_bytes=report.baseline_bytes,
        ready_bytes=report.ready_bytes,
        peak_bytes=report.peak_bytes,
        after_stop_bytes=report.after_stop_bytes,
        predicted_error_pct=report.predicted.error_pct if report.predicted else None,
    )


def report_vram(
    watched: Watched, log: EngineLog, planned: PlannedVram | None, records: tuple[Record, ...]
) -> VramReport:
    """What was used, by what, against what the plan said."""
    before, ready, track = watched.track.first, watched.ready, watched.track
    baseline = before.used_bytes if watched.is_ours else 0
    reserved = ready.reserved_bytes or 0
    before_pool = None
    if log.free_bytes is not None and watched.is_ours:
        before_pool = ready.total_bytes - reserved - baseline - log.free_bytes
    used = ready.used_bytes - baseline
    return VramReport(
        api=ready.api,
        scope="mig" if ready.is_mig else "device",
        method="engine_log" if log.parser else None,
        parser=log.parser,
        sampling=_sampling(track),
        total_bytes=ready.total_bytes,
        reserved_bytes=ready.reserved_bytes,
        baseline_bytes=baseline,
        ready_bytes=ready.used_bytes,
        peak_bytes=max(track.peak_bytes, ready.used_bytes),
        after_stop_bytes=watched.after_stop_bytes,
        growth_bytes=_growth(track, records),
        used_before_pool_bytes=before_pool,
        components=_components(used, log, planned),
        kv=_kv(log, planned),
        predicted=Predicted.of(planned, used) if planned else None,
        foreign_processes=len(before.processes) if watched.is_ours else max(0, len(before.processes) - 1),
    )


def check_vram(vram: VramReport, planned: PlannedVram | None) -> tuple[Finding, ...]:
    """Leaks, memory that stays after the end, weights that are not quantized, a pool smaller than planned."""
    found = [_leak(vram), _release(vram)]
    if planned is not None:
        found += [_quantized(vram, planned), _capacity(vram, planned)]
    return tuple(found)


def check_planned(vram: VramReport, tolerance_pct: float | None) -> tuple[Finding, ...]:
    """Whether what was used is what the plan said, on every GPU; nothing where no plan said anything."""
    predicted = vram.predicted
    if predicted is None or predicted.before_pool_bytes is None:
        return ()
    furthest = _furthest(vram, predicted)
    if furthest is None:
        return ()
    if vram.foreign_processes:
        return (Finding(CHECK, "not run", "others computed on the GPU as well"),)
    return (check_prediction(predicted, *furthest, tolerance_pct),)


def _furthest(vram: VramReport, predicted: Predicted) -> tuple[Parts, float] | None:
    """Of all GPUs the one that is furthest from its plan, and by how many per cent; None where that is not known."""
    alone = vram.parts
    errors = [(alone, predicted.error_pct)]
    if len(vram.gpus) > 1:
        errors = [
            (replace(alone, used_bytes=use.ready_of_ours, where=f" on GPU {number}"), use.predicted_error_pct)
            for number, use in enumerate(vram.gpus)
        ]
    known = [(parts, error) for parts, error in errors if error is not None]
    return max(known, key=lambda one: abs(one[1]), default=None)


def _leak(vram: VramReport) -> Finding:
    if vram.growth_bytes is None:
        return Finding(LEAK, "not run", f"fewer than {_WARM_REQUESTS + 1} requests, or no samples")
    detail = f"{vram.growth_bytes / MIB:+.0f} MiB from request {_WARM_REQUESTS} to the last"
    return Finding(LEAK, "fail" if vram.growth_bytes > SLACK_BYTES else "pass", detail)


def _release(vram: VramReport) -> Finding:
    if vram.after_stop_bytes is None:
        return Finding("memory released", "not run", "the server is not ours to stop")
    uses: Iterable[GpuUse | VramReport] = vram.gpus or (vram,)
    left = max((one.after_stop_bytes or 0) - one.baseline_bytes for one in uses)
    detail = f"{max(0, left) / MIB:.0f} MiB left after the end"
    return Finding("memory released", "fail" if left > SLACK_BYTES else "pass", detail)


def _quantized(vram: VramReport, planned: PlannedVram) -> Finding:
    name, fp16, used = "really quantized", planned.fp16_weights_bytes, vram.used_before_pool_bytes
    if not planned.is_quantized or fp16 is None:
        return Finding(name, "not run", "the model is not quantized")
    if used is None or fp16 < _LEAST_JUDGED_BYTES:
        return Finding(name, "not run", "the engine's log does not tell" if used is None else "the model is too small")
    # What the engine holds before its pool is weights and context; the context is given away for nothing here.
    weights = used - planned.overhead_bytes
    detail = f"{used / MIB:.0f} MiB before the KV pool; fp16 weights alone take {fp16 / MIB:.0f}"
    return Finding(name, "pass" if weights < _QUANTIZED_SHARE * fp16 else "fail", detail)


def _capacity(vram: VramReport, planned: PlannedVram) -> Finding:
    name, capacity, session_len = "room for the sessions", vram.kv.capacity_tokens, vram.kv.effective_session_len
    if capacity is None:
        return Finding(name, "not run", "the engine's log does not tell")
    needed = planned.session_len * planned.max_batch_size
    detail = f"{capacity} tokens in the pool, {needed} planned"
    if session_len is not None and session_len < planned.session_len:
        return Finding(name, "fail", f"{detail}; the engine cut sessions to {session_len} tokens")
    return Finding(name, "pass" if capacity >= needed else "fail", detail)


def _components(used: int, log: EngineLog, planned: PlannedVram | None) -> Components:
    weights = planned.weights_bytes if planned else None
    if log.pool_bytes is None:
        return Components(weights, None, None)
    rest = used - log.pool_bytes - weights if weights is not None else None
    return Components(weights, log.pool_bytes, rest)


def _kv(log: EngineLog, planned: PlannedVram | None) -> KvFacts:
    per_token = planned.kv_bytes_per_token if planned else None
    capacity = log.pool_bytes // per_token if log.pool_bytes and per_token else None
    return KvFacts(per_token, capacity, log.session_len)


def _growth(track: Track, records: tuple[Record, ...]) -> int | None:
    good = sorted(record.done_ns for record in records if record.is_success)
    if len(good) <= _WARM_REQUESTS:
        return None
    early, late = track.used_at(good[_WARM_REQUESTS - 1]), track.used_at(good[-1])
    return late - early if early is not None and late is not None else None


def _sampling(track: Track) -> Sampling:
    times, used = track.times_ns, track.used_bytes
    size = -(-len(times) // _SERIES_POINTS) or 1
    # Of every group the largest, so that peaks survive.
    chosen = [max(range(at, min(at + size, len(times))), key=used.__getitem__) for at in range(0, len(times), size)]
    series = tuple((round((times[at] - times[0]) / 1e9, 3), round(used[at] / MIB, 1)) for at in chosen)
    return Sampling(track.interval_ms, len(times), round(track.largest_gap_ms, 1), series)
