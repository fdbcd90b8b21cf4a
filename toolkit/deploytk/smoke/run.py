"""The whole smoke test: open, measure, judge."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from deploytk import __version__
from deploytk.artifact import Artifact
from deploytk.base.errors import EndpointError
from deploytk.base.origin import is_loopback
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Golden, is_bundle
from deploytk.hardware.nvml import GpuMemory, PeakSampler, read_gpus, read_memory
from deploytk.serve import Endpoint, Served, ServeOptions, open_endpoint
from deploytk.smoke.budget import Budget
from deploytk.smoke.correctness import Finding
from deploytk.smoke.engine_log import EngineLog, parse_engine_log, read_engine_log
from deploytk.smoke.judge import Evidence, evidence_of, judge
from deploytk.smoke.measure import measure
from deploytk.smoke.memory import Components, VramReport, check_vram, report_gpus, two_point, used_gpus
from deploytk.smoke.report import ClientIdentity, Identity, Report
from deploytk.smoke.watch import bound_here, measured_here, planned_here, wait_until_released, watch
from deploytk.smoke.workload import Workload

_OTHER_SHARE = 1.5  # of the first start's, for the two-point method
_LARGEST_SHARE = 0.9

_DENSE = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"}

DENSE_NAMES = tuple(_DENSE.values())
"""What weights are called that are not quantized."""

LOG_LEVEL = (("TM_LOG_LEVEL", "INFO"),)
"""Environment in which TurboMind says what its KV pool is."""


def smoke(
    source: str,
    options: ServeOptions,
    workload: Workload,
    budget: Budget,
    progress: Progress,
) -> Report:
    """Measure and judge the server at a URL, or the app of a bundle or model that is started for it.

    Golden answers come from `options.golden`, else from the bundle. Raises EndpointError when nothing answers.
    """
    return judge(gather(source, options, workload, progress), budget)


def gather(source: str, options: ServeOptions, workload: Workload, progress: Progress) -> Evidence:
    """What `smoke` judges: start or attach, measure, stop, and look at the GPUs all the while."""
    is_url = source.startswith(("http://", "https://"))
    options = dataclasses.replace(options, environment=(*LOG_LEVEL, *options.environment))
    started = time.monotonic()
    with PeakSampler() as sampler:
        with open_endpoint(source, options, progress) as endpoint:
            load_s = None if is_url else endpoint.ready_s or time.monotonic() - started
            sampler.slow_down()
            _require_text(endpoint, workload)
            golden = options.golden or _golden(endpoint)
            measurement = measure(endpoint, workload, golden, progress, keeps_interrupted=True)
            ready = read_gpus() if _is_here(endpoint, is_url) else ()
            log = read_engine_log(endpoint.engine_log) if endpoint.engine_log else parse_engine_log("")
            identity = _identity(endpoint, log, next(iter(ready), None))
        after = None if is_url else wait_until_released(sampler)
    watched = watch(sampler, ready, after, is_ours=not is_url)
    planned = planned_here(endpoint.served, watched, options.request.measured, identity.lmdeploy)
    vram = report_gpus(used_gpus(watched, _ranks(endpoint)), log, planned, measurement.records) if watched else None
    if vram and endpoint.served:
        measured = measured_here(endpoint.served, watched, vram, identity.lmdeploy)
        vram = dataclasses.replace(vram, measured=measured)
        vram = _split_by_two_starts(vram, source, options, endpoint.served, progress)
    findings = (*measurement.findings, *_engine(endpoint, log), *(check_vram(vram, planned) if vram else ()))
    bound = bound_here(endpoint.served, watched)
    return evidence_of(measurement, identity, findings, vram, load_s, bound=bound)


def _ranks(endpoint: Endpoint) -> int | None:
    return endpoint.served.bundle.manifest.plan.tensor_parallel if endpoint.served else None


def _golden(endpoint: Endpoint) -> tuple[Golden, ...]:
    """The golden answers that a bundle or an image carries."""
    return endpoint.served.bundle.manifest.golden if endpoint.served else endpoint.golden


def _require_text(endpoint: Endpoint, workload: Workload) -> None:
    """Ready is who answers a real completion; raises EndpointError for others."""
    one = dataclasses.replace(
        workload, requests=1, warmup_requests=0, output_tokens=1, concurrency=1, rate=None, has_self_check=False
    )
    records = measure(endpoint, one, (), Silent()).records
    problem = records[0].error if records else f"no time is left of {workload.total_within_s:g} s"
    # A first token can be without a text of its own: half a character, or the end.
    if problem and problem != "the answer is empty":
        raise EndpointError(
            f"{endpoint.url} lists the model {endpoint.model!r} and completes nothing: {problem}",
            hint="look at the server's own log; a server that is still loading needs more time",
        )


def _is_here(endpoint: Endpoint, is_url: bool) -> bool:
    """Whether the GPUs of this machine say anything about the server."""
    if endpoint.engine == "cpu":
        return False
    return not is_url or is_loopback(urlsplit(endpoint.url).hostname or "")


def _engine(endpoint: Endpoint, log: EngineLog) -> tuple[Finding, ...]:
    """Whether the engine that was planned is the one that answered."""
    if endpoint.bundle is None:
        return ()
    if log.has_fallen_back and endpoint.engine == "turbomind":
        detail = "LMDeploy could not load TurboMind and serves with its PyTorch engine"
        return (Finding("serving engine", "fail", detail),)
    findings = [Finding("serving engine", "pass", str(endpoint.engine))]
    findings += [Finding("engine log", "warn", problem) for problem in log.problems]
    return tuple(findings)


def weights_name(artifact: Artifact) -> str:
    """The weight format in words: fp16, awq 4 bit."""
    if not artifact.is_quantized:
        return _DENSE[artifact.weight_dtype]
    return f"{artifact.weight_format} {artifact.weight_bits} bit"


def _identity(endpoint: Endpoint, log: EngineLog, gpu: GpuMemory | None) -> Identity:
    served = endpoint.served
    plan = served.bundle.manifest.plan if served else None
    names = ("session_len", "max_batch_size", "cache_max_entry_count", "tensor_parallel")
    engine = "pytorch" if log.has_fallen_back else endpoint.engine
    return Identity(
        deploytk=__version__,
        url=endpoint.url,
        model=endpoint.model,
        engine=engine,
        lmdeploy=installed_lmdeploy() if endpoint.bundle and engine != "cpu" else None,
        package_digest=served.bundle.digest if served else None,
        weights=weights_name(served.artifact) if served else None,
        kv_policy=plan.kv_policy if plan else None,
        settings={name: str(getattr(plan, name)) for name in names} if plan else {},
        gpu=gpu,
        client=client_identity(),
        quantized_by=served.artifact.quantized_by if served else endpoint.quantized_by,
    )


def installed_lmdeploy() -> str | None:
    """The version that a server started from here runs; None when there is none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("lmdeploy")
    return None


