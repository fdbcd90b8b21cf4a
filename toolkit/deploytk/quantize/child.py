"""A quantizer as a process of its own: started with a job, watched by what it prints, ended with us."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.base.errors import QuantizeError
from deploytk.base.import_path import python_environment
from deploytk.base.processes import die_with_parent, tail
from deploytk.base.progress import Advance, Progress
from deploytk.quantize.tools import Tool

_START = Path(__file__).with_name("engines") / "start.py"
_END_WITHIN_S = 5.0
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

# What LMDeploy's quantizer prints of each layer: calibrated, smoothed, and of each linear layer: packed.
_CALIBRATED = re.compile(r"\S+, samples: \d+, max gpu memory")
_SMOOTHED = re.compile(r"\S+ smooth weight done\.")
_PACKED = re.compile(r"(?P<module>\S+) weight (packed|skipped)\.")
_LAYER = re.compile(r"^(.*?\.\d+)\.")
# What AutoRound's bar shows.
_TUNED = re.compile(r"Quantizing \S+:.*?\| (?P<done>\d+)/\d+ ")


@dataclass(frozen=True, slots=True)
class Job:
    """What the process is told."""

    directory: Path  # the model as it reads it
    output: Path
    texts: Path | None
    samples: int
    seqlen: int
    search_scale: bool
    iterations: int
    device: str
    trusts_code: bool

    def written(self, tool: Tool, result: Path) -> dict[str, Any]:
        return {
            "method": tool.method,
            "model": str(self.directory),
            "output": str(self.output),
            "texts": str(self.texts) if self.texts else None,
            "samples": self.samples,
            "seqlen": self.seqlen,
            "search_scale": self.search_scale,
            "iters": self.iterations,
            "device": self.device,
            "trust_remote_code": self.trusts_code,
            "result": str(result),
        }


def run_job(tool: Tool, job: Job, layers: int, work: Path, progress: Progress) -> dict[str, Any]:
    """What the process says at its end; raises QuantizeError with its own words when it failed."""
    description, result, log = work / "job.json", work / "result.json", work / "log.txt"
    result.unlink(missing_ok=True)
    description.write_text(json.dumps(job.written(tool, result)), encoding="utf-8")
    phases = 1 if tool.method == "autoround" or not job.texts else 3
    empty = work / "empty"
    empty.mkdir(exist_ok=True)
    environment = python_environment(**_OFFLINE, PYTHONUNBUFFERED="1", TOKENIZERS_PARALLELISM="false")
    argv = [str(tool.python), str(_START), str(description)]
    with (
        progress.task(f"layers ({tool.package} {tool.version})", layers * phases, "steps") as advance,
        _running(argv, empty, environment) as process,
    ):
        _watch(process, log, _Steps(advance, layers))
        code = process.wait()
    return _result(tool, result, code, log)


def _result(tool: Tool, path: Path, code: int, log: Path) -> dict[str, Any]:
    what = f"{tool.package} {tool.version}"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        hint = "the lines above are the end of what it said"
        if code == -signal.SIGKILL:
            hint = "the system ends a process so when memory is full: fewer --samples, or a machine with more memory"
        raise QuantizeError(f"{what} ended {how}\n{tail(log)}", hint=hint) from error
    if "error" not in found:
        return found
    if found["kind"] == "texts":
        raise QuantizeError(
            str(found["error"]), hint="give longer texts with --calib, or shorter windows with --seqlen"
        )
    if found["kind"] == "template":
        raise QuantizeError(
            str(found["error"]), hint="correct the template of the model: every server would hang in it"
        )
    said = " ".join(str(found["error"]).split())[:400]
    if "trust_remote_code" in said:
        raise QuantizeError(f"{what} would have to run code of the model", hint="read it, then say --trust-remote-code")
    if "no space left" in said.lower():
        raise QuantizeError(f"{what} found the disk full: {said}", hint="free some space and run again")
    if "out of memory" in said.lower():
        raise QuantizeError(f"{what} failed: {said}", hint="fewer --samples, shorter --seqlen, or --device cpu")
    raise QuantizeError(f"{what} failed: {said}", hint=f"all that it said is in {log}")


class _Steps:
    """Counts what is done, by what the process prints."""

    def __init__(self, advance: Advance, layers: int) -> None:
        self._advance = advance
        self._layers = layers
        self._packed: set[str] = set()
        self._tuned = 0

    def read(self, line: str) -> None:
        if line == "calibration kept":
            self._advance(self._layers)
        elif _CALIBRATED.match(line) or _SMOOTHED.match(line):
            self._advance(1)
        elif packed := _PACKED.match(line):
            layer = _LAYER.match(packed["module"])
            if layer and layer[1] not in self._packed:
                self._packed.add(layer[1])
                self._advance(1)
        elif (tuned := _TUNED.search(line)) and int(tuned["done"]) > self._tuned:
            self._advance(int(tuned["done"]) - self._tuned)
            self._tuned = int(tuned["done"])


@contextmanager
def _running(argv: list[str], cwd: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        argv, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_WITHIN_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdout:
        process.stdout.close()
    process.wait()


def _watch(process: subprocess.Popen[bytes], log: Path, steps: _Steps) -> None:
    """Read lines, those of a bar too, until the process has closed its output."""
    assert process.stdout is not None  # noqa: S101 (a pipe)
    rest = b""
    with log.open("wb") as file:
        while chunk := os.read(process.stdout.fileno(), 2**16):
            file.write(chunk)
            file.flush()
            *lines, rest = re.split(rb"[\r\n]", rest + chunk)
            for line in lines:
                steps.read(line.decode(errors="replace").strip())
        steps.read(rest.decode(errors="replace").strip())
