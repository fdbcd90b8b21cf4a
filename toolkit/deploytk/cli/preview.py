"""The command that runs an app here."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from deploytk.cli.options import AppKind, Engine, GpuOption, Kv, MaxBatch, ModelBundleOrImage, SessionLen, Template
from deploytk.cli.session import Session
from deploytk.cli.source import plan_request

commands = typer.Typer()


@commands.command(epilog="Example:  deploytk serve ./internlm-chat-7b-awq --engine cpu --port 7860")
def serve(
    source: ModelBundleOrImage,
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
    from deploytk.base.shipped import shipped
    from deploytk.bundle import SHIPPED_APP
    from deploytk.display import show_endpoint
    from deploytk.serve.local import ServeOptions, open_endpoint, wait_while_running

    request = plan_request(gpu, session_len, max_batch_size, kv, None, "auto")
    options = ServeOptions(engine=engine, host=host, port=port, app=app_kind, request=request, template=template)
    watched = ([template] if template else [shipped("templates"), SHIPPED_APP]) if reload else []
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            with open_endpoint(source, options, Session.progress) as endpoint:
                show_endpoint(endpoint)
                if open_browser:
                    typer.launch(endpoint.url)
                wait_while_running(endpoint, watched)
