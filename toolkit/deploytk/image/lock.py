"""`deploytk.lock`: what an image is made of, and whether the next one still is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploytk import __version__
from deploytk.base.errors import ImageError
from deploytk.bundle import Bundle
from deploytk.image.layers import GROUP_BYTES, MOST_LAYERS, SHARD_BYTES
from deploytk.image.sbom import to_bytes
from deploytk.image.value import RUNTIME, Base

_FORMAT = 1
_MOST_SHOWN = 5


def lock_of(bundle: Bundle, base: Base) -> bytes:
    """`deploytk.lock`: all that an image is made of, by digest and version, so that it can be made again."""
    content = {
        "format": _FORMAT,
        "deploytk": __version__,
        "base": {"name": base.reference, "image_id": base.image_id},
        "lmdeploy": bundle.manifest.plan.lmdeploy,
        "packages": dict(sorted(set(base.packages))),
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "files": {file.path: file.sha256 for file in bundle.files},
        "layers": {"shard_bytes": SHARD_BYTES, "group_bytes": GROUP_BYTES, "most": MOST_LAYERS, "tar": "pax"},
    }
    return to_bytes(content)


def drift_from(lock: Path, bundle: Bundle, base: Base) -> tuple[str, ...]:
    """How the environment differs from that in the file `lock`, a line for each; nothing when there is no such file.

    Bundles may change from build to build; base, LMDeploy and packages are not expected to. Packages are compared where
    they are known: not of a base that was never read. Raises ImageError for what is no lock file.
    """
    try:
        before = json.loads(lock.read_text(encoding="utf-8"))
        environment, packages = _environment(before), dict(before["packages"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{lock} is no lock file", hint="remove it: the build writes it anew") from error
    now = json.loads(lock_of(bundle, base))
    drift = _differences(environment, _environment(now))
    if packages and now["packages"]:
        drift += _differences(packages, now["packages"])
    more = len(drift) - _MOST_SHOWN
    return (*drift[:_MOST_SHOWN], f"{more} more") if more > 0 else tuple(drift)


def _environment(lock: dict[str, Any]) -> dict[str, object]:
    """A runtime of ours is known by what it is made from; made again it has another image ID."""
    base = lock["base"]
    is_ours = str(base["name"]).startswith(f"{RUNTIME}:")
    return {"base": base["name"] if is_ours else base["image_id"], "LMDeploy": lock["lmdeploy"]}


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"{name} was {before.get(name, 'not there')}, is {now.get(name, 'not there')}" for name in names]
