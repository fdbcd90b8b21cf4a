"""What MODEL|BUNDLE and the options about it become: a plan's request, a bundle."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deploytk.base.errors import UsageError
from deploytk.base.json import plain
from deploytk.cli.options import AppKind
from deploytk.cli.session import Session

if TYPE_CHECKING:
    from deploytk.bundle import Bundle, BundleOptions, Measured
    from deploytk.plan import PlanRequest


def plan_request(
    gpu: str | None,
    session_len: int | None,
    max_batch_size: int | None,
    kv: Literal["none", "int8", "int4"] | None,
    tp: int | None,
    engine: Literal["auto", "turbomind", "cpu"],
) -> PlanRequest:
    from deploytk.plan import PlanRequest

    return PlanRequest(
        gpu=gpu,
        session_len=session_len,
        max_batch_size=max_batch_size,
        kv_policy=kv,
        tensor_parallel=tp,
        serving_engine=None if engine == "auto" else engine,
    )


def bundle_options(
    source: Path,
    name: str | None,
    base_model: str | None,
    license_: str | None,
    app_kind: AppKind,
    golden: Path | None,
    template: Path | None,
) -> BundleOptions:
    from deploytk.bundle import BundleOptions, read_golden

    return BundleOptions(
        name=name or source.resolve().name,
        license=license_,
        base_model=base_model,
        app=app_kind,
        golden=read_golden(golden) if golden else (),
        template=template,
    )


def measured_figures(report: Path, model: Path) -> Measured:
    """What the card shows of a smoke test's report, or of a directory of bench; a chart as well, with matplotlib."""
    from deploytk.bundle import measured_in, read_measured

    has_charts = importlib.util.find_spec("matplotlib") is not None
    if not has_charts:
        Session.progress.note("no chart for the card: pip install 'deploytk[bench]' for matplotlib")
    name = model.resolve().name
    if report.is_dir():
        from deploytk.bench import best_report, read_result

        measured = measured_in(plain(best_report(report, name)), str(report))
    else:
        measured = read_measured(report)
    if not has_charts:
        return measured
    from deploytk.bench.card_chart import chart_of_bench, chart_of_report

    if report.is_dir():
        chart = chart_of_bench(read_result(report, None, "throughput"), name)
    else:
        chart = chart_of_report(json.loads(report.read_text(encoding="utf-8")))
    return dataclasses.replace(measured, chart=chart)


def package_model(model: Path, request: PlanRequest, options: BundleOptions, output: Path) -> Bundle:
    from deploytk.artifact import read_artifact
    from deploytk.bundle import render_bundle
    from deploytk.plan import plan_serving

    artifact = read_artifact(model)
    named = dataclasses.replace(request, model_name=options.name)
    return render_bundle(artifact, plan_serving(artifact, named), options, output, Session.progress)


def bundle_of(source: Path, request: PlanRequest, options: BundleOptions) -> Bundle:
    """`source` itself when it is a bundle, else a bundle of it in a place that the next run finds again."""
    from deploytk.bundle import bundle_place, is_bundle, read_bundle

    if is_bundle(source):
        refuse_options(source, "a bundle", request, options)
        return read_bundle(source)
    return package_model(source, request, options, bundle_place(source, options.name))


def refuse_options(source: Path, what: str, request: PlanRequest, options: BundleOptions) -> None:
    """Raises UsageError when options would change what is `what` already."""
    from deploytk.bundle import BundleOptions
    from deploytk.plan import PlanRequest

    if request != PlanRequest() or options != BundleOptions(name=source.resolve().name):
        hint = "leave the options about card, app and plan out, or package the model again with them"
        raise UsageError(f"{source} is {what} already and is published as it is", hint=hint)
