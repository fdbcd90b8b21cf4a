"""The command that measures and judges one server."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploytk.base.durations import seconds_of
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import Engine, EngineChoice, Golden, Planning, ReportFile, TrustBundle
from deploytk.cli.session import Session, show, unused
from deploytk.cli.source import planning_for, trusts

if TYPE_CHECKING:
    from deploytk.serve import ServeOptions
    from deploytk.smoke import Budget, Report, Workload


@dataclass(frozen=True, slots=True)
class Limits:
    """What the deployment may cost; each beats the file of --budget, and that [budget] of deploytk.toml."""

    budget: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML or JSON with limits, or an earlier report.")
    ] = None
    max_vram_mib: Annotated[float | None, typer.Option(help="Most VRAM, in MiB.")] = None
    max_ttft_ms: Annotated[float | None, typer.Option(help="Longest median time to first token.")] = None
    max_tpot_ms: Annotated[float | None, typer.Option(help="Longest median time per output token.")] = None
    min_tokens_per_s: Annotated[float | None, typer.Option(help="Fewest tokens per second.")] = None

    def chosen(self) -> Budget:
        from deploytk.smoke import Budget, make_budget, read_budget

        limits = Budget(**dataclasses.asdict(Session.settings.budget))
        limits = limits.beaten_by(read_budget(self.budget)) if self.budget else limits
        names = [field.name for field in dataclasses.fields(self) if field.name != "budget"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return limits.beaten_by(make_budget(given, "the command line"))


@dataclass(frozen=True, slots=True)
class Load:
    """What the server is asked."""

    golden: Golden = None
    requests: Annotated[int, typer.Option(min=1, help="Measured requests.")] = 30
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 1
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests per second, at random times, instead of --concurrency.")
    ] = None
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens per answer, at most.")] = 128
    wait: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long it may take to be ready; 60s at a URL, 30m when started here."),
    ] = None

    def workload(self) -> Workload:
        from deploytk.smoke import Workload

        if self.rate is not None:
            unused("concurrency", because="--rate says when requests are sent", hint="leave it out, or --rate")
        return Workload(
            requests=self.requests, concurrency=self.concurrency, rate=self.rate, output_tokens=self.output_tokens
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of the measurement."""

    output: ReportFile = None
    raw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep every request, as JSON lines for `deploytk report`.")
    ] = None

    def check(self) -> None:
        from deploytk.smoke.render import check_path

        if self.output:
            check_path(self.output)

    def write(self, report: Report) -> None:
        from deploytk.smoke import write_report

        if self.output:
            write_report(report, self.output)


@command("deploytk smoke http://127.0.0.1:7860 --max-ttft-ms 500 --min-tokens-per-s 20")
def smoke(
    source: Annotated[str, source_argument("URL|MODEL|BUNDLE|IMAGE", "What to test.")],
    limits: Limits,
    load: Load,
    planning: Planning,
    kept: Kept,
    engine: Engine = "auto",
    trust_bundle: TrustBundle = False,
) -> None:
    """Measure VRAM and latency, check the answers, judge: 0 good, 1 wrong, 3 over budget, 4 cannot tell."""
    from deploytk.smoke import smoke as run_smoke

    kept.check()
    budget, workload = limits.chosen(), load.workload()
    options = _serving(planning_for(source, planning, engine), load, engine)
    options = dataclasses.replace(options, trusts_bundle=trusts(source, trust_bundle))
    report = run_smoke(source, options, workload, budget, Session.progress, raw=kept.raw)
    kept.write(report)
    show(report, "show_report")
    if report.verdict.exit_code:
        raise typer.Exit(report.verdict.exit_code)


def _serving(planning: Planning, load: Load, engine: EngineChoice) -> ServeOptions:
    from deploytk.bundle import read_golden
    from deploytk.serve import ServeOptions

    golden = read_golden(load.golden) if load.golden else ()
    options = ServeOptions(engine=engine, golden=golden, request=planning.request(), attach_within_s=60.0)
    if load.wait is None:
        return options
    within_s = seconds_of(load.wait)
    return dataclasses.replace(options, attach_within_s=within_s, ready_within_s=within_s)
