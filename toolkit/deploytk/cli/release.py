"""Commands that put a bundle on a hub, and say beforehand whether its app can run there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deploytk.cli.options import (
    AppKind,
    AsJson,
    BaseModel,
    Golden,
    GpuOption,
    Kv,
    License,
    MaxBatch,
    ModelBundleOrImage,
    Name,
    SessionLen,
    Template,
    TensorParallel,
    seconds_of,
)
from deploytk.cli.session import Session, show
from deploytk.cli.source import bundle_of, bundle_options, plan_request, refuse_options

commands = typer.Typer()


@commands.command(epilog="Example:  deploytk publish ./workspace_hfmerge --target openxlab --repo me/internlm-chat-7b")
def publish(
    source: ModelBundleOrImage,
    target: Annotated[
        Literal["local", "huggingface", "openxlab", "modelscope", "oci"], typer.Option(help="Where to publish.")
    ],
    repo: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="The repository; local: a directory; oci: HOST/NAME:TAG."),
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
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE|oci:DIR", help="oci: a runtime image to use; built by default.")
    ] = None,
    app_sdk: Annotated[
        Literal["docker", "gradio"],
        typer.Option(help="huggingface: what runs the Space; gradio needs LMDeploy 0.10 or later."),
    ] = "docker",
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
    """Put a model, bundle or image on a hub in one atomic step, and verify what arrived."""
    from deploytk.publish.release import PublishOptions, find_target, plan_release, publish_bundle

    request = plan_request(gpu, session_len, max_batch_size, kv, tp, "auto")
    directory = Path(source)
    options = bundle_options(directory, name, base_model, license_, app_kind, golden, template)
    has_app = with_app or any((app_remote, app_url, app_hardware, app_sdk != "docker"))
    where = PublishOptions(
        repo=repo,
        is_private=not public,
        with_app=has_app,
        wait_s=seconds_of(wait),
        via=via,
        app_remote=app_remote,
        app_url=app_url,
        app_sdk=app_sdk,
        app_hardware=app_hardware,
        base=base,
    )
    if target == "oci" and not directory.exists():
        from deploytk.publish.targets.oci import preview_image, publish_image

        refuse_options(directory, "an image", request, options)
        if plan_only:
            show(preview_image(source, where), as_json, "show_release_plan")
        else:
            show(publish_image(source, where, Session.progress), as_json, "show_release")
        return
    bundle = bundle_of(directory, request, options)
    if plan_only:
        show(plan_release(bundle, find_target(target), where, Session.progress), as_json, "show_release_plan")
        return
    if target in ("openxlab", "modelscope") and has_app:
        from deploytk.preflight import PreflightOptions, preflight, require_passed

        require_passed(preflight(bundle.path, PreflightOptions(gpu=gpu), Session.progress))
    show(publish_bundle(bundle, find_target(target), where, Session.progress), as_json, "show_release")
    if app_url:
        from deploytk.preflight import await_app

        running = await_app(app_url, where.wait_s, Session.progress, preflight_passed=target != "huggingface")
        Session.progress.note(f"{running.url} serves {running.model}")


@commands.command("preflight", epilog="Example:  deploytk preflight ./bundle --gpu A10")
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

    options = PreflightOptions(start=start, gpu=gpu, python=python, within_s=seconds_of(within), with_network=network)
    found = preflight(source, options, Session.progress)
    show(found, as_json, "show_preflight")
    if not found.passed:
        raise typer.Exit(1)
