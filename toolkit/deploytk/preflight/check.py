"""Bundle or app directory -> Preflight."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.errors import EndpointError, UsageError
from deploytk.base.progress import Progress
from deploytk.base.terminal import quoted
from deploytk.bundle import Bundle, is_bundle, read_bundle, require_own_app, require_trusted_code
from deploytk.bundle.links import link_or_copy
from deploytk.hardware.catalogue import find_gpu
from deploytk.preflight.probe import Start, start_app
from deploytk.preflight.requirements import ask_pip, check_packages, check_requirements
from deploytk.preflight.source import check_source
from deploytk.preflight.value import Finding, Preflight, Status
from deploytk.publish.platform import Platform
from deploytk.publish.target import strictest_platform
from deploytk.publish.targets.common.app_repository import write_app

_LEVELS = ("error", "unknown", "warning")
_RAM_SHARE = 0.9  # the rest is the system's


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    start: str = "app.py"
    gpu: str | None = None  # the tier's GPU, as for `plan`; by default the hub's A10
    python: Path | None = None  # what starts the app, best the hub's version; by default the one that runs this
    within_s: float = 30.0  # until the first answer
    platform: Platform | None = None  # by default the strictest that installed targets tell of
    with_network: bool = False  # ask pip whether it can resolve the requirements
    template: Path | None = None  # what else than the shipped files the app of a bundle is rendered from
    trusts_bundle: bool = False  # whatever app a bundle or a model directory brings is run
    trusts_code: bool = False  # code that the model names may run where the bundle is served


def preflight(source: Path, options: PreflightOptions, progress: Progress) -> Preflight:
    """Look at and start the app of the bundle `source`, or the app directory `source`, as a hub would.

    Nothing is downloaded, converted or installed: programs that would are replaced by ones that write down that
    they were called. Raises UsageError for a directory without an app, TryAgainError when port 7860 is taken here.
    """
    if not source.is_dir():
        raise UsageError(f"{source} is no directory", hint="name a bundle, or the directory of an app")
    python = str(options.python.absolute()) if options.python else sys.executable
    version = _version(python)
    platform = options.platform or strictest_platform()
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        bundle = read_bundle(source) if is_bundle(source) else None
        if not options.trusts_bundle:
            _require_trust(source, bundle, options)
        if bundle:
            require_trusted_code(bundle, is_trusted=options.trusts_code)
        app = _app_of(bundle, Path(directory) / "app") if bundle else source
        findings = _look(app, bundle, options, platform)
        started: Start | None = None
        if (app / options.start).is_file():
            progress.note(f"starting {options.start} on port {platform.port}, for at most {options.within_s:.0f} s")
            started = start_app(app, (python, options.start), platform, options.within_s)
            findings += _judge(started, app, platform, options.within_s)
        if options.with_network and (app / "requirements.txt").is_file():
            progress.note("asking pip to resolve the requirements")
            findings += ask_pip(app, platform)
    findings = sorted(dict.fromkeys(findings), key=lambda finding: _LEVELS.index(finding.level))
    return Preflight(
        platform=platform.name,
        app=str(source),
        status=_status(findings),
        findings=tuple(findings),
        first_answer_s=started.first_answer_s if started else None,
        listens_on=tuple(f"{host}:{port}" for host, port in started.listens_on) if started else (),
        ran=started.ran if started else (),
        python_here=version,
        python_there=".".join(map(str, platform.python)),
        resolved_by_pip=options.with_network and not any(finding.code == "not-checked" for finding in findings),
    )


def _status(findings: Sequence[Finding]) -> Status:
    levels = {finding.level for finding in findings}
    if "error" in levels:
        return "fail"
    return "inconclusive" if "unknown" in levels else "pass"


def _require_trust(source: Path, bundle: Bundle | None, options: PreflightOptions) -> None:
    """Raises BundleError or UsageError for an app that came with a model: who named it may know the model alone."""
    if bundle:
        require_own_app(bundle, options.template)
    elif is_model(source):
        hint = (
            f"package it (deploytk package {quoted(source)} -o BUNDLE), or say --trust-bundle to start what it brings"
        )
        raise UsageError(f"{source} is a model directory: deploytk wrote no app into it", hint=hint)


def is_model(source: Path) -> bool:
    """Whether the directory holds a model; what else is in it is then of whoever made that."""
    return (source / "config.json").is_file() or (source / "triton_models").is_dir()


def _version(python: str) -> str:
    try:
        done = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"{python} is no Python that runs", hint="name one with --python, or leave it out") from error
    return done.stdout.strip().rpartition(" ")[2]


def require_passed(found: Preflight) -> None:
    """Raises EndpointError with the first error and how to mend it."""
    errors = [finding for finding in found.findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more: deploytk preflight {quoted(found.app)})" if len(errors) > 1 else ""
        raise EndpointError(f"pre-flight: {errors[0].message}{more}", hint=errors[0].hint)


def _app_of(bundle: Bundle, out: Path) -> Path:
    """The app repository of a bundle, with the model in place as after its fetch."""
    app = write_app(bundle, out, "https://hub.invalid/owner/name.git", "0" * 40)
    for file in bundle.files:
        if file.kind in ("weights", "model"):
            try:
                (app / file.path).parent.mkdir(parents=True, exist_ok=True)
                (app / file.path).symlink_to((bundle.path / file.path).resolve())
            except FileExistsError:
                link_or_copy(bundle.path / file.path, app / file.path)
    return app


def _look(app: Path, bundle: Bundle | None, options: PreflightOptions, platform: Platform) -> list[Finding]:
    """What can be seen without running anything."""
    start = app / options.start
    findings = check_requirements(app, platform)
    if not start.is_file():
        hint = f"{platform.name} starts app.py unless its form names another file"
        return [Finding("error", "no-start-file", f"there is no {options.start}", hint), *findings]
    findings += check_source(app, start, platform)
    findings += check_packages(app, start.read_text(encoding="utf-8", errors="replace"))
    if bundle:
        findings += _of_memory(bundle, options, platform)
    return findings


def _of_memory(bundle: Bundle, options: PreflightOptions, platform: Platform) -> list[Finding]:
    vram = bundle.manifest.plan.vram
    needs = max(vram.total_bytes, vram.loading_peak_bytes)
    has = find_gpu(options.gpu).total_bytes if options.gpu else platform.vram_bytes
    found = []
    if needs > has:
        message = f"it takes {needs / 2**30:.1f} GiB of GPU memory, the tier has {has / 2**30:.1f}"
        hint = "plan with a shorter --session-len, a smaller --max-batch-size or --kv int8, or ask for a larger tier"
        found.append(Finding("error", "too-little-memory", message, hint))
    weights = vram.weights_bytes
    if weights > _RAM_SHARE * platform.memory_bytes:
        message = (
            f"the weights are {weights / 2**30:.1f} GiB, the tier has {platform.memory_bytes / 2**30:.0f} GiB of RAM"
        )
        found.append(Finding("error", "too-little-memory", message, "ask for a larger tier"))
    return found


def _judge(start: Start, app: Path, platform: Platform, within_s: float) -> list[Finding]:
    """What the start says."""
    doing = f"; it was running: {start.ran[-1]}" if start.ran else ""
    if start.ended_with is not None:
        return [_ending(start, app, doing)]
    there = [host for host, port in start.listens_on if port == platform.port]
    if there and platform.host not in there:
        message = f"the app listens on {there[0]}:{platform.port} only; {platform.name} comes from outside"
        return [Finding("error", "wrong-host", message, f"listen on {platform.host}")]
    if start.first_answer_s is None:
        if start.listens_on and not there:
            places = ", ".join(f"{host}:{port}" for host, port in start.listens_on)
            message = f"the app listens on {places}, {platform.name} looks at port {platform.port}"
            return [Finding("error", "wrong-port", message, f"listen on {platform.host}:{platform.port}")]
        message = f"nothing answered on port {platform.port} within {within_s:.0f} s{doing}"
        hint = "open the port first, and do what takes long behind a page that says so"
        return [Finding("error", "blocking-start", message, hint)]
    if start.status != 200:
        message = f"the first answer at / was {start.status}"
        return [Finding("error", "answers-wrong", message, "answer 200 at /, also while the model loads")]
    return []


def _ending(start: Start, app: Path, doing: str) -> Finding:
    words = start.output.strip().splitlines()[-1:] or ["no output"]
    last = words[0].strip()
    if last.startswith("ModuleNotFoundError"):
        module = last.rpartition("'")[0].rpartition("'")[2].partition(".")[0]
        place = app / "requirements.txt"
        named = place.read_text(encoding="utf-8", errors="replace").lower() if place.is_file() else ""
        if module.lower().replace("_", "-") in named.replace("_", "-"):
            hint = f"pip install {module}, then run again; until then only what can be read was checked"
            return Finding("unknown", "cannot-start-here", f"it needs {module}, which is not installed here", hint)
        message = f"it needs {module}, which requirements.txt does not name"
        return Finding("error", "ends-at-start", message, f"add {module} to requirements.txt")
    return Finding(
        "error", "ends-at-start", f"it ended with code {start.ended_with} before it answered: {last[:200]}{doing}",
        "start it by hand: python app.py",
    )  # fmt: skip
