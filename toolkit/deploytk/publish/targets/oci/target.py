"""The target: it is loaded by every publish, whatever its target, and the libraries of images only where it is it."""

from __future__ import annotations

from deploytk.base.errors import UsageError
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.record import Release
from deploytk.publish.target import About, AppRequest
from deploytk.publish.targets.oci.options import NAME, OciOptions


class Oci:
    about = About(NAME, "a container registry", options=OciOptions, takes=("mirror",), needs=("Docker",))
    app: AppRequest | None = None  # the image is the app

    def __init__(self, options: OciOptions = OciOptions()) -> None:  # noqa: B008 (it is frozen)
        self._own = options

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        """Which layers the registry lacks; the runtime image is built for that when it is missing."""
        from deploytk.publish.targets.oci.sending import preview_bundle

        return preview_bundle(bundle, self._own, options)

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Push the image: blobs side by side, the manifest last. An upload that was cut off goes on where it was."""
        from deploytk.publish.targets.oci.sending import send_bundle

        return send_bundle(bundle, self._own, options, progress)

    def has_sbom(self) -> bool:
        return not self._own.is_modelpack

    def preview_image(self, image: str, options: PublishOptions) -> ReleasePlan:
        """Which layers of the image the registry lacks."""
        from deploytk.publish.targets.oci.sending import preview_image

        self._require_bundle(image)
        return preview_image(image, options)

    def publish_image(self, image: str, options: PublishOptions, progress: Progress) -> Release:
        """Push an image of the Docker daemon, of an OCI layout or of another registry as it is, as `publish` does."""
        from deploytk.publish.targets.oci.sending import send_image

        self._require_bundle(image)
        return send_image(image, options, progress)

    def _require_bundle(self, image: str) -> None:
        if self._own.is_modelpack:
            raise UsageError(f"{image} is an image already", hint="--format modelpack takes a model or a bundle")
