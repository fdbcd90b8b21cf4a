"""The command that builds a container image."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploytk.cli.command import command
from deploytk.cli.options import App, Engine, ModelOrBundle, Packaging, Planning, RequireSignature, Sign, pairs_of
from deploytk.cli.session import Session, show, unused
from deploytk.cli.signing import require_signed, sign_built, signed, signer_of
from deploytk.cli.source import bundle_of

if TYPE_CHECKING:
    from deploytk.bundle import Bundle
    from deploytk.image.value import BuildOptions


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the image goes, and under which name."""

    tag: Annotated[str, typer.Option("--tag", "-t", metavar="TAG", help="NAME:TAG, or HOST/NAME:TAG for a registry.")]
    output: Annotated[str, typer.Option(metavar="daemon|registry|oci:DIR", help="Where the image goes.")] = "daemon"
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Take the tag over in a registry, also from an image of others.")
    ] = False
    sign: Sign = None


@dataclass(frozen=True, slots=True)
class Weights:
    """How the weights get into a container, and who must have signed them."""

    weights: Annotated[
        Literal["layers", "mount", "download"], typer.Option(help="In the image, mounted, or fetched at start.")
    ] = "layers"
    require_signature: RequireSignature = None


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the bundle is put on, and how that is made where it is missing."""

    base: Annotated[
        str | None, typer.Option(metavar="IMAGE|oci:DIR", help="A runtime image to use as it is; built by default.")
    ] = None
    variant: Annotated[
        Literal["official", "pip"], typer.Option(help="On LMDeploy's own image, or LMDeploy by pip on NVIDIA's.")
    ] = "official"
    build_arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the Dockerfile, such as BASE_IMAGE=...")
    ] = None
    ca_cert: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Trusted while installing; PIP_CERT, SSL_CERT_FILE by default."),
    ] = None
    wheels: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Wheels that pip takes before the index.")
    ] = None
    offline: Annotated[bool, typer.Option("--offline", help="Ask no index: --wheels has everything.")] = False
    host_network: Annotated[
        bool, typer.Option("--host-network", help="Install over this machine's network: for a proxy or mirror on it.")
    ] = False
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse a runtime other than that of BUNDLE.lock.json, as in a release.")
    ] = False

    def refuse_unused(self) -> None:
        if self.base:
            making = ("variant", "build_arg", "ca_cert", "wheels", "offline", "host_network")
            unused(*making, because=f"{self.base} is used as it is", hint="leave it out, or --base")
        if self.wheels is None:
            unused("offline", because="without --wheels there is nothing to install from", hint="add --wheels DIR")

    def arguments(self) -> dict[str, str]:
        """Of the Dockerfile: the mirrors of deploytk.toml, and what was given."""
        mirrors = Session.settings.mirrors
        found = {"PIP_INDEX_URL": mirrors.address("pip"), "APT_MIRROR": mirrors.address("apt")}
        return {name: value for name, value in found.items() if value} | pairs_of(self.build_arg or [])


@command("deploytk build ./bundle -t my-model:1      or:  -t HOST/ME/my-model:1 --output registry")
def build(
    source: ModelOrBundle,
    destination: Destination,
    runtime: Runtime,
    packaging: Packaging,
    planning: Planning,
    weights: Weights,
    app: App = "gradio",
    engine: Engine = "auto",
) -> None:
    """Build a container image; weights go from disk to where it is wanted, through no builder."""
    from deploytk.image.build import build_image

    runtime.refuse_unused()
    if destination.output != "registry":
        unused("mirror", because="a tag of others is kept in a registry alone")
    require_signed(source, weights.require_signature)
    signer = signer_of(destination.sign)
    planning = planning.on_cpu() if engine == "cpu" else planning
    bundle = bundle_of(source, planning.request(engine), packaging, app, "app", "engine", is_signed_anew=bool(signer))
    options = _options(destination, runtime, weights.weights)
    if not runtime.base:
        _refuse_what_no_runtime_takes(bundle, options, pairs_of(runtime.build_arg or []))
    if weights.weights == "download":
        from deploytk.publish.record import fetchable_source

        options = dataclasses.replace(options, weights_source=fetchable_source(bundle))
    bundle = signed(bundle, signer)
    image = build_image(bundle, options, Session.progress)
    if signer:
        sign_built(image, bundle, signer, weights.weights)
    show(image, "show_image")


def _options(
    destination: Destination, runtime: Runtime, weights: Literal["layers", "mount", "download"]
) -> BuildOptions:
    from deploytk.image.value import BuildOptions

    return BuildOptions(
        tag=destination.tag,
        output=destination.output,
        takes_over=destination.mirror,
        weights=weights,
        base=runtime.base,
        ca_certificate=runtime.ca_cert,
        wheels=runtime.wheels,
        is_offline=runtime.offline,
        variant=runtime.variant,
        arguments=runtime.arguments(),
        uses_host_network=runtime.host_network,
        is_locked=runtime.locked,
    )


def _refuse_what_no_runtime_takes(bundle: Bundle, options: BuildOptions, given: dict[str, str]) -> None:
    """Raises UsageError for a variant that makes no difference for this bundle, and for an argument without an ARG."""
    from deploytk.image.runtime import recipe_for

    recipe = recipe_for(bundle, options)
    other: Literal["official", "pip"] = "pip" if options.variant == "official" else "official"
    if recipe_for(bundle, dataclasses.replace(options, variant=other)) == recipe:
        unused("variant", because=f"what this bundle runs on is made by {recipe.dockerfile} in any case")
    for name, value in given.items():
        if not recipe.takes(name, value):
            unused("build_arg", because=f"{recipe.dockerfile} takes no {name} from outside")
