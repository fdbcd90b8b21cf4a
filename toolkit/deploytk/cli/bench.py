"""The command that measures a matrix of deployments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from deploytk.base.errors import UsageError
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import AllowPickle, Planning, TrustRemoteCode, list_of
from deploytk.cli.session import Session, show, unused

if TYPE_CHECKING:
    from deploytk.bench import BenchOptions, Matrix


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What is measured with what; the same names as in a file of --matrix, which they beat."""

    matrix: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="TOML with the dimensions, by the options' names.")
    ] = None
    engines: Annotated[
        str | None, typer.Option(metavar="LIST", help="turbomind, pytorch, huggingface, cpu; with commas between.")
    ] = None
    kv: Annotated[str | None, typer.Option(metavar="LIST", help="KV caches: none, int8, int4.")] = None
    concurrency: Annotated[str | None, typer.Option(metavar="LIST", help="Requests at once.")] = None
    input_tokens: Annotated[str | None, typer.Option(metavar="LIST", help="Tokens per prompt.")] = None
    output_tokens: Annotated[str | None, typer.Option(metavar="LIST", help="Tokens per answer, exactly.")] = None
    repetitions: Annotated[int | None, typer.Option(min=1, help="Rounds over the whole matrix.")] = None
    session_len: Annotated[int | None, typer.Option(min=1, help="Tokens per conversation, prompt and answer.")] = None

    def chosen(self) -> Matrix:
        from deploytk.bench import make_matrix, read_matrix

        lists = ("engines", "kv", "concurrency", "input_tokens", "output_tokens")
        given: dict[str, object] = {name: list_of(getattr(self, name)) for name in lists}
        given |= {"repetitions": self.repetitions, "session_len": self.session_len}
        chosen = {name: value for name, value in given.items() if value is not None}
        return make_matrix((read_matrix(self.matrix) if self.matrix else {}) | chosen)


@dataclass(frozen=True, slots=True)
class Throughout:
    """What holds for the whole matrix."""

    gpu: Annotated[
        str | None, typer.Option(metavar="NAME|SIZE", help="The GPU to recommend for; the one here by default.")
    ] = None
    tp: Annotated[int | None, typer.Option(min=1, help="GPUs that share each model.")] = None
    cache_max_entry_count: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of memory for the KV pool, instead of what is needed.")
    ] = None
    slo: Annotated[
        str | None,
        typer.Option(metavar="ttft=500ms,tpot=50ms", help="Goodput counts the requests per second that keep these."),
    ] = None
    objective: Annotated[
        Literal["throughput", "latency"], typer.Option(help="What the recommendation is to be good at.")
    ] = "throughput"

    def options(self, matrix: Matrix, *, trusts_code: bool, allows_pickles: bool) -> BenchOptions:
        from deploytk.bench import BenchOptions, parse_slo

        planning = Planning(tp=self.tp, cache_max_entry_count=self.cache_max_entry_count)
        slo = parse_slo(self.slo) if self.slo is not None else None
        request = planning.request_here()
        trust = {"trusts_code": trusts_code, "allows_pickles": allows_pickles}
        return BenchOptions(matrix, self.gpu, self.objective, **trust, request=request, slo=slo)


@command("deploytk bench ./fp16 ./awq --kv none,int8 --concurrency 1,8,32 -o ./results")
def bench(
    dimensions: Dimensions,
    whole: Throughout,
    models: Annotated[list[Path] | None, source_argument("MODEL", "Model directories to compare.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where results go, and are resumed from; with --compare a page, .html.",
        ),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="A B", help="Measure nothing; judge directory B against A: 0 not worse, 3 worse, 4 unclear."
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    allow_pickle: AllowPickle = False,
) -> None:
    """Measure engines x weights x KV caches x loads, and recommend one. Run again to resume."""
    if compare:
        others = ("models", "trust_remote_code", "allow_pickle")
        unused(*others, Dimensions, Throughout, because="--compare measures nothing")
        _compare(*compare, output)
    from deploytk.artifact import names_code
    from deploytk.bench import run_bench

    if not models or output is None:
        raise UsageError("bench needs models and a directory for results", hint="deploytk bench MODEL -o DIR")
    if not any(names_code(model) for model in models):
        unused("trust_remote_code", because="no model here names code (auto_map)")
    options = whole.options(dimensions.chosen(), trusts_code=trust_remote_code, allows_pickles=allow_pickle)
    result = run_bench(models, options, output, Session.progress)
    show(result, "show_bench")
    if result.failed:
        raise typer.Exit(1)


def _compare(before: Path, after: Path, output: Path | None) -> NoReturn:
    from deploytk.bench import compare, write_comparison

    is_page = output is not None and output.suffix == ".html"
    if not is_page:
        unused("output", because="--compare measures nothing and writes a page, NAME.html")
    comparison = compare(before, after)
    if output and is_page:
        write_comparison(comparison, before, after, output)
    show(comparison, "show_comparison")
    raise typer.Exit(comparison.exit_code)
