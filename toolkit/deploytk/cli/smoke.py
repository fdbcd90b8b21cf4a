"""The command that measures and judges one server."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploytk.base.durations import seconds_of
from deploytk.base.errors import UsageError
from deploytk.base.json import to_json
from deploytk.base.terminal import printable
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import AllowPickle, Engine, EngineChoice, Golden, Planning, ReportFile, Trust, key_in
from deploytk.cli.session import Session, show, unused
from deploytk.cli.source import planning_for, trusts, trusts_code

if TYPE_CHECKING:
    from deploytk.serve import ServeOptions
    from deploytk.smoke import Budget, Evidence, Report, Workload


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
    vram_tolerance_pct: Annotated[
        float | None,
        typer.Option(
            "--vram-tolerance",
            metavar="PERCENT",
            help="How far VRAM may be from its plan; 2 where that was measured before, a warning elsewhere.",
        ),
    ] = None

    def chosen(self) -> Budget:
        from deploytk.smoke import Budget, make_budget, read_budget

        limits = Budget(**dataclasses.asdict(Session.settings.budget))
        limits = limits.beaten_by(read_budget(self.budget)) if self.budget else limits
        names = [field.name for field in dataclasses.fields(self) if field.name != "budget"]
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return limits.beaten_by(make_budget(given, "the command line"))

    def baseline(self) -> Report | None:
        """The earlier report that the limits come from, where they do."""
        from deploytk.smoke.render import read_report

        with contextlib.suppress(UsageError):  # limits in a file of their own
            return read_report(self.budget) if self.budget and self.budget.suffix == ".json" else None
        return None


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

    time_limit: Annotated[
        str, typer.Option(metavar="DURATION", help="How long all requests together may take; 2m at most for each.")
    ] = "10m"
    api_key_env: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Variable with the key that a server at a URL wants; DEPLOYTK_API_KEY by default."
        ),
    ] = None

    def workload(self) -> Workload:
        from deploytk.smoke import Workload

        if self.rate is not None:
            unused("concurrency", because="--rate says when requests are sent", hint="leave it out, or --rate")
        workload = Workload(
            requests=self.requests, concurrency=self.concurrency, rate=self.rate, output_tokens=self.output_tokens
        )
        total_s = seconds_of(self.time_limit)
        if not total_s:
            raise UsageError("--time-limit 0 leaves no time for a request", hint="write 90s, 30m or 1h")
        request_s = min(workload.request_within_s, total_s)
        return dataclasses.replace(workload, request_within_s=request_s, total_within_s=total_s)


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

    def write(self, evidence: Evidence, budget: Budget, report: Report, baseline: Report | None) -> list[str]:
        """What went wrong: of a measurement nothing is lost, whatever becomes of its files."""
        from deploytk.smoke import keep, write_raw, write_report

        problems = [keep(self.raw, lambda path: write_raw(evidence, budget, path)) if self.raw else ""]
        problems += [keep(self.output, lambda path: write_report(report, path, baseline)) if self.output else ""]
        return [problem for problem in problems if problem]


@command("deploytk smoke http://127.0.0.1:7860 --max-ttft-ms 500 --min-tokens-per-s 20")
def smoke(
    source: Annotated[str, source_argument("URL|MODEL|BUNDLE|IMAGE", "What to test.")],
    limits: Limits,
    load: Load,
    planning: Planning,
    kept: Kept,
    trust: Trust,
    engine: Engine = "auto",
    allow_pickle: AllowPickle = False,
) -> None:
    """Measure VRAM and latency, check the answers, judge: 0 good, 1 wrong, 3 over budget, 4 cannot tell."""
    from deploytk.smoke import INTERRUPTED, gather, judge

    kept.check()
    if not source.startswith(("http://", "https://")):
        unused("api_key_env", because="an app that is started here takes the keys in DEPLOYTK_API_KEYS")
    budget, workload = limits.chosen(), load.workload()
    options = _serving(planning_for(source, planning, engine), load, engine)
    options = dataclasses.replace(
        options, trusts_bundle=trusts(source, trust.trust_bundle), allows_pickles=allow_pickle
    )
    if trusts_code(source, trust.trust_remote_code, engine):
        options = dataclasses.replace(options, request=dataclasses.replace(options.request, trust_remote_code=True))
    _say_too_few(workload, budget)
    evidence = gather(source, options, workload, Session.progress)
    report = judge(evidence, budget)
    problems = kept.write(evidence, budget, report, limits.baseline())
    show(report, "show_report")
    if problems:
        _say(problems, report)
    if any(finding.check == INTERRUPTED for finding in evidence.findings):
        raise KeyboardInterrupt  # what was measured is kept
    if problems:
        raise typer.Exit(1)
    if report.verdict.exit_code:
        raise typer.Exit(report.verdict.exit_code)


def _say_too_few(workload: Workload, budget: Budget) -> None:
    """Which percentiles so many requests cannot tell, before they are sent."""
    from deploytk.smoke import CERTIFIED_FROM

    count = workload.requests
    lacking = [f"{name} {least}" for name, least in CERTIFIED_FROM.items() if count < least]
    if lacking:
        is_in_vain = count < CERTIFIED_FROM["p50"] and budget.limits_times
        verdict = ", and limits of time cannot be judged (exit code 4)" if is_in_vain else ""
        Session.progress.note(f"{count} requests are few: {', '.join(lacking)} are needed to be sure{verdict}")


def _say(problems: list[str], report: Report) -> None:
    """Print the whole report where that was not done, and why its files are not where they were to be."""
    if not Session.as_json:
        typer.echo(to_json(report, indent=2))
    for problem in problems:
        typer.echo(printable(f"error: {problem}\n hint: the whole report is on stdout as well"), err=True)


def _serving(planning: Planning, load: Load, engine: EngineChoice) -> ServeOptions:
    from deploytk.bundle import read_golden
    from deploytk.serve import ServeOptions

    golden = read_golden(load.golden) if load.golden else ()
    options = ServeOptions(
        engine=engine,
        golden=golden,
        request=planning.request_here(),
        attach_within_s=60.0,
        api_key=key_in(load.api_key_env),
    )
    if load.wait is None:
        return options
    within_s = seconds_of(load.wait)
    return dataclasses.replace(options, attach_within_s=within_s, ready_within_s=within_s)
