"""The command that builds a container image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploytk.cli.options import AsJson, Engine, GpuOption, Kv, MaxBatch, ModelOrBundle, Name, SessionLen, pairs_of
from deploytk.cli.session import Session, show
from deploytk.cli.source import bundle_of, bundle_options, plan_request

commands = typer.Typer()


@commands.command(
    epilog="Example:  deploytk build ./bundle -t my-model:1      or:  -t HOST/ME/my-model:1 --output registry"
)
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
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse a runtime other than that of BUNDLE.lock.json, as in a release.")
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
    from deploytk.image.value import BuildOptions, WeightsSource
    from deploytk.publish.release import fetchable_release

    mirrors = Session.settings.mirrors
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
        arguments={key: value for key, value in arguments.items() if value} | pairs_of(build_arg or []),
        uses_host_network=host_network,
        is_locked=locked,
    )
    request = plan_request(gpu, session_len, max_batch_size, kv, None, engine)
    bundle = bundle_of(source, request, bundle_options(source, name, None, None, "gradio", None, None))
    release = fetchable_release(bundle) if weights == "download" else None
    if release:
        endpoint = release.url.removesuffix(f"/{release.repo}")
        options = dataclasses.replace(options, weights_source=WeightsSource(endpoint, release.repo, release.revision))
    show(build_image(bundle, options, Session.progress), as_json, "show_image")
