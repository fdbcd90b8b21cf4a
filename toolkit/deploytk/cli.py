"""The commands: read options, call a stage, print."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from deploytk import __version__
from deploytk.errors import DeployError, UsageError
from deploytk.progress import Progress, Silent, terminal_progress
from deploytk.settings import Settings, check_commands, find_settings, load_settings
from deploytk.values import plain

if TYPE_CHECKING:
    from deploytk.bundle import Bundle, BundleOptions, Measured
    from deploytk.plan import PlanRequest

AppKind = Literal["gradio", "api"]

app = typer.Typer(
    name="deploytk",
    help="From a quantized LMDeploy/TurboMind model directory to a published, running, measured deployment.",
    epilog="Start with:  deploytk demo   then   deploytk inspect MODEL",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

templates = typer.Typer(help="The templates of card and app.", no_args_is_help=True)
app.add_typer(templates, name="template")

ModelDir = Annotated[Path, typer.Argument(metavar="MODEL", help="A model directory: HF layout or workspace.")]
ModelOrBundle = Annotated[Path, typer.Argument(metavar="MODEL|BUNDLE", help="A model directory or a bundle.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the value as JSON on stdout, nothing else.")]
GpuOption = Annotated[
    str | None, typer.Option("--gpu", metavar="NAME|SIZE", help="The GPU to plan for: A100-80G, 'RTX 4090', 24G.")
]
SessionLen = Annotated[
    int | None,
    typer.Option("--session-len", min=1, help="Tokens per conversation, prompt and answer; up to 8192 by default."),
]
MaxBatch = Annotated[
    int | None, typer.Option("--max-batch-size", min=1, help="Conversations at once; up to 8 by default.")
]
Kv = Annotated[Literal["none", "int8", "int4"] | None, typer.Option("--kv", help="How the KV cache is quantized.")]
TensorParallel = Annotated[int | None, typer.Option("--tp", min=1, help="GPUs that share the model.")]
Engine = Annotated[
    Literal["auto", "turbomind", "cpu"], typer.Option("--engine", help="auto: TurboMind when a GPU is there.")
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the deployment; the directory's by default.")]
BaseModel = Annotated[str | None, typer.Option("--base-model", metavar="OWNER/NAME", help="What was quantized.")]
License = Annotated[str | None, typer.Option("--license", help="Licence of the weights, as hubs write it: apache-2.0.")]
Golden = Annotated[
    Path | None, typer.Option("--golden", exists=True, dir_okay=False, help="JSON list of {prompt, answer}.")
]
Template = Annotated[
    Path | None, typer.Option("--template", exists=True, file_okay=False, help="Your templates, by shipped name.")
]


class _Session:
    """What the options before the command set, for the one run of this process."""

    settings = Settings()
    progress: Progress = Silent()


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"deploytk {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    _Session.progress = Silent() if quiet else terminal_progress()
    _Session.settings = load_settings(find_settings(sys.argv[1:]))
    commands = getattr(context.command, "commands", {})
    known = {name: {option.name for option in command.params} for name, command in commands.items()}
    context.default_map = dict(check_commands(_Session.settings, known))


@app.command(epilog="Example:  deploytk inspect ./workspace_hfmerge --json")
def inspect(model: ModelDir, as_json: AsJson = False) -> None:
    """Show what a model directory is, what can serve it, and what is wrong with it."""
    from deploytk.artifact import read_artifact

    artifact = read_artifact(model)
    _show(artifact, as_json, "show_artifact", leave_out=("config",))
    artifact.require_usable()


@app.command(epilog="Example:  deploytk plan ./internlm-chat-7b-awq --gpu A10 --session-len 4096 --kv int8")
def plan(
    model: ModelDir,
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    tp: TensorParallel = None,
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Decide how a model is served and what VRAM that takes, before anything is deployed."""
    from deploytk.artifact import read_artifact
    from deploytk.plan import plan_serving

    request = _request(gpu, session_len, max_batch_size, kv, tp, engine)
    _show(plan_serving(read_artifact(model), request), as_json, "show_plan")


