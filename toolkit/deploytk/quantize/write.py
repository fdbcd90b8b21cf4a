"""The whole way: checks, the tool in its process, a look at what it wrote, what it cost, and the directory at once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deploytk import __version__
from deploytk.artifact import (
    RECORD,
    RECORD_FORMAT,
    Artifact,
    CalibrationData,
    QuantizationCost,
    QuantizedBy,
    read_artifact,
    recordable,
)
from deploytk.base.errors import QuantizeError, UsageError
from deploytk.base.files import disk_errors, remove, staged_directory, write_text
from deploytk.base.json import plain
from deploytk.base.progress import Progress
from deploytk.bundle import require_ending_template
from deploytk.hardware.here import gpus_here
from deploytk.modernize import ModernizeOptions, modernize
from deploytk.quantize.calibration import NONE, Texts, calibration_texts, measured_text
from deploytk.quantize.checks import check_source, check_wish, is_in_pickles, served_architecture
from deploytk.quantize.child import Job, run_job
from deploytk.quantize.cost import measure_cost
from deploytk.quantize.finish import put_texts, put_weights, tool_output
from deploytk.quantize.memory import choose_device, require_disk, require_memory
from deploytk.quantize.source import prepare_source
from deploytk.quantize.tools import Tool, find_tool
from deploytk.quantize.value import Device, MemoryUse, Quantized, QuantizeOptions, Seconds

_WORK = ".work"


@dataclass(frozen=True, slots=True)
class _Run:
    """What was found out before anything was loaded."""

    artifact: Artifact
    options: QuantizeOptions
    texts: Texts | None
    measured: Texts
    tool: Tool
    asked_windows: int  # options.samples are no more than the texts can have
    device: Device
    predicted_ram: int
    predicted_gpu: int


def quantize(artifact: Artifact, destination: Path, options: QuantizeOptions, progress: Progress) -> Quantized:
    """Write the model behind `artifact` with 4-bit weights at `destination`, which must not exist.

    The directory appears when all of it is there and TurboMind can load it. A run that was killed goes on after the
    calibration, or says that it cannot. Raises UsageError or QuantizeError in a second for what cannot come true.
    """
    started = time.monotonic()
    run = _checked(artifact, destination, options, progress)
    with disk_errors(destination, QuantizeError), staged_directory(destination, resumable=True) as staging:
        return _fill(run, destination, staging, started, progress)


def _checked(artifact: Artifact, destination: Path, options: QuantizeOptions, progress: Progress) -> _Run:
    check_source(artifact)
    if destination.is_symlink() or destination.exists():
        raise UsageError(f"{destination} exists already", hint="name a directory that does not exist yet")
    if destination.resolve().is_relative_to(artifact.root.resolve()):
        raise UsageError(f"{destination} is inside the model directory", hint="choose an --output outside of it")
    pickle = is_in_pickles(artifact)
    if pickle:
        progress.note(f"{pickle} is a pickle, which the quantizer opens")
    texts, measured = calibration_texts(options.calibration), measured_text(options.measured_text)
    _require_held_out(texts, measured, options)
    require_ending_template(artifact.root)
    tool = find_tool(options.method, options.python, progress)
    asked, options = options.samples, _bounded(options, texts)
    check_wish(artifact, options, tool)
    gpus = gpus_here() if options.device != "cpu" else ()
    device = choose_device(options.device, tool, gpus)
    ram, gpu = require_memory(artifact, options, device, gpus)
    require_disk(artifact, destination, options.method)
    return _Run(artifact, options, texts, measured, tool, asked, device, ram, gpu)


def _require_held_out(texts: Texts | None, measured: Texts, options: QuantizeOptions) -> None:
    """Raises UsageError when it would be measured on what it was calibrated with: the figures would flatter."""
    if options.measures and texts and set(texts.records) & set(measured.records):
        raise UsageError(
            f"{measured.name} has texts that {texts.name} has as well: what it cost is measured on others",
            hint="name another text with --measure-on, or leave it out",
        )


def _bounded(options: QuantizeOptions, texts: Texts | None) -> QuantizeOptions:
    """With no more windows than the texts can have: no tokenizer makes more tokens of a text than it has bytes."""
    if texts is None:
        return options
    size = sum(len(record.encode()) for record in texts.records)
    most = size // options.seqlen
    if not most:
        raise UsageError(
            f"the texts of {texts.name} are {size} bytes, less than one window of {options.seqlen} tokens",
            hint="give longer texts with --calib, or shorter windows with --seqlen",
        )
    return dataclasses.replace(options, samples=min(options.samples, most))


def _fill(run: _Run, destination: Path, staging: Path, started: float, progress: Progress) -> Quantized:
    work, notes = staging.absolute() / _WORK, []  # its processes work in a directory of their own
    _keep_or_clear(run, staging, work, progress)
    artifact = _modern(run.artifact, work, progress)
    changed = prepare_source(artifact, work / "source", progress)
    if changed:
        notes.append(changed)
        progress.note(changed)
    begun = time.monotonic()
    result = _run_tool(run, artifact, work, progress)
    ended = time.monotonic()
    _note_windows(run, result, notes, progress)
    written = tool_output(work / "output")
    put_weights(written, work / "source", staging, progress)
    put_texts(artifact, work / "source", written, staging, run.options.session_len)
    finished = time.monotonic()
    cost = _cost(run, artifact, staging, work, notes, progress)
    by = _quantized_by(run, result, cost)
    write_text(staging / RECORD, json.dumps({"format": RECORD_FORMAT, "quantized_by": plain(by)}, indent=1) + "\n")
    _require_served(staging)
    shutil.rmtree(work)
    sizes = {
        str(path.relative_to(staging)): path.stat().st_size for path in sorted(staging.rglob("*")) if path.is_file()
    }
    return Quantized(
        path=destination,
        architecture=served_architecture(artifact),
        quantized_by=by,
        device=run.device,
        files=tuple(sizes),
        bytes=sum(sizes.values()),
        source_bytes=artifact.weights_bytes,
        is_within_budget=is_within(run.options, cost),
        memory=MemoryUse(
            predicted_ram=run.predicted_ram,
            ram=result.get("peak_ram_bytes"),
            predicted_gpu=run.predicted_gpu if run.device == "cuda" else None,
            gpu=result.get("peak_gpu_bytes"),
        ),
        seconds=Seconds(
            before=round(begun - started, 3),
            tool=round(ended - begun, 3),
            after=round(finished - ended, 3),
            measuring=round(time.monotonic() - finished, 3),
        ),
        notes=tuple(notes),
    )


def _keep_or_clear(run: _Run, staging: Path, work: Path, progress: Progress) -> None:
    """What an interrupted run has left is kept where it was the same run; what it had begun to put there is not."""
    for left in staging.iterdir():
        if left != work or left.is_symlink():
            remove(left)
    mark, fingerprint = work / "fingerprint", _fingerprint(run)
    if mark.is_file():
        is_same = mark.read_text(encoding="utf-8") == fingerprint
        is_done, is_calibrated = (work / "result.json").is_file(), (work / "output" / "calibrated").is_file()
        if is_same and (is_done or is_calibrated):
            done = "quantized all layers" if is_done else "calibrated: its figures are kept"
            progress.note(f"an interrupted run had {done}")
            return
        why = f"{run.tool.package} cannot go on where it was" if is_same else "it was of another model or wish"
        progress.note(f"an interrupted run is there, and {why}: this one starts anew")
    remove(work)
    work.mkdir()
    (work / "output").mkdir()
    write_text(mark, fingerprint)


def _fingerprint(run: _Run) -> str:
    """Changes with whatever the tool's work depends on."""
    options = run.options
    asked = (options.method, options.samples, options.seqlen, options.search_scale, options.iterations, run.device)
    digest = hashlib.sha256(f"{__version__} {run.tool.package} {run.tool.version} {asked}\n".encode())
    digest.update((run.texts.digest if run.texts else NONE).encode())
    for file in run.artifact.files:
        status = (run.artifact.root / file.path).stat()
        digest.update(f"{file.path} {status.st_size} {status.st_mtime_ns} {status.st_ino}\n".encode())
    return f"{digest.hexdigest()}\n"


