"""The whole smoke test: open, measure, judge."""

from __future__ import annotations

from deploytk import __version__
from deploytk.bundle import Golden, is_bundle, read_bundle
from deploytk.gpu import GpuMemory, PeakSampler, read_memory
from deploytk.preview import Endpoint, ServeOptions, open_endpoint
from deploytk.progress import Progress
from deploytk.smoke.budget import Budget
from deploytk.smoke.measure import Workload, measure
from deploytk.smoke.report import Identity, Report, VramReport, judge


def smoke(source: str, options: ServeOptions, workload: Workload, budget: Budget, progress: Progress) -> Report:
    """Measure and judge the server at a URL, or the app of a bundle or model that is started for it.

    Golden answers come from `options.golden`, else from the bundle. Raises EndpointError when nothing answers.
    """
    is_ours = not source.startswith(("http://", "https://"))
    with PeakSampler() as sampler, open_endpoint(source, options, progress) as endpoint:
        golden = options.golden or _golden(endpoint)
        measurement = measure(endpoint, workload, golden, progress)
        ready = read_memory()
        identity = _identity(endpoint, ready)
    vram = None
    if ready and sampler.first and endpoint.engine != "cpu":
        baseline = sampler.first.used_bytes if is_ours else 0
        vram = VramReport(ready.api, baseline, ready.used_bytes, sampler.peak_bytes, ready.total_bytes, sampler.samples)
    return judge(measurement, identity, vram, budget)


def _golden(endpoint: Endpoint) -> tuple[Golden, ...]:
    """The golden answers that a bundle carries."""
    if endpoint.bundle is None or not is_bundle(endpoint.bundle):
        return ()
    entries = read_bundle(endpoint.bundle).manifest["golden"]
    assert isinstance(entries, list)  # noqa: S101 (read_bundle has read the manifest)
    return tuple(Golden(entry["prompt"], entry["answer"], entry["raw"]) for entry in entries)


def _identity(endpoint: Endpoint, gpu: GpuMemory | None) -> Identity:
    return Identity(
        deploytk=__version__,
        url=endpoint.url,
        model=endpoint.model,
        engine=endpoint.engine,
        package_digest=read_bundle(endpoint.bundle).digest if endpoint.bundle else None,
        gpu=gpu,
    )
