"""A container registry: the bundle's image, layer by layer, without Docker in between."""

from __future__ import annotations

from collections.abc import Iterator

from deploytk.bundle import Bundle
from deploytk.errors import UsageError
from deploytk.image.build import build_image
from deploytk.image.config import plan_image
from deploytk.image.reference import parse_reference
from deploytk.image.registry import missing_layers
from deploytk.image.runtime import runtime_base
from deploytk.image.value import BuildOptions
from deploytk.progress import Progress, Silent
from deploytk.release import Change, PublishOptions, Release, ReleasePlan


class Oci:
    name = "oci"

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        """Which layers the registry lacks; the runtime image is built for that when it is missing."""
        build = _build_options(options)
        base = runtime_base(bundle, build, Silent())
        plan = plan_image(bundle, base, build, Silent())
        missing, _ = missing_layers(plan, build.tag)
        absent = {layer.digest for layer in missing}

        def changes() -> Iterator[Change]:
            for layer in plan.layers:
                is_absent = layer.digest in absent
                yield Change(layer.digest, "new" if is_absent else "same", layer.size if is_absent else 0)

        found = tuple(changes())
        size = sum(change.bytes for change in found)
        return ReleasePlan(self.name, build.tag, None, found, size, "known when the registry is asked to write")

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Push the image: blobs side by side, the manifest last. An upload that was cut off goes on where it was."""
        image = build_image(bundle, _build_options(options), progress)
        reference = parse_reference(image.tag)
        sent = [layer for layer in image.layers if not layer.reused]
        return Release(
            target=self.name,
            repo=image.tag,
            revision=image.digest,
            url=f"{reference.host}/{reference.repository}@{image.digest}",
            uploaded_files=len(sent),
            uploaded_bytes=image.sent_bytes,
            unchanged_files=len(image.layers) - len(sent),
            verified=True,
            verified_by="asking for the manifest and every layer by digest",
            steps_left=(f"docker run --gpus all -p 127.0.0.1:7860:7860 {image.tag}",),
        )


def _build_options(options: PublishOptions) -> BuildOptions:
    if not options.repo:
        raise UsageError("the target oci needs --repo HOST/NAME:TAG", hint="for example --repo ghcr.io/me/my-model:1")
    parse_reference(options.repo)
    return BuildOptions(tag=options.repo, output="registry")