@app.command(epilog="Example:  deploytk modernize ./workspace_hfmerge -o ./internlm-chat-7b-awq")
def modernize(
    workspace: Annotated[Path, typer.Argument(metavar="WORKSPACE", help="What `lmdeploy convert` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="The directory to write.")],
    to_fp16: Annotated[bool, typer.Option("--to-fp16", help="Dequantize, for engines without 4-bit kernels.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a legacy workspace into an HF directory that current LMDeploy loads, bit for bit."""
    from deploytk.artifact import read_artifact
    from deploytk.modernize import modernize as write_huggingface

    done = write_huggingface(read_artifact(workspace), output, to_fp16=to_fp16, progress=_Session.progress)
    _show(done, as_json, "show_fields")


@app.command(epilog="Example:  deploytk package ./internlm-chat-7b-awq -o ./bundle --license apache-2.0")
def package(
    model: ModelDir,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The directory to write.")],
    name: Name = None,
    base_model: BaseModel = None,
    license_: License = None,
    app_kind: Annotated[AppKind, typer.Option("--app", help="The app that is generated.")] = "gradio",
    golden: Golden = None,
    template: Template = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", exists=True, help="Figures for the card: a smoke report, or bench's DIR."),
    ] = None,
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    tp: TensorParallel = None,
    as_json: AsJson = False,
) -> None:
    """Write a bundle: model card, app, Dockerfile and manifest around the (hard-linked) weights."""

    request = _request(gpu, session_len, max_batch_size, kv, tp, "auto")
    options = _bundle_options(model, name, base_model, license_, app_kind, golden, template)
    if report:
        options = dataclasses.replace(options, measured=_measured(report, model))
    _show(_package(model, request, options, output), as_json, "show_bundle", leave_out=("manifest",))


@app.command(epilog="Example:  deploytk publish ./workspace_hfmerge --target openxlab --repo me/internlm-chat-7b")
def publish(
    source: ModelOrBundle,
    target: Annotated[
        Literal["local", "huggingface", "openxlab", "modelscope", "oci"], typer.Option(help="Where to publish.")
    ],
    repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The repository; for local: the hub's directory.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would change, change nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Visible to everybody; private by default.")] = False,
    with_app: Annotated[bool, typer.Option("--app", help="Create or update the hub's app as well.")] = False,
    via: Annotated[
        Literal["git", "sdk"], typer.Option("--via", help="openxlab: sdk is the hub's own package, for flat bundles.")
    ] = "git",
    app_remote: Annotated[
        str | None, typer.Option(metavar="URL", help="openxlab: the git repository to push the app to.")
    ] = None,
    app_url: Annotated[
        str | None, typer.Option(metavar="URL", help="openxlab: where the app runs, once you have created it.")
    ] = None,
    app_hardware: Annotated[
        str | None, typer.Option(metavar="NAME", help="huggingface: what the Space runs on, such as t4-small.")
    ] = None,
    wait: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for the app: 90s, 30m, 1h.")] = "30m",
    name: Name = None,
    base_model: BaseModel = None,
    license_: License = None,
    app_kind: Annotated[AppKind, typer.Option("--app-kind", help="The app that is generated.")] = "gradio",
    golden: Golden = None,
    template: Template = None,
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    tp: TensorParallel = None,
    as_json: AsJson = False,
) -> None:
    """Put a model or bundle on a hub in one atomic step, and verify what arrived."""
    from deploytk.release import PublishOptions, find_target, publish_bundle

    request = _request(gpu, session_len, max_batch_size, kv, tp, "auto")
    options = _bundle_options(source, name, base_model, license_, app_kind, golden, template)
    bundle = _bundle(source, request, options)
    has_app = with_app or any((app_remote, app_url, app_hardware))
    where = PublishOptions(
        repo=repo,
        is_private=not public,
        with_app=has_app,
        wait_s=_seconds(wait),
        via=via,
        app_remote=app_remote,
        app_url=app_url,
        app_hardware=app_hardware,
    )
    if plan_only:
        _show(find_target(target).preview(bundle, where), as_json, "show_release_plan")
        return
    if target in ("openxlab", "modelscope") and has_app:
        from deploytk.preflight import PreflightOptions, preflight, require_passed

        require_passed(preflight(bundle.path, PreflightOptions(gpu=gpu), _Session.progress))
    _show(publish_bundle(bundle, find_target(target), where, _Session.progress), as_json, "show_release")
    if app_url:
        from deploytk.preflight import await_app

        running = await_app(app_url, where.wait_s, _Session.progress, preflight_passed=target != "huggingface")
        _Session.progress.note(f"{running.url} serves {running.model}")


@app.command("preflight", epilog="Example:  deploytk preflight ./bundle --gpu A10")
def check_app(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE|APP", help="A bundle, or the directory of an app.")],
    gpu: GpuOption = None,
    start: Annotated[str, typer.Option(metavar="FILE", help="The start file, as the hub's form names it.")] = "app.py",
    python: Annotated[
        Path | None, typer.Option(help="The Python that starts the app; OpenXLab has 3.9.", metavar="FILE")
    ] = None,
    within: Annotated[str, typer.Option(metavar="DURATION", help="Longest time until the first answer.")] = "30s",
    network: Annotated[
        bool, typer.Option("--network", help="Let pip resolve the requirements, on the package index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start an app as OpenXLab will, and name what would keep it queueing: 0 it can run, 1 it cannot."""
    from deploytk.preflight import PreflightOptions, preflight

    options = PreflightOptions(start=start, gpu=gpu, python=python, within_s=_seconds(within), with_network=network)
    found = preflight(source, options, _Session.progress)
    _show(found, as_json, "show_preflight")
    if not found.passed:
        raise typer.Exit(1)


@app.command(epilog="Example:  deploytk serve ./internlm-chat-7b-awq --engine cpu --port 7860")
def serve(
    source: ModelOrBundle,
    engine: Engine = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for everybody.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 7860,
    app_kind: Annotated[AppKind, typer.Option("--app", help="The app that is served.")] = "gradio",
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the chat page in a browser.")] = False,
    template: Template = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever a template changes.")] = False,
) -> None:
    """Run the very app that would be published, here; Ctrl-C stops it."""
    from deploytk.display import show_endpoint
    from deploytk.preview import ServeOptions, open_endpoint, wait_while_running
    from deploytk.shipped import shipped

    request = _request(gpu, session_len, max_batch_size, kv, None, "auto")
    options = ServeOptions(engine=engine, host=host, port=port, app=app_kind, request=request, template=template)
    watched = ([template] if template else [shipped("templates")]) if reload else []
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            with open_endpoint(str(source), options, _Session.progress) as endpoint:
                show_endpoint(endpoint)
                if open_browser:
                    typer.launch(endpoint.url)
                wait_while_running(endpoint, watched)


@app.command(epilog="Example:  deploytk smoke http://127.0.0.1:7860 --max-ttft-ms 500 --min-tokens-per-s 20")
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
    from deploytk.preview import ServeOptions
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
    limits = Budget(**dataclasses.asdict(_Session.settings.budget))
    limits = limits.beaten_by(read_budget(budget)) if budget else limits
    given = {name: value for name, value in flags.items() if value is not None}
    limits = limits.beaten_by(make_budget(given, "the command line"))
    request = _request(gpu, session_len, max_batch_size, kv, None, "auto")
    known = read_golden(golden) if golden else ()
    options = ServeOptions(engine=engine, golden=known, request=request, attach_within_s=_seconds(wait))
    workload = Workload(requests=requests, concurrency=concurrency, rate=rate, output_tokens=output_tokens)
    report = run_smoke(source, options, workload, limits, _Session.progress, raw=raw)
    if output:
        write_report(report, output)
    _show(report, as_json, "show_report")
    if report.verdict.exit_code:
        raise typer.Exit(report.verdict.exit_code)


@app.command(epilog="Example:  deploytk build ./bundle -t my-model:1      or:  -t HOST/ME/my-model:1 --output registry")
def build(
    source: ModelOrBundle,
    tag: Annotated[str, typer.Option("--tag", "-t", metavar="TAG", help="NAME:TAG, or HOST/NAME:TAG for a registry.")],
    output: Annotated[str, typer.Option(metavar="daemon|registry|oci:DIR", help="Where the image goes.")] = "daemon",
    weights: Annotated[
        Literal["layers", "mount", "download"], typer.Option(help="In the image, mounted, or fetched at start.")
    ] = "layers",
    variant: Annotated[
        Literal["official", "pip"], typer.Option(help="On LMDeploy's own image, or LMDeploy by pip on NVIDIA's.")
    ] = "official",
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE|oci:DIR", help="A runtime image to use as it is; built by default.")
    ] = None,
    build_arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the Dockerfile, such as BASE_IMAGE=...")
    ] = None,
    ca_cert: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Trusted while installing; PIP_CERT, SSL_CERT_FILE by default."),
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Wheels that pip takes before the index.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no index: --wheels has everything.")] = False,
    host_network: Annotated[
        bool, typer.Option("--host-network", help="Install over this machine's network: for a proxy or mirror on it.")
    ] = False,
    name: Name = None,
    gpu: GpuOption = None,
    session_len: SessionLen = None,
    max_batch_size: MaxBatch = None,
    kv: Kv = None,
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Build a container image; weights go from disk to where it is wanted, through no builder."""
    from deploytk.image.build import build_image
    from deploytk.image.value import BuildOptions

    mirrors = _Session.settings.mirrors
    arguments = {"PIP_INDEX_URL": mirrors.address("pip"), "APT_MIRROR": mirrors.address("apt")}
    options = BuildOptions(
        tag=tag,
        output=output,
        weights=weights,
        base=base,
        ca_certificate=ca_cert,
        wheels=wheels,
        is_offline=offline,
        variant=variant,
        arguments={key: value for key, value in arguments.items() if value} | _pairs(build_arg or []),
        uses_host_network=host_network,
    )
    request = _request(gpu, session_len, max_batch_size, kv, None, engine)
    bundle = _bundle(source, request, _bundle_options(source, name, None, None, "gradio", None, None))
    _show(build_image(bundle, options, _Session.progress), as_json, "show_image")


@app.command(epilog="Example:  deploytk bench ./fp16 ./awq --kv none,int8 --concurrency 1,8,32 -o ./results")
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
        _show(comparison, as_json, "show_comparison")
        raise typer.Exit(comparison.exit_code)
    from deploytk.bench import BenchOptions, make_matrix, read_matrix, run_bench

    if not models or output is None:
        raise UsageError("bench needs models and a directory for results", hint="deploytk bench MODEL -o DIR")
    given = {"engines": _list(engines), "kv": _list(kv), "repetitions": repetitions, "session_len": session_len}
    given |= {"concurrency": _list(concurrency), "input_tokens": _list(input_tokens)}
    given |= {"output_tokens": _list(output_tokens)}
    chosen = {name: value for name, value in given.items() if value is not None}
    wanted = make_matrix((read_matrix(matrix) if matrix else {}) | chosen)
    options = BenchOptions(wanted, gpu, objective)
    result = run_bench(models, options, output, _Session.progress)
    _show(result, as_json, "show_bench")
    if result.failed:
        raise typer.Exit(1)


@app.command(epilog="Example:  deploytk report raw.jsonl -o report.html")
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

        _show(read_result(source, None, "throughput"), as_json, "show_bench")
        return
    found = read_any(source)
    if output:
        write_report(found, output)
    _show(found, as_json, "show_report")


@templates.command("export", epilog="Example:  deploytk template export ./my-templates")
def export(output: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")]) -> None:
    """Write the shipped templates, to be changed and given to --template."""
    from deploytk.bundle import export_templates

    for path in export_templates(output):
        typer.echo(output / path)


@app.command(epilog="Example:  deploytk doctor --json")
def doctor(as_json: AsJson = False) -> None:
    """Show what works here: driver, GPU, Docker, git-lfs, credentials, mirrors."""
    from deploytk.doctor import check_up

    _show(check_up(_Session.settings), as_json, "show_checkup")


@app.command(epilog="Example:  deploytk demo")
def demo(as_json: AsJson = False) -> None:
    """Go the whole way with a shipped tiny model, on CPU, in a temporary directory."""
    from deploytk.demo import run_demo

    _show(run_demo(_Session.progress), as_json, "show_demo")


def main() -> None:
    """The entry point: a DeployError becomes two lines on stderr and its exit code."""
    # To be asked to end is like Ctrl-C: everything on the way out is cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except DeployError as error:
        typer.echo(f"error: {error}\n hint: {error.hint}", err=True)
        sys.exit(error.exit_code)


def _show(value: object, as_json: bool, show: str, leave_out: tuple[str, ...] = ()) -> None:
    """Print `value` as JSON, or by the function `show` of deploytk.display, which is loaded only then."""
    if not as_json:
        from deploytk import display

        getattr(display, show)(value)
        return
    fields = cast(dict[str, object], plain(value))
    kept = {name: item for name, item in fields.items() if name not in leave_out}
    typer.echo(json.dumps(kept, ensure_ascii=False, indent=2))


def _request(
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


def _bundle_options(
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


def _measured(report: Path, model: Path) -> Measured:
    from deploytk.bundle import measured_in, read_measured

    if not report.is_dir():
        return read_measured(report)
    from deploytk.bench import best_report

    return measured_in(plain(best_report(report, model.resolve().name)), str(report))


def _package(model: Path, request: PlanRequest, options: BundleOptions, output: Path) -> Bundle:
    from deploytk.artifact import read_artifact
    from deploytk.bundle import render_bundle
    from deploytk.plan import plan_serving

    artifact = read_artifact(model)
    named = dataclasses.replace(request, model_name=options.name)
    return render_bundle(artifact, plan_serving(artifact, named), options, output, _Session.progress)


def _bundle(source: Path, request: PlanRequest, options: BundleOptions) -> Bundle:
    """`source` itself when it is a bundle, else a bundle of it in a place that the next run finds again."""
    from deploytk.bundle import BundleOptions, bundle_place, is_bundle, read_bundle
    from deploytk.plan import PlanRequest

    if is_bundle(source):
        if request != PlanRequest() or options != BundleOptions(name=source.resolve().name):
            hint = "leave the options about card, app and plan out, or package the model again with them"
            raise UsageError(f"{source} is a bundle already and is published as it is", hint=hint)
        return read_bundle(source)
    return _package(source, request, options, bundle_place(source, options.name))


def _list(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{text!r} is not NAME=VALUE", hint="write for example BASE_IMAGE=debian:12")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", duration)
    if not match:
        raise UsageError(f"{duration!r} is not a duration", hint="write 90s, 30m or 1h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2] or "s"]


if __name__ == "__main__":
    main()
