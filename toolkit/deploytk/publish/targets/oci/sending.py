"""What goes to a registry: the bundle's image layer by layer, an artifact of its model, or an image that is there."""

from __future__ import annotations

from deploytk.base.errors import UsageError
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle
from deploytk.image.base import runnable_image
from deploytk.image.build import build_image
from deploytk.image.config import finished, plan_image
from deploytk.image.modelpack import plan_artifact
from deploytk.image.reference import parse_reference
from deploytk.image.registry.push import missing_layers, push_image
from deploytk.image.registry.tag import TAKE_OVER
from deploytk.image.runtime import runtime_base
from deploytk.image.value import BuildOptions, ImagePlan, SentLayer
from deploytk.publish.obstacles import Obstacle
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import Change, ReleasePlan
from deploytk.publish.record import Release
from deploytk.publish.targets.oci.options import NAME, OciOptions

_RUN = "docker run --gpus all -p 127.0.0.1:7860:7860 {tag}"
_PULL = "oras pull {tag}, kit unpack {tag} or docker model pull {tag}: the files of the model, without an app"


def preview_bundle(bundle: Bundle, own: OciOptions, options: PublishOptions) -> ReleasePlan:
    if own.is_modelpack:
        return _preview(plan_artifact(bundle), options)
    build = _build(own, options)
    return _preview(plan_image(bundle, runtime_base(bundle, build, Silent()), build, Silent()), options)


def send_bundle(bundle: Bundle, own: OciOptions, options: PublishOptions, progress: Progress) -> Release:
    if own.is_modelpack:
        plan = plan_artifact(bundle)
        layers, sent_bytes = push_image(plan, _repo(options), progress, takes_over=options.is_mirror)
        return _release(_repo(options), plan.digest, layers, sent_bytes, _PULL)
    image = build_image(bundle, _build(own, options), progress)
    return _release(image.tag, image.digest, image.layers, image.sent_bytes)


def preview_image(image: str, options: PublishOptions) -> ReleasePlan:
    return _preview(_plan(image, Silent()), options)


def send_image(image: str, options: PublishOptions, progress: Progress) -> Release:
    repo = _repo(options)
    plan = _plan(image, progress)
    layers, sent_bytes = push_image(plan, repo, progress, takes_over=options.is_mirror)
    return _release(repo, plan.digest, layers, sent_bytes)


def _build(own: OciOptions, options: PublishOptions) -> BuildOptions:
    return BuildOptions(tag=_repo(options), output="registry", base=own.base, takes_over=options.is_mirror)


def _plan(image: str, progress: Progress) -> ImagePlan:
    base = runnable_image(image, progress)
    return finished(base.layers, base.config)


def _preview(plan: ImagePlan, options: PublishOptions) -> ReleasePlan:
    tag = _repo(options)
    missing, foreign = missing_layers(plan, tag)
    absent = {layer.digest for layer in missing}
    changes = tuple(
        Change(layer.digest, "new", layer.size) if layer.digest in absent else Change(layer.digest, "same", 0)
        for layer in plan.layers
    )
    size = sum(change.bytes for change in changes)
    permissions = "known when the registry is asked to write"
    if foreign and options.is_mirror:
        changes = (*changes, Change(f"{tag}: {foreign}", "deleted", 0))
    stopped = (Obstacle(f"{tag} names {foreign}, which stays", TAKE_OVER),) if foreign and not options.is_mirror else ()
    return ReleasePlan(NAME, tag, None, changes, size, permissions, obstacles=stopped)


def _release(tag: str, digest: str, layers: tuple[SentLayer, ...], sent_bytes: int, step: str = _RUN) -> Release:
    reference = parse_reference(tag)
    sent = sum(not layer.reused for layer in layers)
    return Release(
        target=NAME,
        repo=tag,
        revision=digest,
        url=f"{reference.host}/{reference.repository}@{digest}",
        uploaded_files=sent,
        uploaded_bytes=sent_bytes,
        unchanged_files=len(layers) - sent,
        verified=True,
        verified_by="asking for the manifest and every layer by digest",
        steps_left=(step.format(tag=tag),),
    )


def _repo(options: PublishOptions) -> str:
    if not options.repo:
        raise UsageError("the target oci needs --repo HOST/NAME:TAG", hint="for example --repo ghcr.io/me/my-model:1")
    parse_reference(options.repo)
    return options.repo