def client_identity() -> ClientIdentity:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return ClientIdentity("asyncio, standard library", platform.python_version(), cpu, os.cpu_count() or 1)


def _split_by_two_starts(
    vram: VramReport, source: str, options: ServeOptions, served: Served, progress: Progress
) -> VramReport:
    """Where the engine's log does not tell its pool, a second start with a larger one does."""
    plan = served.bundle.manifest.plan
    share = plan.cache_max_entry_count
    is_possible = plan.lmdeploy is not None and 0 < share * _OTHER_SHARE < _LARGEST_SHARE
    if vram.method is not None or not is_possible or is_bundle(Path(source)):
        return vram
    progress.note("the engine's log does not tell its KV pool: start once more with a larger one")
    other = dataclasses.replace(options.request, cache_max_entry_count=share * _OTHER_SHARE)
    with open_endpoint(source, dataclasses.replace(options, request=other), progress) as endpoint:
        _require_text(endpoint, Workload())
        memory = read_memory()
    if memory is None or memory.used_bytes <= vram.ready_bytes:
        return vram
    used = (vram.ready_of_ours, memory.used_bytes - vram.baseline_bytes)
    pool, rest = two_point(share, used[0], share * _OTHER_SHARE, used[1])
    weights = vram.components.weights_bytes
    components = Components(weights, pool, rest - weights if weights is not None else None)
    return dataclasses.replace(vram, method="two_point", components=components)
