"""What is asked for -> the replica and its files; nothing is written or applied here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded
from deploytk.base.json import parse_plain
from deploytk.scale.contract import Replica, replica_of
from deploytk.scale.fit import misfits
from deploytk.scale.platforms import PLATFORMS, Platform
from deploytk.scale.ray.files import ray_warnings
from deploytk.scale.source import Source
from deploytk.scale.wishes import Wishes

_LARGEST_REPORT_BYTES = 256 * 2**20
_SCHEMA = "deploytk.report/1"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment as it would be."""

    replica: Replica
    wishes: Wishes
    files: Mapping[str, str]
    misfits: tuple[str, ...]  # why it would not run; there are no files then
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def prepared(source: Source, on: str, wishes: Wishes) -> Prepared:
    """The deployment of `source` on the platform called `on`; raises UsageError for what the platform cannot do."""
    platform = PLATFORMS[on]
    _check_image(source, platform, wishes)
    wishes = replace(wishes, digest=source.digest)
    replica = replica_of(source.manifest, wishes, source.image, source.weights)
    found = misfits(source.manifest, wishes)
    files = {} if found else platform.files(replica, wishes)
    warnings = ray_warnings(wishes) if on == "ray" else ()
    return Prepared(replica, wishes, files, found, warnings, platform.notes(replica, wishes))


def _check_image(source: Source, platform: Platform, wishes: Wishes) -> None:
    if platform.needs_image and source.image is None:
        hint = "push it to a registry, and add --image HOST/NAME:TAG"
        raise UsageError(f"{platform.title} runs an image from a registry, and none is named", hint=hint)
    has_place = wishes.claim or wishes.volume
    if "claim" not in platform.takes:
        return
    if source.weights == "mount" and not has_place:
        hint = "name what holds it: --claim NAME, or --volume HOST/NAME@sha256:..."
        raise UsageError("the bundle is not in this image (--weights mount)", hint=hint)
    if source.weights != "mount" and has_place:
        hint = "leave it out, or build the image with --weights mount"
        raise UsageError("the weights need no volume: the image has or fetches them", hint=hint)
    if wishes.claim and wishes.volume:
        raise UsageError("--claim and --volume both hold the bundle", hint="take one of them")


def measured_load_s(report: Path) -> float:
    """What a smoke test measured a start to take; raises UsageError for what is no report, or has no such figure."""
    hint = "make one with: deploytk smoke BUNDLE -o report.json"
    try:
        found = parse_plain(read_bounded(report, _LARGEST_REPORT_BYTES))
        if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
            raise ValueError("it has another schema")
        load_s = found["load_s"]
        if isinstance(load_s, bool) or not isinstance(load_s, int | float | None):
            raise ValueError("load_s is malformed")
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise UsageError(f"{report} is no report of a smoke test", hint=hint) from error
    if load_s is None or not 0 < load_s < 86_400:
        raise UsageError(f"{report} does not tell how long a start took: it is of a server that ran already", hint=hint)
    return float(load_s)
