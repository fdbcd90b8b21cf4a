"""Stage 6: Bundle -> Release."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from deploytk.base.progress import Progress
from deploytk.bundle import Bundle, HubCard, shown_on, take_over, verify_bundle
from deploytk.publish.edited import EditedError
from deploytk.publish.options import PublishOptions
from deploytk.publish.plan import ReleasePlan
from deploytk.publish.record import Release, keep_cards, keep_record, record_path
from deploytk.publish.secrets import refuse_secrets
from deploytk.publish.target import Target


def plan_release(bundle: Bundle, target: Target, options: PublishOptions, progress: Progress) -> ReleasePlan:
    """What `publish_bundle` would do; refuses what that would refuse before it sends anything."""
    with shown_on(bundle, _card(target, options)) as shown:
        verify_bundle(shown, progress)
        refuse_secrets(shown, progress)
        return target.preview(shown, options)


def publish_bundle(
    bundle: Bundle,
    target: Target,
    options: PublishOptions,
    progress: Progress,
    sign: Callable[[Bundle], Bundle] | None = None,
) -> Release:
    """Verify the bundle, look for secrets, give it the hub's cards, sign, publish, keep a record beside the bundle.

    Raises BundleError when the bundle is not what its manifest says or holds a secret, EditedError when somebody
    edited its cards where it goes and nobody said what becomes of that: then nothing was sent.
    """
    taken: set[str] = set()
    while True:
        try:
            signed, release = _publish(bundle, target, options, progress, sign)
            break
        except EditedError as error:
            if options.edited_card != "keep" or error.edits.foreign or error.repo in taken:  # edited again meanwhile
                raise
            taken.add(error.repo)
            bundle = take_over(bundle, error.edits.merged, progress, is_signed_anew=sign is not None)
    try:
        keep_record(bundle, signed, release)
    except OSError as error:  # what was published stays published
        progress.note(f"no record is kept: {record_path(bundle)} cannot be written: {error.strerror}")
    return release


def _publish(
    bundle: Bundle,
    target: Target,
    options: PublishOptions,
    progress: Progress,
    sign: Callable[[Bundle], Bundle] | None,
) -> tuple[Bundle, Release]:
    """What was published, in the form that the hub shows."""
    with shown_on(bundle, _card(target, options), will_be_signed=sign is not None) as shown:
        verify_bundle(shown, progress)
        refuse_secrets(shown, progress)
        signed = sign(shown) if sign else shown
        with contextlib.suppress(OSError):  # told of when it is written for good
            keep_cards(bundle, signed)
        return signed, target.publish(signed, options, progress)


def _card(target: Target, options: PublishOptions) -> HubCard | None:
    return target.about.card(options.repo) if target.about.card and options.repo else None
