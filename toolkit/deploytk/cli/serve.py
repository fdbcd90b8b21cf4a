"""The command that runs an app here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from deploytk.base.errors import UsageError
from deploytk.base.terminal import quoted
from deploytk.cli.command import command
from deploytk.cli.options import App, Contents, Engine, ModelBundleOrImage, Planning, Template, Trust
from deploytk.cli.session import Session, show, unused
from deploytk.cli.signing import require_signed_source
from deploytk.cli.source import planning_for, refuse_template, source_kind, trusts, trusts_code

_WITH_AN_APP = {"image": "an image", "bundle": "a bundle"}


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the app is reached."""

    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for everybody.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 7860
    open: Annotated[bool, typer.Option("--open", help="Open the chat page in a browser.")] = False


@dataclass(frozen=True, slots=True)
class Rendering:
    """The templates of the app that is rendered for a model directory."""

    template: Template = None
    reload: Annotated[bool, typer.Option("--reload", help="Start again whenever a template changes.")] = False

    def watched(self) -> list[Path]:
        from deploytk.base.shipped import shipped
        from deploytk.bundle import SHIPPED_APP

        if not self.reload:
            return []
        return [self.template] if self.template else [shipped("templates"), SHIPPED_APP]


@command("deploytk serve ./internlm-chat-7b-awq --engine cpu --port 7860")
def serve(
    source: ModelBundleOrImage,
    listening: Listening,
    planning: Planning,
    rendering: Rendering,
    trust: Trust,
    contents: Contents,
    engine: Engine = "auto",
    app: App = "gradio",
) -> None:
    """Run the very app that would be published, here; Ctrl-C stops it."""
    from deploytk.serve import ServeOptions, open_endpoint, wait_while_running

    _refuse_unused(source, rendering.template)
    require_signed_source(source, contents.require_signature)
    planning = planning_for(source, planning, engine)
    options = ServeOptions(
        engine=engine,
        host=listening.host,
        port=listening.port,
        app=app,
        request=planning.request_here(trusts_code=trusts_code(source, trust.trust_remote_code, engine)),
        template=rendering.template,
        trusts_bundle=trusts(source, trust.trust_bundle),
        allows_pickles=contents.allow_pickle,
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            with open_endpoint(source, options, Session.progress) as endpoint:
                show(endpoint, "show_endpoint", leave_out=("is_running", "golden", "served"))
                if listening.open:
                    typer.launch(endpoint.url)
                wait_while_running(endpoint, rendering.watched())


def _refuse_unused(source: str, template: Path | None) -> None:
    kind = source_kind(source)
    if kind == "url":
        raise UsageError(
            f"{source} is running already", hint=f"open it in a browser, or measure it: deploytk smoke {quoted(source)}"
        )
    if kind in _WITH_AN_APP:
        unused("app", "reload", because=f"{source} is {_WITH_AN_APP[kind]}, with an app of its own")
    refuse_template_of(source, template)


def refuse_template_of(source: str, template: Path | None) -> None:
    """Raises UsageError for --template where nothing is rendered."""
    kind = source_kind(source)
    if kind in ("image", "url"):
        unused("template", because=f"{source} is {_WITH_AN_APP.get(kind, 'a running server')}, with an app of its own")
    if kind == "bundle":
        refuse_template(template)