def _modern(artifact: Artifact, work: Path, progress: Progress) -> Artifact:
    """The model as a Hugging Face directory: of a workspace one is written, with its chat template."""
    if artifact.layout == "huggingface":
        return artifact
    directory = work / artifact.root.resolve().name
    modernize(artifact, directory, ModernizeOptions(), progress)
    return read_artifact(directory)


def _run_tool(run: _Run, artifact: Artifact, work: Path, progress: Progress) -> dict[str, Any]:
    done = work / "result.json"
    if done.is_file():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if "error" not in found:
            return found
    options = run.options
    texts = work / "texts.jsonl" if run.texts else None
    if texts and run.texts:
        texts.write_text("".join(f"{record}\n" for record in run.texts.records), encoding="utf-8")
    job = Job(
        directory=work / "source",
        output=work / "output",
        texts=texts,
        samples=options.samples,
        seqlen=options.seqlen,
        search_scale=options.search_scale,
        iterations=options.iterations,
        device=run.device,
        trusts_code=options.trusts_code,
    )
    return run_job(run.tool, job, artifact.layers, work, progress)


def _note_windows(run: _Run, result: dict[str, Any], notes: list[str], progress: Progress) -> None:
    found = int(result["windows"])
    if run.texts and found < run.asked_windows:
        note = f"the texts of {run.texts.name} make {found} windows of {run.options.seqlen} tokens: more are better"
        notes.append(note)
        progress.note(note)


