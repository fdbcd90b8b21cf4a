"""Goes the whole way with the shipped tiny models, on CPU, in a temporary directory that stays when all is done."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from deploytk.artifact import Artifact, read_artifact
from deploytk.base.errors import DeployError, UsageError
from deploytk.base.progress import Progress
from deploytk.base.shipped import shipped
from deploytk.bundle import Bundle, BundleOptions, Golden, read_golden, render_bundle
from deploytk.modernize import Modernized, ModernizeOptions, modernize
from deploytk.plan import PlanRequest, plan_serving
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.local import Local
from deploytk.quantize import Quantized, QuantizeOptions, quantize, tool_here
from deploytk.serve import ServeOptions, choose_engine
from deploytk.smoke import Budget, Report, Workload, smoke, write_report

WORKSPACE = "workspace-0.4.2-awq"
AWQ = "hf-awq"

_REQUESTS = 12
_WINDOWS, _WINDOW_TOKENS = 8, 256  # of text: it has to be done in under a minute


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo made, and where it is."""

    directory: Path
    inspected: Artifact  # the legacy workspace
    modernized: Modernized  # what it became
    workspace_release: Release  # of the legacy workspace: packaged, published, verified
    release: Release  # of the AWQ directory
    quantized: Quantized | None  # the AWQ model, from 16 bits to 4 once more; None where no quantizer is here
    report_path: Path | None
    report: Report | None  # of the published AWQ model, served from the hub on the CPU; None without the extra [cpu]


def run_demo(progress: Progress) -> Demo:
    """Inspect and modernize a legacy workspace; package, publish and verify it and an AWQ directory; quantize that anew
    where a quantizer is here; with extra [cpu] serve and judge it.

    Raises DeployError when a step fails. Ended by a signal it leaves nothing behind.
    """
    directory = Path(tempfile.mkdtemp(prefix="deploytk-demo-"))
    try:
        return _demo(directory, progress)
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _demo(directory: Path, progress: Progress) -> Demo:
    workspace, modernized = _modernized(directory, progress)
    golden = read_golden(shipped("models") / "dialogs.json")
    hub = directory / "hub"
    releases = []
    for name in (WORKSPACE, AWQ):
        progress.note(f"{name}: package, publish, verify")
        bundle = _package(directory, name, golden, progress)
        releases.append(publish_bundle(bundle, Local(), PublishOptions(repo=str(hub)), progress))
    workspace_release, release = releases
    made = _quantized(directory, golden, progress)
    try:
        choose_engine("cpu")
    except UsageError as missing:
        progress.note(f"nothing is served: {missing}")
        return Demo(directory, workspace, modernized, workspace_release, release, made, None, None)
    report_path = directory / "report.json"
    report = _judged(release, report_path, progress)
    return Demo(directory, workspace, modernized, workspace_release, release, made, report_path, report)


def _modernized(directory: Path, progress: Progress) -> tuple[Artifact, Modernized]:
    """What the workspace is, and the directory that current LMDeploy loads."""
    workspace = read_artifact(_copy(directory, WORKSPACE))
    progress.note(f"{WORKSPACE}: inspect, and modernize into what current LMDeploy loads")
    return workspace, modernize(workspace, directory / "modernized", ModernizeOptions(), progress)


def _quantized(directory: Path, golden: tuple[Golden, ...], progress: Progress) -> Quantized | None:
    """The AWQ model back in 16 bits, and to 4 by LMDeploy's own quantizer, on the CPU; what it cost is measured."""
    if tool_here("awq") is None:
        progress.note("nothing is quantized: LMDeploy's quantizer is not here (deploytk quantize installs it)")
        return None
    progress.note(f"{AWQ}: back to 16 bits, and to 4 by LMDeploy's quantizer, on the CPU")
    dense = directory / "models" / "hf-fp16"
    modernize(read_artifact(_copy(directory, AWQ)), dense, ModernizeOptions(to_fp16=True), progress)
    options = QuantizeOptions(samples=_WINDOWS, seqlen=_WINDOW_TOKENS, device="cpu", golden=golden)
    return quantize(read_artifact(dense), directory / "quantized", options, progress)


def _judged(release: Release, report_path: Path, progress: Progress) -> Report:
    """What is published, served on the CPU and asked; raises DeployError when it does not pass."""
    progress.note(f"{AWQ}: serve it from the hub, ask it, judge it")
    published = unquote(release.url.removeprefix("file://"))
    report = smoke(published, ServeOptions(engine="cpu"), Workload(requests=_REQUESTS), Budget(), progress)
    write_report(report, report_path)
    write_report(report, report_path.with_suffix(".md"))
    if report.verdict.exit_code:
        raise DeployError(
            f"the demo's model did not pass: {'; '.join(report.verdict.reasons)}", hint=f"see {report_path}"
        )
    return report


def _package(directory: Path, name: str, golden: tuple[Golden, ...], progress: Progress) -> Bundle:
    artifact = read_artifact(_copy(directory, name))
    is_chat = artifact.layout == "huggingface"
    plan = plan_serving(artifact, PlanRequest(gpu="T4", model_name=name))
    options = BundleOptions(name=name, license="apache-2.0", app="api", golden=golden if is_chat else ())
    return render_bundle(artifact, plan, options, directory / "bundles" / name, progress)


def _copy(directory: Path, name: str) -> Path:
    place = directory / "models" / name
    return place if place.is_dir() else Path(shutil.copytree(shipped("models") / name, place))
