"""Stage 5: Bundle -> Image."""

from __future__ import annotations

import time
from pathlib import Path

from deploytk.base.errors import ImageError, UsageError
from deploytk.base.files import write_text
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle, verify_bundle
from deploytk.image.compose import compose_of
from deploytk.image.config import plan_image
from deploytk.image.lock import drift_from, lock_of
from deploytk.image.reference import parse_tag
from deploytk.image.runtime import runtime_base
from deploytk.image.sbom import sbom_of
from deploytk.image.value import Base, BuildOptions, Image, ImagePlan, SentLayer

_LOCK, _SBOM = "lock.json", "sbom.cdx.json"


def build_image(bundle: Bundle, options: BuildOptions, progress: Progress) -> Image:
    """Put the bundle on its runtime image, and the result where `options.output` says.

    Weights go from disk to the output and through no builder. Beside the bundle stand afterwards what is in the image
    (NAME.sbom.cdx.json, NAME.lock.json) and how to run it (NAME.compose.yaml). Raises ImageError when a builder, daemon
    or registry refuses or the tag is of others, BundleError when the bundle is not what its manifest says.
    """
    parse_tag(options.tag)
    if options.output not in ("daemon", "registry") and not options.output.startswith("oci:"):
        raise UsageError(f"there is no output {options.output!r}", hint="take daemon, registry or oci:DIR")
    started = time.monotonic()
    verify_bundle(bundle, progress)
    if options.output == "registry" and not options.takes_over:
        from deploytk.image.registry.push import require_own_tag

        require_own_tag(options.tag, bundle.name)  # before a runtime is built for nothing
    base = runtime_base(bundle, options, progress)
    _look_for_drift(bundle, base, options, progress)
    plan = plan_image(bundle, base, options, progress)
    layers, sent_bytes = _send(plan, options, progress)
    _write_beside(bundle, base, options)
    seconds = time.monotonic() - started
    return Image(options.tag, plan.image_id, plan.digest, options.output, layers, sent_bytes, seconds)


def _look_for_drift(bundle: Bundle, base: Base, options: BuildOptions, progress: Progress) -> None:
    lock = bundle.beside(_LOCK)
    drift = drift_from(lock, bundle, base)
    if drift and options.is_locked:
        hint = "build with what it says, or without --locked to write it anew"
        raise ImageError(f"the runtime is not that of {lock}: {'; '.join(drift)}", hint=hint)
    if options.is_locked and not lock.is_file():
        raise ImageError(f"there is no {lock}", hint="build once without --locked, and keep that file with the bundle")
    for line in drift:
        progress.note(f"other than in {lock.name}: {line}")


def _send(plan: ImagePlan, options: BuildOptions, progress: Progress) -> tuple[tuple[SentLayer, ...], int]:
    if options.output == "daemon":
        from deploytk.image.docker.load import load_image

        return load_image(plan, options.tag, progress)
    if options.output == "registry":
        from deploytk.image.registry.push import push_image

        return push_image(plan, options.tag, progress, takes_over=options.takes_over)
    from deploytk.image.oci import write_layout

    directory = Path(options.output.removeprefix("oci:"))
    return write_layout(plan, directory, options.tag, progress)


def _write_beside(bundle: Bundle, base: Base, options: BuildOptions) -> None:
    files = {
        _SBOM: sbom_of(bundle, base).decode(),
        _LOCK: lock_of(bundle, base).decode(),
        "compose.yaml": compose_of(bundle, options),
    }
    for ending, text in files.items():
        path = bundle.beside(ending)
        try:
            write_text(path, text)
        except OSError as error:
            raise ImageError(f"{path} cannot be written: {error.strerror}", hint="the image itself is there") from error


def sbom_place(bundle: Bundle) -> Path:
    """Where what is in the image of a bundle is written down."""
    return bundle.beside(_SBOM)