def _cost(
    run: _Run, artifact: Artifact, staging: Path, work: Path, notes: list[str], progress: Progress
) -> QuantizationCost | None:
    if not run.options.measures:
        return None
    where = (run.tool, run.device, work)
    cost, why_not = measure_cost(artifact, staging, run.measured, run.options, where, progress)
    if cost is None:
        if run.options.max_perplexity_increase is not None:
            raise QuantizeError(f"what it cost could not be measured: {why_not}", hint="leave --max-ppl-increase out")
        notes.append(f"what it cost was not measured: {why_not}")
        progress.note(notes[-1])
    return cost


def is_within(options: QuantizeOptions, cost: QuantizationCost | None) -> bool | None:
    """Whether it costs no more than it may; None where that was not asked, or not measured."""
    if options.max_perplexity_increase is None or cost is None:
        return None
    return cost.perplexity_increase <= options.max_perplexity_increase


def _quantized_by(run: _Run, result: dict[str, Any], cost: QuantizationCost | None) -> QuantizedBy:
    texts = run.texts
    return QuantizedBy(
        method=run.tool.method,
        tool=run.tool.package,
        tool_version=run.tool.version,
        deploytk=__version__,
        arguments=tuple(_arguments(run)),
        source_dtype=run.artifact.weight_dtype,
        calibration=CalibrationData(
            name=texts.name if texts else NONE,
            digest=texts.digest if texts else None,
            windows=int(result["windows"]),
            window_tokens=run.options.seqlen if texts else 0,
        ),
        cost=cost,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        source=recordable(run.artifact.root.resolve().name),
    )


def _arguments(run: _Run) -> Sequence[str]:
    options = run.options
    if options.method == "autoround":
        return (f"iters {options.iterations}", f"device {run.device}")
    return (*(("search-scale",) if options.search_scale else ()), f"device {run.device}")


def _require_served(staging: Path) -> None:
    """Raises QuantizeError when what was written is no model that LMDeploy serves."""
    found = read_artifact(staging)
    for problem in found.errors:
        raise QuantizeError(f"what the quantizer wrote cannot be served: {problem.message}", hint=problem.hint)
    if found.weight_format != "awq" or found.lmdeploy.pin is None:
        raise QuantizeError(
            f"nothing would serve what was written: {found.lmdeploy.reason}", hint="keep the model as it is"
        )
