"""Stage 6: Bundle -> Release."""

from __future__ import annotations

from deploytk.base.progress import Progress
from deploytk.bundle import Bundle, verify_bundle
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.record import Release, keep_record, record_path
from deploytk.publish.secrets import refuse_secrets
from deploytk.publish.target import Target


def plan_release(bundle: Bundle, target: Target, options: PublishOptions, progress: Progress) -> ReleasePlan:
    """What `publish_bundle` would do; refuses what that would refuse before it sends anything."""
    verify_bundle(bundle, progress)
    refuse_secrets(bundle, progress)
    return target.preview(bundle, options)


def publish_bundle(bundle: Bundle, target: Target, options: PublishOptions, progress: Progress) -> Release:
    """Verify the bundle, look for secrets, publish, and keep a record beside the bundle.

    Raises BundleError when the bundle is not what its manifest says or holds a secret: then nothing was sent.
    """
    verify_bundle(bundle, progress)
    refuse_secrets(bundle, progress)
    release = target.publish(bundle, options, progress)
    try:
        keep_record(bundle, release)
    except OSError as error:  # what was published stays published
        progress.note(f"no record is kept: {record_path(bundle)} cannot be written: {error.strerror}")
    return release
