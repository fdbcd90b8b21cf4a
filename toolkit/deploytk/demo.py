"""Goes the whole way with the shipped tiny models, on CPU, in a temporary directory that stays."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact import read_artifact
from deploytk.base.errors import DeployError
from deploytk.base.progress import Progress
from deploytk.base.shipped import shipped
from deploytk.bundle import Bundle, BundleOptions, Golden, read_golden, render_bundle
from deploytk.plan import PlanRequest, plan_serving
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import Release
from deploytk.publish.release import publish_bundle
from deploytk.publish.targets.local import Local
from deploytk.serve import ServeOptions, choose_engine
from deploytk.smoke import Budget, Report, Workload, smoke, write_report

WORKSPACE = "workspace-0.4.2-awq"
AWQ = "hf-awq"

_REQUESTS = 12


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo made, and where it is."""

    directory: Path
    workspace_release: Release  # of the legacy workspace: packaged, published, verified
    release: Release  # of the AWQ directory
    report_path: Path
    report: Report  # of the published AWQ model, served from the hub on the CPU


def run_demo(progress: Progress) -> Demo:
    """Package, publish and verify a legacy workspace and an AWQ directory; serve the latter and judge it.

    Raises UsageError without the extra [cpu], DeployError when a step fails.
    """
    choose_engine("cpu")
    directory = Path(tempfile.mkdtemp(prefix="deploytk-demo-"))
    golden = read_golden(shipped("models") / "dialogs.json")
    hub = directory / "hub"
    releases = []
    for name in (WORKSPACE, AWQ):
        progress.note(f"{name}: package, publish, verify")
        bundle = _package(directory, name, golden, progress)
        releases.append(publish_bundle(bundle, Local(), PublishOptions(repo=str(hub)), progress))
    workspace_release, release = releases
    progress.note(f"{AWQ}: serve it from the hub, ask it, judge it")
    published = Path(release.url.removeprefix("file://"))
    options = ServeOptions(engine="cpu")
    report = smoke(str(published), options, Workload(requests=_REQUESTS), Budget(), progress)
    report_path = directory / "report.json"
    write_report(report, report_path)
    write_report(report, directory / "report.md")
    if report.verdict.exit_code:
        raise DeployError(
            f"the demo's model did not pass: {'; '.join(report.verdict.reasons)}", hint=f"see {report_path}"
        )
    return Demo(directory, workspace_release, release, report_path, report)


def _package(directory: Path, name: str, golden: tuple[Golden, ...], progress: Progress) -> Bundle:
    model = Path(shutil.copytree(shipped("models") / name, directory / "models" / name))
    artifact = read_artifact(model)
    is_chat = artifact.layout == "huggingface"
    plan = plan_serving(artifact, PlanRequest(gpu="T4", model_name=name))
    options = BundleOptions(name=name, license="apache-2.0", app="api", golden=golden if is_chat else ())
    return render_bundle(artifact, plan, options, directory / "bundles" / name, progress)
