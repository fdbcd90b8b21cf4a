"""Measures every cell of a matrix, and goes on where an earlier run stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploytk import __version__
from deploytk.base.errors import DeployError, EndpointError, PlanError, UsageError
from deploytk.base.files import disk_errors, locked, write_text
from deploytk.base.json import to_json
from deploytk.base.progress import Progress
from deploytk.bench.cells import cell_path
from deploytk.bench.engines import running_engine
from deploytk.bench.matrix import Deployment, Load, Matrix, Skipped, expand
from deploytk.bench.report import write_results
from deploytk.bench.table import Failed, Result, read_result
from deploytk.hardware.catalogue import find_gpu
from deploytk.hardware.here import as_gpu
from deploytk.hardware.nvml import GpuMemory, PeakSampler, read_gpus, read_memory
from deploytk.plan import DecodeBound, PlanRequest
from deploytk.serve import Endpoint
from deploytk.smoke import Budget, Evidence, Workload, keep, measure, write_raw
from deploytk.smoke.correctness import Finding
from deploytk.smoke.engine_log import read_engine_log
from deploytk.smoke.judge import evidence_of
from deploytk.smoke.memory import VramReport, Watched, check_vram, report_gpus, used_gpus
from deploytk.smoke.prediction import planned_vram
from deploytk.smoke.record import Record
from deploytk.smoke.report import Identity
from deploytk.smoke.run import client_identity, installed_lmdeploy, weights_name
from deploytk.smoke.watch import gpu_before, watch

_MACHINE = "machine.json"
_LEAST_REQUESTS = 12  # one more than a median needs


@dataclass(frozen=True, slots=True)
class BenchOptions:
    matrix: Matrix = field(default_factory=Matrix)
    gpu: str | None = None  # the GPU to recommend for; None: the one that is here
    objective: Literal["throughput", "latency"] = "throughput"
    requests_per_stream: int = 3
    ready_within_s: float = 600.0
    cell_within_s: float = 600.0
    trusts_code: bool = False  # code that a model names may run
    allows_pickles: bool = False  # files that are refused by their content are served
    request: PlanRequest = field(default_factory=PlanRequest)  # the GPUs that are here, and wishes for every plan
    slo: Budget | None = None  # what a request must keep to count as goodput


def run_bench(models: Sequence[Path], options: BenchOptions, out: Path, progress: Progress) -> Result:
    """Measure what `out` does not hold yet, and write results.json, results.csv, report.md and plots there.

    Repetitions are the outermost loop, so that what changes over time changes for every cell alike. A deployment that
    does not start is in the result with its reason; the others go on. Raises PlanError when none is possible here,
    UsageError when `out` holds results of another machine or of other models, TryAgainError while another bench writes
    there.
    """
    target = find_gpu(options.gpu) if options.gpu else None
    here = read_memory()
    deployments, skipped = expand(
        models,
        options.matrix,
        options.request,
        trusts_code=options.trusts_code,
        allows_pickles=options.allows_pickles,
    )
    if not deployments:
        raise _nothing_to_measure(skipped)
    failed: dict[str, str] = {}
    with disk_errors(out, DeployError):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out / ".lock", str(out)):
            _claim(out, deployments, here)
            for directory in ("cells", "logs"):
                (out / directory).mkdir(exist_ok=True)
            left = _Left(_cells_left(out, deployments, options), progress)
            for repetition in range(options.matrix.repetitions):
                for deployment in deployments:
                    loads = [
                        load
                        for load in options.matrix.loads()
                        if not cell_path(out, deployment, load, repetition).exists()
                    ]
                    if not loads or deployment.name in failed:
                        continue
                    left.say(f"{deployment.name}, repetition {repetition + 1} of {options.matrix.repetitions}")
                    try:
                        _measure(deployment, loads, repetition, options, out, progress)
                        left.done(len(loads))
                    except EndpointError as error:
                        failed[deployment.name] = str(error)
                        progress.note(f"{deployment.name} failed: {str(error).splitlines()[0]}")
            reasons = tuple(Failed(name, reason) for name, reason in failed.items())
            result = Result(out, None, (), None)
            if any((out / "cells").iterdir()):
                gpu = target or (as_gpu(here) if here else None)
                result = read_result(out, gpu, options.objective, options.slo)
            result = dataclasses.replace(result, skipped=tuple(skipped), failed=reasons)
            write_results(result, out, progress)
    return result


def _nothing_to_measure(skipped: Sequence[Skipped]) -> PlanError:
    reasons = "; ".join(dict.fromkeys(" ".join(one.reason.split()) for one in skipped))
    return PlanError(
        f"nothing can be measured: {reasons}",
        hint="name others, --engines cpu for one, or run it where that is possible",
    )


def _cells_left(out: Path, deployments: Sequence[Deployment], options: BenchOptions) -> int:
    """How many cells are still to be measured."""
    cells = itertools.product(deployments, options.matrix.loads(), range(options.matrix.repetitions))
    return sum(not cell_path(out, *cell).exists() for cell in cells)


class _Left:
    """Says how many cells are done and, by the time that they took, how long the others will."""

    def __init__(self, cells: int, progress: Progress) -> None:
        self._cells, self._done = cells, 0
        self._progress = progress
        self._started = time.monotonic()

    def done(self, cells: int) -> None:
        self._done += cells

    def say(self, what: str) -> None:
        time_left = ""
        if self._done:
            left_s = (time.monotonic() - self._started) / self._done * (self._cells - self._done)
            time_left = f", about {max(1, round(left_s / 60))} min left"
        self._progress.note(f"{what}: {self._done} of {self._cells} cells done{time_left}")


def _measure(
    deployment: Deployment, loads: Sequence[Load], repetition: int, options: BenchOptions, out: Path, progress: Progress
) -> None:
    """Start the deployment once, and put every load on it."""
    log = out / "logs" / f"{deployment.name}.r{repetition}.log"
    log.unlink(missing_ok=True)
    batch = max(options.matrix.concurrency)
    started = time.monotonic()
    with PeakSampler() as sampler, running_engine(deployment, batch, log, options.ready_within_s) as endpoint:
        load_s = time.monotonic() - started
        sampler.slow_down()
        for load in loads:
            measurement = measure(endpoint, _workload(load, repetition, options), (), progress)
            ready = () if deployment.engine == "cpu" else read_gpus()
            watched = watch(sampler, ready, None, is_ours=True)
            seen = _seen(deployment, watched, log, measurement.records, options)
            identity = _identity(deployment, endpoint, next(iter(ready), None))
            found = (*measurement.findings, *seen.findings)
            evidence = evidence_of(measurement, identity, found, seen.vram, load_s, kind="bench", bound=seen.bound)
            keep_cell(evidence, options.slo or Budget(), cell_path(out, deployment, load, repetition))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What there was to see on the GPUs."""

    vram: VramReport | None
    findings: tuple[Finding, ...]
    bound: DecodeBound | None


