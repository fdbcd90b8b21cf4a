"""The command that puts a bundle on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploytk.cli.command import command
from deploytk.cli.options import AppKind, ModelBundleOrImage, Packaging, Planning, seconds_of
from deploytk.cli.session import Session, show
from deploytk.cli.source import bundle_of, refuse_packaging

if TYPE_CHECKING:
    from deploytk.bundle import Bundle
    from deploytk.publish.release import PublishOptions


@dataclass(frozen=True, slots=True)
class Publishing:
    """Where to, and how."""

    repo: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="The repository; local: a directory; oci: HOST/NAME:TAG."),
    ] = None
    public: Annotated[bool, typer.Option("--public", help="Visible to everybody; private by default.")] = False
    with_app: Annotated[bool, typer.Option("--app", help="Create or update the hub's app as well.")] = False
    via: Annotated[
        Literal["git", "sdk"], typer.Option("--via", help="openxlab: sdk is the hub's own package, for flat bundles.")
    ] = "git"
    app_remote: Annotated[
        str | None, typer.Option(metavar="URL", help="openxlab: the git repository to push the app to.")
    ] = None
    app_url: Annotated[
        str | None, typer.Option(metavar="URL", help="openxlab: where the app runs, once you have created it.")
    ] = None
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE|oci:DIR", help="oci: a runtime image to use; built by default.")
    ] = None
    app_sdk: Annotated[
        Literal["docker", "gradio"],
        typer.Option(help="huggingface: what runs the Space; gradio needs LMDeploy 0.10 or later."),
    ] = "docker"
    app_hardware: Annotated[
        str | None, typer.Option(metavar="NAME", help="huggingface: what the Space runs on, such as t4-small.")
    ] = None
    wait: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for the app: 90s, 30m, 1h.")] = "30m"

    def options(self) -> PublishOptions:
        from deploytk.publish.release import PublishOptions

        return PublishOptions(
            repo=self.repo,
            is_private=not self.public,
            with_app=self.with_app or any((self.app_remote, self.app_url, self.app_hardware, self.app_sdk != "docker")),
            wait_s=seconds_of(self.wait),
            via=self.via,
            app_remote=self.app_remote,
            app_url=self.app_url,
            app_sdk=self.app_sdk,
            app_hardware=self.app_hardware,
            base=self.base,
        )


@command("deploytk publish ./workspace_hfmerge --target openxlab --repo me/internlm-chat-7b")
def publish(
    source: ModelBundleOrImage,
    target: Annotated[
        Literal["local", "huggingface", "openxlab", "modelscope", "oci"], typer.Option(help="Where to publish.")
    ],
    publishing: Publishing,
    packaging: Packaging,
    planning: Planning,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would change, change nothing.")] = False,
    app_kind: Annotated[AppKind, typer.Option("--app-kind", help="The app that is generated.")] = "gradio",
) -> None:
    """Put a model, bundle or image on a hub in one atomic step, and verify what arrived."""
    directory = Path(source)
    where = publishing.options()
    if target == "oci" and not directory.exists():
        refuse_packaging(f"{source} is an image")
        _publish_image(source, where, plan_only=plan_only)
        return
    bundle = bundle_of(directory, planning.request(), packaging.options(directory, app_kind))
    if plan_only:
        from deploytk.publish.release import find_target, plan_release

        show(plan_release(bundle, find_target(target), where, Session.progress), "show_release_plan")
        return
    _publish_bundle(bundle, target, where, planning.gpu)


def _publish_image(image: str, where: PublishOptions, *, plan_only: bool) -> None:
    from deploytk.publish.targets.oci import preview_image, publish_image

    if plan_only:
        show(preview_image(image, where), "show_release_plan")
    else:
        show(publish_image(image, where, Session.progress), "show_release")


def _publish_bundle(bundle: Bundle, target: str, where: PublishOptions, gpu: str | None) -> None:
    from deploytk.publish.release import find_target, publish_bundle

    if target in ("openxlab", "modelscope") and where.with_app:
        from deploytk.preflight import PreflightOptions, preflight, require_passed

        require_passed(preflight(bundle.path, PreflightOptions(gpu=gpu), Session.progress))
    show(publish_bundle(bundle, find_target(target), where, Session.progress), "show_release")
    if where.app_url:
        from deploytk.preflight import await_app

        running = await_app(where.app_url, where.wait_s, Session.progress, preflight_passed=target != "huggingface")
        Session.progress.note(f"{running.url} serves {running.model}")
