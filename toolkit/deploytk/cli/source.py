"""What SOURCE is, what it becomes with the options about it, and which options have nothing to act on."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from deploytk.base.json import plain
from deploytk.cli.options import AppKind, EngineChoice, Packaging, Planning
from deploytk.cli.session import Session, unused

if TYPE_CHECKING:
    from deploytk.bundle import Bundle, BundleOptions, Measured
    from deploytk.plan import PlanRequest
    from deploytk.serve import SourceKind

_CHANGING = ("name", "base_model", "license", "language", "notes", "golden", "app_kind")
_AS_IT_IS = {"url": "a running server", "image": "an image", "bundle": "a bundle"}


def source_kind(source: str) -> SourceKind:
    from deploytk.serve import source_kind as kind_of

    return kind_of(source)


def planning_for(source: str, planning: Planning, engine: EngineChoice) -> Planning:
    """What of `planning` applies to a source that is to be served; raises UsageError for more on the command line."""
    kind = source_kind(source)
    if kind == "model":
        from deploytk.serve import choose_engine

        return planning.on_cpu() if choose_engine(engine) == "cpu" else planning
    because = f"{source} is {_AS_IT_IS[kind]}, with a plan of its own"
    unused(Planning, because=because)
    if kind != "bundle":
        unused("engine", "allow_pickle", because=because)
    return Planning()


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
        chart = chart_of_bench(read_result(report, gpu=None, objective="throughput"), name)
    else:
        chart = chart_of_report(json.loads(report.read_text(encoding="utf-8")))
    return dataclasses.replace(measured, chart=chart)


def package_model(
    model: Path, request: PlanRequest, options: BundleOptions, output: Path, *, allows_pickles: bool
) -> Bundle:
    from deploytk.artifact import read_artifact
    from deploytk.bundle import render_bundle
    from deploytk.plan import code_that_runs, plan_serving

    artifact = read_artifact(model, allows_pickles=allows_pickles)
    named = dataclasses.replace(request, model_name=options.name)
    plan = plan_serving(artifact, named)
    if not request.trust_remote_code:
        _say_code(code_that_runs(artifact.remote_code, plan.lmdeploy, str(artifact.root)))
    return render_bundle(artifact, plan, options, output, Session.progress)


def bundle_of(
    source: Path,
    request: PlanRequest,
    packaging: Packaging,
    app: AppKind,
    *more: str,
    is_signed_anew: bool = False,
) -> Bundle:
    """`source` itself when it is a bundle, else a bundle of it in a place that the next run finds again.

    `more` are options of the command that would change a bundle. What its owner has written into its cards is taken.

    Raises BundleError for a bundle whose app is not deploytk's, unless it is trusted: a model may bring one; and
    ArtifactError for files that are refused by their content, unless they are allowed.
    """
    from deploytk.bundle import (
        bundle_place,
        code_of,
        is_bundle,
        read_bundle,
        require_own_app,
        require_taken_contents,
        settle_edits,
    )

    if is_bundle(source):
        refuse_packaging(f"{source} is a bundle", *more)
        refuse_template(packaging.template)
        bundle = read_bundle(source)
        if not packaging.trust_bundle:
            require_own_app(bundle, packaging.template)
        if not packaging.allow_pickle:
            require_taken_contents(bundle)
        refuse_trust_in_no_code(source, bundle.manifest.plan.engine)
        if not packaging.trust_remote_code:
            _say_code(code_of(bundle))
        return settle_edits(bundle, Session.progress, is_signed_anew=is_signed_anew)
    refuse_trust(source)
    refuse_trust_in_no_code(source, request.serving_engine)
    request = dataclasses.replace(request, trust_remote_code=packaging.trust_remote_code)
    options = packaging.options(source, app)
    place = bundle_place(source, options.name)
    return package_model(source, request, options, place, allows_pickles=packaging.allow_pickle)


def _say_code(why: str) -> None:
    """Nothing is run to package, build or publish a model: whoever serves it is asked by `serve` and its like."""
    if why:
        Session.progress.note(f"{why}: read it first, it runs wherever this is served")


def refuse_packaging(what: str, *more: str) -> None:
    """Raises UsageError for options that would change what is packaged already."""
    hint = "leave it out, or package the model again with it"
    changing = (*_CHANGING, *more)
    unused(Planning, *changing, because=f"{what} already, taken as it is", hint=hint)


def refuse_template(template: Path | None) -> None:
    """Of a bundle's templates those of its app alone are looked at: they tell whose app it is."""
    if template and not (template / "app").is_dir():
        unused("template", because=f"the bundle is rendered already, and {template}/app is missing")


def refuse_trust(source: Path) -> None:
    unused("trust_bundle", because=f"{source} is a model directory, for which deploytk renders the app")


def trusts_code(source: str, trust_remote_code: bool, engine: EngineChoice) -> bool:
    """Whether code that the model of `source` names may run; raises UsageError for the option where none would."""
    kind = source_kind(source)
    if kind in ("url", "image"):
        unused("trust_remote_code", because=f"{source} is {_AS_IT_IS[kind]}, with a command of its own")
    elif trust_remote_code:
        from deploytk.serve import choose_engine

        refuse_trust_in_no_code(Path(source.removeprefix("file://")), choose_engine(engine))
    return trust_remote_code


def refuse_trust_in_no_code(source: Path, engine: str | None = None) -> None:
    """Raises UsageError for --trust-remote-code where no code would run, whoever said so."""
    from deploytk.artifact import names_code

    if engine == "cpu":
        unused("trust_remote_code", because="the CPU engine runs no code of a model")
    if not names_code(source):
        unused("trust_remote_code", because=f"{source} names no code (auto_map)")


def trusts(source: str, trust_bundle: bool) -> bool:
    """Whether the app of `source` runs unseen; raises UsageError for --trust-bundle where there is no bundle."""
    kind = source_kind(source)
    if kind != "bundle":
        unused("trust_bundle", because=f"{source} is {_AS_IT_IS.get(kind, 'a model directory')}, not a bundle")
    return trust_bundle