def _seen(
    deployment: Deployment, watched: Sequence[Watched], log: Path, records: tuple[Record, ...], options: BenchOptions
) -> _Seen:
    used = used_gpus(watched, deployment.ranks)
    if not used:
        return _Seen(None, (), None)
    planned = None
    if deployment.plan:
        gpu = gpu_before(deployment.plan, used)
        version = installed_lmdeploy()
        planned = planned_vram(deployment.artifact, deployment.plan, gpu, options.request.measured, version)
    vram = report_gpus(used, read_engine_log(log), planned, records)
    bound = deployment.plan.decode_bound if deployment.plan else None
    return _Seen(vram, check_vram(vram, planned), bound)


def keep_cell(evidence: Evidence, slo: Budget, place: Path) -> None:
    """Write one measurement; raises DeployError, which says where it is instead, when that fails."""
    problem = keep(place, lambda path: write_raw(evidence, slo, path))
    if problem:
        raise DeployError(problem, hint="free some space, move it there and run again: what is measured stays")


def _workload(load: Load, repetition: int, options: BenchOptions) -> Workload:
    return Workload(
        requests=max(_LEAST_REQUESTS, options.requests_per_stream * load.concurrency),
        warmup_requests=2,
        output_tokens=load.output_tokens,
        input_tokens=load.input_tokens,
        concurrency=load.concurrency,
        ignores_end=True,
        seed=repetition,
        request_within_s=options.cell_within_s,
        total_within_s=options.cell_within_s,
    )


def _identity(deployment: Deployment, endpoint: Endpoint, gpu: GpuMemory | None) -> Identity:
    plan = deployment.plan
    names = ("session_len", "max_batch_size", "cache_max_entry_count", "tensor_parallel")
    return Identity(
        deploytk=__version__,
        url=endpoint.url,
        model=deployment.model,
        engine=deployment.engine,
        lmdeploy=installed_lmdeploy() if deployment.engine in ("turbomind", "pytorch") else None,
        package_digest=None,
        weights=weights_name(deployment.artifact),
        kv_policy=deployment.kv_policy,
        settings={name: str(getattr(plan, name)) for name in names} if plan else {},
        gpu=gpu,
        client=client_identity(),
        quantized_by=deployment.artifact.quantized_by,
    )


def _claim(out: Path, deployments: Sequence[Deployment], here: GpuMemory | None) -> None:
    """Bind `out` to this machine and these models, or refuse what another one left there."""
    client = client_identity()
    digests = {deployment.model: _digest(deployment) for deployment in deployments}
    machine = {
        "gpu": [here.name, here.driver] if here else None,
        "cpu": [client.cpu, client.cores],
        "lmdeploy": installed_lmdeploy(),
        "models": digests,
    }
    path = out / _MACHINE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            differing = [name for name in ("gpu", "cpu", "lmdeploy") if _of_machine(found[name]) != machine[name]]
            models = found["models"]
            differing += [f"model {name}" for name, digest in digests.items() if models.get(name, digest) != digest]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} cannot be read", hint="choose a new directory with -o") from error
        if differing:
            hint = "choose a new directory with -o: figures of two machines do not mix"
            raise UsageError(f"{out} holds results with another {', another '.join(differing)}", hint=hint)
        machine["models"] = models | digests
    elif any(entry.name != ".lock" for entry in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no results", hint="choose a new directory with -o")
    write_text(path, to_json(machine, indent=1) + "\n")


def _of_machine(found: object) -> object:
    """What earlier versions kept of the CPU had the client in it, and its Python."""
    return [found["cpu"], found["cores"]] if isinstance(found, dict) else found


def _digest(deployment: Deployment) -> str:
    """What tells two models of one name apart without reading their weights."""
    lines = sorted(f"{file.path} {file.bytes}" for file in deployment.artifact.files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
