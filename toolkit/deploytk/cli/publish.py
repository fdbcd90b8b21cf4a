"""The command that puts a bundle on a hub: its general options, and those that the chosen target declares."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from deploytk.cli.command import command, spread
from deploytk.cli.defaults import settings_for
from deploytk.cli.options import AppKind, ModelBundleOrImage, Packaging, Planning, Sign
from deploytk.cli.quantize import MethodChoice, quantized
from deploytk.cli.session import Session, show, unused
from deploytk.cli.signing import sign_at, signed, signer_of
from deploytk.cli.source import bundle_of, refuse_packaging
from deploytk.publish.obstacles import Obstacle, obstacles_in, refuse
from deploytk.publish.options import NoOptions, Option, PublishOptions

if TYPE_CHECKING:
    from deploytk.bundle import Bundle
    from deploytk.publish.target import Target, TargetClass


@dataclass(frozen=True, slots=True)
class Where:
    """What every target takes, if it means something there."""

    repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="The repository: OWNER/NAME, DIR, or HOST/NAME:TAG.")
    ] = None
    public: Annotated[bool, typer.Option("--public", help="Visible to everybody; private by default.")] = False
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Delete files of others that lie there; they stay by default.")
    ] = False
    edited_card: Annotated[
        Literal["keep", "replace"] | None,
        typer.Option(metavar="keep|replace", help="A card that was edited there: into the bundle too, or gone."),
    ] = None
    plan: Annotated[bool, typer.Option("--plan", help="Show what would change, change nothing.")] = False
    sign: Sign = None

    def options(self) -> PublishOptions:
        choice = self.edited_card or "refuse"
        return PublishOptions(self.repo, is_private=not self.public, is_mirror=self.mirror, edited_card=choice)


@dataclass(frozen=True, slots=True)
class Making:
    """What is made of a model before it is published."""

    app_kind: Annotated[AppKind, typer.Option("--app-kind", help="The app that is generated.")] = "gradio"
    quantize: Annotated[
        MethodChoice | None,
        typer.Option(metavar="awq|autoround", help="Make 4 bits of it first, as the command quantize does."),
    ] = None
    calib: Annotated[
        str | None, typer.Option(metavar="FILE|DIR|none", help="With --quantize: texts to calibrate with.")
    ] = None
    max_ppl_increase: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="With --quantize: more ends with 3, and publishes nothing.")
    ] = None

    def model_of(self, source: Path, packaging: Packaging) -> Path:
        """`source`, or with --quantize what is made of it: once, in a place that the next run finds again."""
        if self.quantize is None:
            unused("calib", "max_ppl_increase", because="--quantize makes 4 bits, and it is not given")
            return source
        return quantized(source, self.quantize, self.calib, self.max_ppl_increase, packaging)


def _known_later() -> Mapping[str, Any]:
    """The options of all targets, for deploytk.toml."""
    from deploytk.publish.target import loadable_targets

    fields: dict[str, Any] = {}
    for target in loadable_targets():
        hints = get_type_hints(target.about.options, include_extras=True)
        for field in dataclasses.fields(target.about.options):
            fields.setdefault(field.name, (field.name, hints[field.name], dataclasses.field(default=None)))
    return {"own": dataclasses.make_dataclass("OfAllTargets", fields.values(), frozen=True)}


@command("deploytk publish ./workspace_hfmerge --target NAME --repo me/internlm-chat-7b", known_later=_known_later)
def publish(
    source: ModelBundleOrImage,
    target: Annotated[str, typer.Option(metavar="NAME", help="Where to publish.")],
    where: Where,
    own: NoOptions,  # those of the target: see `adapt`
    others: NoOptions,
    packaging: Packaging,
    planning: Planning,
    making: Making,
) -> None:
    """Put a model, bundle or image on a hub in one atomic step, and verify what arrived."""
    place = _target(target, own, others)
    directory = Path(source)
    if not directory.exists() and _takes_images(place):
        _publish_image(source, place, where)
        return
    where = _named(place, where, directory, packaging)
    directory = making.model_of(directory, packaging)
    bundle = bundle_of(directory, planning.request(), packaging, making.app_kind, is_signed_anew=bool(where.sign))
    _publish_bundle(bundle, place, where, planning.gpu)


def adapt(command: Any, parent: typer.Context, arguments: Sequence[str]) -> None:
    """Give the command, which is one of `parent`, the options of the target that `arguments` name, else deploytk.toml.

    Those of other targets are taken to be refused in words, and not shown.
    """
    from deploytk.publish.target import loadable_targets

    classes = {found.about.name: found for found in loadable_targets()}
    _become(command, NoOptions, classes)
    with command.make_context("publish", [*arguments], parent=parent, resilient_parsing=True) as context:
        given = context.params
    chosen = given.get("target") or settings_for(given.get("source")).commands.get("publish", {}).get("target")
    if chosen in classes:
        _become(command, classes[chosen].about.options, classes)


def _become(command: Any, own: type, classes: Mapping[str, TargetClass]) -> None:
    from deploytk.publish.target import installed_targets

    names = ", ".join(installed_targets())
    hint = f"Where to publish: {names}. With --help: the options of that target too."
    target = Annotated[str, typer.Option(metavar="NAME", help=hint)]
    app = typer.Typer(add_completion=False)
    app.command()(spread(publish.function, target=target, own=own, others=_others(own, classes)))
    made = typer.main.get_command(app)
    command.params, command.callback = made.params, made.callback


def _others(own: type, classes: Mapping[str, TargetClass]) -> type:
    """The options that other targets have and this one has not, each only to be named when it is given."""
    mine = {field.name for field in dataclasses.fields(own)}
    found: dict[str, list[str]] = {}
    kinds: dict[str, Any] = {}
    for name, target in classes.items():
        for field in dataclasses.fields(target.about.options):
            if field.name not in mine:
                found.setdefault(field.name, []).append(name)
                kinds.setdefault(field.name, field.default is False)
    fields = [
        (
            name,
            Annotated[bool if kinds[name] else str | None, Option(help=", ".join(targets), is_hidden=True)],
            dataclasses.field(default=False if kinds[name] else None),
        )
        for name, targets in found.items()
    ]
    return dataclasses.make_dataclass("Others", fields, frozen=True)


def _target(name: str, own: object, others: object) -> Target:
    """The target with its own options; raises UsageError for those on the command line that it has not."""
    from deploytk.publish.options import declared
    from deploytk.publish.target import target_class

    found = target_class(name)
    for option, declaration in declared(type(others)).items():
        unused(option, because=f"it is an option of {declaration.help}, not of {name}")
    if "public" not in found.about.takes:
        unused("public", because=f"{found.about.title} has no private and public")
    if "mirror" not in found.about.takes:
        unused("mirror", because=f"there are no files of others in {found.about.title}")
    if "edited_card" not in found.about.takes:
        unused("edited_card", because=f"nobody edits a card in {found.about.title}")
    return found(own)


def _named(place: Target, where: Where, source: Path, packaging: Packaging) -> Where:
    """`where` with a repository: as it was given, or as it is proposed and a person at the terminal wants it.

    Raises one error that tells of all that is missing, and of the whole command to run then.
    """
    from deploytk.base.credentials import can_ask
    from deploytk.publish.proposal import Proposing

    if not isinstance(place, Proposing):
        return where
    found = place.propose(_usual_name(source, packaging), where.repo)
    if where.repo or can_ask():
        refuse(found.missing)
        repo = where.repo or typer.prompt("Repository", default=found.repo if found.is_whole else None, err=True)
        return dataclasses.replace(where, repo=found.repo if where.repo else repo)
    command = shlex.join(["deploytk", *sys.argv[1:], "--repo", found.repo])
    what = f"no repository of {place.about.title} is named, {found.repo} is proposed"
    unnamed = Obstacle(what, f"add --repo {found.repo}", exit_code=2)
    refuse([unnamed, *found.missing], then=f"{'then ' if found.missing else ''}run: {command}")
    return where


def _usual_name(source: Path, packaging: Packaging) -> str:
    """What the repository is called when nobody says it: as the deployment, its base model or its directory."""
    from deploytk.bundle import described_bundle, is_bundle

    if is_bundle(source):
        return described_bundle(source).name
    return packaging.name or (packaging.base_model or source.resolve().name).rpartition("/")[2]


def _takes_images(place: Target) -> bool:
    from deploytk.publish.target import ImageTarget

    return isinstance(place, ImageTarget)


def _publish_image(image: str, place: Any, where: Where) -> None:
    others = ("template", "trust_bundle", "trust_remote_code", "allow_pickle", "quantize", "calib", "max_ppl_increase")
    refuse_packaging(f"{image} is an image", *others)
    unused(*Session.given.keys() & {"base"}, because=f"{image} is an image already")
    signer = signer_of(where.sign)
    if where.plan:
        found = place.preview_image(image, where.options())
        show(found, "show_release_plan")
        refuse(found.obstacles)
    else:
        release = place.publish_image(image, where.options(), Session.progress)
        if signer:
            sign_at(release.url, signer)
        show(release, "show_release", leave_out=("app_files",))


def _publish_bundle(bundle: Bundle, place: Target, where: Where, gpu: str | None) -> None:
    from deploytk.bundle import with_signature
    from deploytk.publish.release import plan_release, publish_bundle
    from deploytk.publish.target import ImageTarget

    app, signer = place.app, signer_of(where.sign)
    if where.plan:
        found = plan_release(bundle, place, where.options(), Session.progress)
        stopped = obstacles_in(lambda: _preflight(bundle, place, gpu))
        found = dataclasses.replace(found, obstacles=(*found.obstacles, *stopped))
        show(found, "show_release_plan")
        refuse(found.obstacles)
        return
    _preflight(bundle, place, gpu)
    sign = (lambda shown: signed(shown, signer)) if signer else None
    release = publish_bundle(bundle, place, where.options(), Session.progress, sign)
    if signer and isinstance(place, ImageTarget):
        sign_at(release.url, signer, with_signature(bundle), has_sbom=place.has_sbom())
    show(release, "show_release", leave_out=("app_files",))
    if app and app.url:
        from deploytk.preflight import await_app

        running = await_app(app.url, app.wait_s, Session.progress, preflight_passed=app.is_preflighted)
        Session.progress.note(f"{running.url} serves {running.model}")


def _preflight(bundle: Bundle, place: Target, gpu: str | None) -> None:
    """Raises EndpointError when the hub would start the app as it is, and could not."""
    if not place.app or not place.app.is_preflighted:
        return
    from deploytk.preflight import PreflightOptions, preflight, require_passed

    # `bundle_of` has looked at app and code.
    wanted = PreflightOptions(gpu=gpu, platform=place.about.platform, trusts_bundle=True, trusts_code=True)
    require_passed(preflight(bundle.path, wanted, Session.progress))
