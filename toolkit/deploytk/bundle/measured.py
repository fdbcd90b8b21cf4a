"""Reads the report of a smoke test: the measured figures that a model card shows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain
from deploytk.bundle.value import Measured

_SCHEMA = "deploytk.report/"
_LARGEST_BYTES = 64 * 2**20  # reports hold raw data as well
_LONGEST_TEXT = 100
_HINT = "write one with: deploytk smoke MODEL -o report.json, or name a directory of deploytk bench"


def read_measured(path: Path) -> Measured:
    """The figures of `deploytk smoke -o report.json`; raises UsageError for anything else, and for a failed one."""
    try:
        report = parse_plain(read_bounded(path, _LARGEST_BYTES))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no report of a smoke test", hint=_HINT) from error
    return measured_in(report, str(path))


def measured_in(report: Any, where: str) -> Measured:
    """The figures of a report as JSON has it; raises UsageError, naming `where`, as `read_measured` does."""
    try:
        if not str(report["schema"]).startswith(_SCHEMA):
            raise ValueError("another schema")
        status, measured = str(report["verdict"]["status"]), _measured(report)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{where} is no report of a smoke test", hint=_HINT) from error
    if status == "fail":
        raise UsageError(f"the smoke test of {where} failed", hint="a card shows figures of a model that works")
    if measured.ttft_p50_ms is None and measured.output_tps is None:
        raise UsageError(f"{where} holds no figures", hint=_HINT)
    return measured


def _measured(report: dict[str, Any]) -> Measured:
    identity, work = report["identity"], report["workload"]
    latency, throughput, vram = report["latency"], report["throughput"], report.get("vram")
    gpu = identity.get("gpu")
    findings = [str(finding["status"]) for finding in report.get("correctness") or []]
    return Measured(
        gpu=_text(gpu["name"]) if gpu else None,
        cpu=_cpu(identity.get("client")),
        driver=_text(gpu.get("driver")) if gpu else None,
        engine=_text(identity.get("engine")),
        lmdeploy=_text(identity.get("lmdeploy")),
        kv_policy=_text(identity.get("kv_policy")),
        deploytk=_text(identity["deploytk"]) or "",
        date=str(report["created"])[:10],
        requests=int(work["requests"]),
        output_tokens=int(work["output_tokens"]),
        concurrency=int(work.get("concurrency", 1)),
        ttft_p50_ms=_number(latency["ttft_ms"]["p50"]),
        ttft_p95_ms=_number(latency["ttft_ms"]["p95"]),
        tpot_p50_ms=_number(latency["tpot_ms"]["p50"]),
        output_tps=_number(throughput["output_tps"]),
        decode_tps=_number(throughput["decode_tps_p50"]),
        vram_ready_bytes=_bytes(vram, "ready_bytes"),
        vram_peak_bytes=_bytes(vram, "peak_bytes"),
        checks_passed=findings.count("pass"),
        checks=sum(finding in ("pass", "fail") for finding in findings),
        checks_not_run=findings.count("not run"),
    )


def _cpu(client: Any) -> str | None:
    """The machine where there is no GPU; None where a report has not got it."""
    name = _text(client.get("cpu")) if isinstance(client, dict) else None
    cores = client.get("cores") if isinstance(client, dict) else None
    return f"{name} ({cores} cores)" if name and isinstance(cores, int) else name


def _text(value: object) -> str | None:
    """One line that is no longer than a name can be; the templates escape it."""
    text = " ".join(value.split())[:_LONGEST_TEXT] if isinstance(value, str) else None
    if text:
        text.encode()  # JSON can hold halves of characters, which no file can
    return text or None


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError("no figure")
    return float(value)


def _bytes(vram: dict[str, Any] | None, key: str) -> int | None:
    """What the server itself took, where it was seen before it started."""
    if vram is None:
        return None
    taken = _number(vram[key])
    return None if taken is None else max(0, int(taken) - int(vram.get("baseline_bytes") or 0))
