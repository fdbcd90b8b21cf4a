"""Reads the values that the commands of a workflow printed with --json, each from NAME.json in one directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from deploytk.base.digits import whole_number
from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain, shown
from deploytk.hardware.catalogue import MIB
from deploytk.smoke.render import markdown, read_report
from deploytk.workflow.value import Finding, Level, Status, Step, Summary

_LARGEST_BYTES = 2**26
_MOST_FINDINGS = 10  # of one command; GitHub shows no more annotations of a kind and step
_LAST = "smoke"
_STATUS: Mapping[str, Status] = {"pass": "done", "fail": "failed", "inconclusive": "inconclusive"}
_LEVELS: Mapping[str, Level] = {"error": "error", "warning": "warning", "info": "notice"}

Values = Mapping[str, Any]


def summarize(directory: Path) -> Summary:
    """What the commands did whose --json lies in `directory`; raises UsageError when there is none, or no JSON."""
    places = {name: directory / f"{name}.json" for name in (*_STEPS, _LAST)}
    found = {name: _values(path) for name, path in places.items() if path.is_file()}
    if not found:
        hint = f"name the directory of {', '.join(f'{name}.json' for name in places)}, as --json printed them"
        raise UsageError(f"{directory} holds no output of a command", hint=hint)
    steps = tuple(_step(name, values, places[name]) for name, values in found.items())
    worst = {step.status for step in steps}
    order: tuple[Status, ...] = ("failed", "inconclusive", "done")
    status = next(one for one in order if one in worst)
    return Summary(status, steps, {name: value for name, value in _outputs(found) if value})


def _values(path: Path) -> Values:
    """Empty for a command that ended without a word: it was killed."""
    try:
        content = read_bounded(path, _LARGEST_BYTES)
        values = parse_plain(content) if content.strip() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}", hint="write there what --json prints on stdout") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no value of a command", hint="write there what --json prints on stdout")
    return values


def _step(name: str, values: Values, path: Path) -> Step:
    if not values:
        return Step(name, "failed", findings=(Finding("error", f"{name} ended without a word", "see its log"),))
    if "error" in values:
        return Step(name, "failed", findings=(Finding("error", _text(values, "what"), _text(values, "hint")),))
    return _measured(path) if name == _LAST else _STEPS[name](values)


def _text(values: Values, *keys: str) -> str:
    """What stands there, as text; "" when nothing does."""
    value: object = values.get("error", values)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None or isinstance(value, (dict, list)) else str(value)


def _list(values: Values, key: str) -> list[Any]:
    found = values.get(key)
    return found if isinstance(found, list) else []


def _mib(values: Values, *keys: str) -> str:
    found = whole_number(_text(values, *keys).partition(".")[0])
    return "" if found is None else f"{shown(found / MIB, 0)} MiB"


def _inspected(values: Values) -> Step:
    weights = f"{_text(values, 'weight_format')}, {_text(values, 'weight_bits')} bit, {_mib(values, 'weights_bytes')}"
    rows = [
        ("model", f"{_text(values, 'architecture')}, {_text(values, 'layout')}"),
        ("weights", weights),
        ("LMDeploy", f"{_text(values, 'lmdeploy', 'pin')} ({_text(values, 'lmdeploy', 'reason')})"),
    ]
    return _made("inspect", rows, _problems(values))


def _problems(values: Values) -> Iterator[Finding]:
    for problem in _list(values, "problems"):
        if isinstance(problem, dict):
            level = _LEVELS.get(_text(problem, "level"), "notice")
            yield Finding(level, _text(problem, "message"), _text(problem, "hint"))


def _planned(values: Values) -> Step:
    where = _text(values, "gpu", "name")
    rows = [
        ("engine", f"{_text(values, 'engine')} {_text(values, 'lmdeploy')}".strip()),
        ("sessions", f"{_text(values, 'max_batch_size')} at once, {_text(values, 'session_len')} tokens each"),
        ("VRAM planned", _mib(values, "vram", "total_bytes")),
        ("GPU", where),
    ]
    if values.get("fits") is not False:
        return _made("plan", rows, [])
    would = "; ".join(f"{_text(one, 'change')} ({_text(one, 'option')})" for one in _list(values, "alternatives"))
    hint = f"what would fit: {would}" if would else "take a larger GPU"
    return _made("plan", rows, [Finding("error", f"the model does not fit on {where or 'that GPU'}", hint)])


def _quantized(values: Values) -> Step:
    by = ("quantized_by", "tool"), ("quantized_by", "tool_version")
    before, after = (_text(values, "quantized_by", "cost", f"perplexity_{when}") for when in ("before", "after"))
    rows = [
        ("4 bits by", " ".join(_text(values, *place) for place in by).strip()),
        ("calibrated", f"{_text(values, 'quantized_by', 'calibration', 'windows')} windows"),
        ("perplexity", f"{before} before, {after} after" if before and after else ""),
        ("size", _mib(values, "bytes")),
    ]
    notes = [Finding("notice", str(note), "see its log") for note in _list(values, "notes")]
    if values.get("is_within_budget") is False:
        notes.append(Finding("error", "4 bits cost more perplexity than they may", "more texts, or another method"))
    return _made("quantize", rows, notes)


def _packaged(values: Values) -> Step:
    rows = [("bundle", _text(values, "name")), ("digest", _text(values, "digest"))]
    return _made("package", [*rows, ("files", str(len(_list(values, "files"))))], [])


def _built(values: Values) -> Step:
    rows = [("image", _text(values, "tag")), ("digest", _text(values, "digest")), ("sent", _mib(values, "sent_bytes"))]
    return _made("build", rows, [])


def _published(values: Values) -> Step:
    is_verified = values.get("verified") is True
    rows = [
        ("published", _text(values, "url")),
        ("revision", _text(values, "revision")),
        ("sent", f"{_text(values, 'uploaded_files')} files, {_mib(values, 'uploaded_bytes')}"),
        ("verified", f"by {_text(values, 'verified_by')}" if is_verified else "no"),
    ]
    left = [Finding("warning", str(one), "only a person can do this") for one in _list(values, "steps_left")]
    kept = [str(one) for one in _list(values, "kept_files")]
    found = Finding("notice", f"{len(kept)} files of others stay there", ", ".join(kept[:3]))
    return _made("publish", rows, [*left, *([found] if kept else [])])


def _measured(path: Path) -> Step:
    report = read_report(path)
    level: Level = "error" if report.verdict.status == "fail" else "warning"
    findings = [Finding(level, reason) for reason in report.verdict.reasons]
    return Step(_LAST, _STATUS[report.verdict.status], findings=_few(findings), detail=markdown(report))


def _made(name: str, rows: list[tuple[str, str]], findings: list[Finding] | Iterator[Finding]) -> Step:
    found = _few(list(findings))
    is_bad = any(one.level == "error" for one in found)
    known = tuple((label, value) for label, value in rows if value)
    return Step(name, "failed" if is_bad else "done", known, found)


def _few(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst ones, and how many more there are."""
    order = list(_LEVELS.values())
    ordered = sorted(findings, key=lambda one: order.index(one.level))
    more = len(ordered) - _MOST_FINDINGS
    rest = (Finding("notice", f"{more} more are in the log"),) if more > 0 else ()
    return (*ordered[:_MOST_FINDINGS], *rest)


def _outputs(found: Mapping[str, Values]) -> Iterator[tuple[str, str]]:
    nothing: Values = {}
    yield "url", _text(found.get("publish", nothing), "url")
    yield "revision", _text(found.get("publish", nothing), "revision")
    yield "digest", _text(found.get("package", nothing), "digest")
    yield "image", _image(found.get("build", nothing))
    yield "verdict", _text(found.get("smoke", nothing), "verdict", "status")


def _image(values: Values) -> str:
    """The image of a registry by its digest, which nobody can change; else by its tag."""
    tag, digest = _text(values, "tag"), _text(values, "digest")
    name, _, last = tag.rpartition("/")
    if _text(values, "output") != "registry":
        return tag
    return f"{name}/{last.partition(':')[0]}@{digest}"


_STEPS: Mapping[str, Callable[[Values], Step]] = {
    "inspect": _inspected,
    "quantize": _quantized,
    "plan": _planned,
    "package": _packaged,
    "build": _built,
    "publish": _published,
}
