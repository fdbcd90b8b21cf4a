"""Commands that measure and judge."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploytk.base.errors import UsageError
from deploytk.cli.options import AsJson, Engine, Golden, GpuOption, Kv, MaxBatch, SessionLen, list_of, seconds_of
from deploytk.cli.session import Session, show
from deploytk.cli.source import plan_request

commands = typer.Typer()


@commands.command(epilog="Example:  deploytk smoke http://127.0.0.1:7860 --max-ttft-ms 500 --min-tokens-per-s 20")
def smoke(
    source: Annotated[str, typer.Argument(metavar="URL|MODEL|BUNDLE|IMAGE", help="What to test.")],
    budget: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML or JSON with limits, or an earlier report.")
    ] = None,
    max_vram_mib: Annotated[float | None, typer.Option(help="Most VRAM, in MiB.")] = None,
    max_ttft_ms: Annotated[float | None, typer.Option(help="Longest median time to first token.")] = None,
    max_tpot_ms: Annotated[float | None, typer.Option(help="Longest median time per output token.")] = None,
    min_tokens_per_s: Annotated[float | None, typer.Option(help="Fewest tokens per second.")] = None,
    golden: Golden = None,
    engine: Engine = "auto",
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    requests: Annotated[int, typer.Option(min=1, help="Measured requests.")] = 30,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time.")] = 1,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Requests per second, at random times, instead of --concurrency.")
    ] = None,
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens per answer, at most.")] = 128,
    wait: Annotated[
        str, typer.Option(metavar="DURATION", help="How long a server at a URL may take to be ready: 60s, 30m.")
    ] = "60s",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="REPORT", help="Write the report: .json, .md, .html or .xml (JUnit)"),
    ] = None,
    raw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep every request, as JSON lines for `deploytk report`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure VRAM and latency, check the answers, judge: 0 good, 1 wrong, 3 over budget, 4 cannot tell."""
    from deploytk.bundle import read_golden
    from deploytk.serve.local import ServeOptions
    from deploytk.smoke import Budget, Workload, make_budget, read_budget, write_report
    from deploytk.smoke import smoke as run_smoke
    from deploytk.smoke.render import check_path

    if output:
        check_path(output)
    flags = {
        "max_vram_mib": max_vram_mib,
        "max_ttft_ms": max_ttft_ms,
        "max_tpot_ms": max_tpot_ms,
        "min_tokens_per_s": min_tokens_per_s,
    }
    limits = Budget(**dataclasses.asdict(Session.settings.budget))
    limits = limits.beaten_by(read_budget(budget)) if budget else limits
    given = {name: value for name, value in flags.items() if value is not None}
    limits = limits.beaten_by(make_budget(given, "the command line"))
    request = plan_request(gpu, session_len, max_batch_size, kv, None, "auto")
    known = read_golden(golden) if golden else ()
    options = ServeOptions(engine=engine, golden=known, request=request, attach_within_s=seconds_of(wait))
    workload = Workload(requests=requests, concurrency=concurrency, rate=rate, output_tokens=output_tokens)
    report = run_smoke(source, options, workload, limits, Session.progress, raw=raw)
    if output:
        write_report(report, output)
    show(report, as_json, "show_report")
    if report.verdict.exit_code:
        raise typer.Exit(report.verdict.exit_code)


@commands.command(epilog="Example:  deploytk bench ./fp16 ./awq --kv none,int8 --concurrency 1,8,32 -o ./results")
def bench(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="MODEL...", help="Model directories to compare.")
    ] = None,
    matrix: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML with the dimensions, by the options' names.")
    ] = None,
    engines: Annotated[
        str | None, typer.Option(metavar="LIST", help="turbomind, pytorch, huggingface, cpu; with commas between.")
    ] = None,
    kv: Annotated[str | None, typer.Option(metavar="LIST", help="KV caches: none, int8, int4.")] = None,
    concurrency: Annotated[str | None, typer.Option(metavar="LIST", help="Requests at once.")] = None,
    input_tokens: Annotated[str | None, typer.Option(metavar="LIST", help="Tokens per prompt.")] = None,
    output_tokens: Annotated[str | None, typer.Option(metavar="LIST", help="Tokens per answer, exactly.")] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Rounds over the whole matrix.")] = None,
    session_len: SessionLen = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME|SIZE", help="The GPU to recommend for; the one here by default."),
    ] = None,
    objective: Annotated[
        Literal["throughput", "latency"], typer.Option(help="What the recommendation is to be good at.")
    ] = "throughput",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where results go, and are resumed from.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B", help="Measure nothing; judge directory B against A: 0 not worse, 3 worse, 4 unclear."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure engines x weights x KV caches x loads, and recommend one. Run again to resume."""
    if compare:
        from deploytk.bench import compare as compare_benches

        comparison = compare_benches(*compare)
        show(comparison, as_json, "show_comparison")
        raise typer.Exit(comparison.exit_code)
    from deploytk.bench import BenchOptions, make_matrix, read_matrix, run_bench

    if not models or output is None:
        raise UsageError("bench needs models and a directory for results", hint="deploytk bench MODEL -o DIR")
    given = {"engines": list_of(engines), "kv": list_of(kv), "repetitions": repetitions, "session_len": session_len}
    given |= {"concurrency": list_of(concurrency), "input_tokens": list_of(input_tokens)}
    given |= {"output_tokens": list_of(output_tokens)}
    chosen = {name: value for name, value in given.items() if value is not None}
    wanted = make_matrix((read_matrix(matrix) if matrix else {}) | chosen)
    options = BenchOptions(wanted, gpu, objective)
    result = run_bench(models, options, output, Session.progress)
    show(result, as_json, "show_bench")
    if result.failed:
        raise typer.Exit(1)


@commands.command(epilog="Example:  deploytk report raw.jsonl -o report.html")
def report(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="Raw data or a report of smoke, or bench's DIR.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="REPORT", help="Write the report: .json, .md, .html or .xml (JUnit)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute every figure again from raw data, and show it."""
    from deploytk.smoke import write_report
    from deploytk.smoke.render import check_path, read_any

    if output:
        check_path(output)
    if source.is_dir():
        from deploytk.bench import read_result

        show(read_result(source, None, "throughput"), as_json, "show_bench")
        return
    found = read_any(source)
    if output:
        write_report(found, output)
    show(found, as_json, "show_report")
