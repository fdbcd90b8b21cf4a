"""Puts an image into a Docker daemon: only the layers that it lacks, as they are read from disk."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence

from deploytk.containers import Daemon, StoredImage, connected
from deploytk.errors import ImageError
from deploytk.image.config import LABELS
from deploytk.image.value import ImagePlan, Layer, SentLayer
from deploytk.progress import Advance, Progress

_MISSING = "no such file"


def load_image(plan: ImagePlan, tag: str, progress: Progress) -> tuple[tuple[SentLayer, ...], int]:
    """Load the image under `tag`; returns its layers and the bytes sent. Raises ImageError with what the daemon said.

    A daemon knows a layer by itself and all those below it. So what an earlier image begins with need not be sent:
    the archive names those layers without holding them (measured with Docker 20.10). The containerd image store wants
    every layer, and gets them.
    """
    with connected() as daemon:
        there = daemon.image(plan.image_id)
        if there and tag in there.tags:
            return _sent(plan, len(plan.layers)), 0
        known = _known(daemon, plan) if daemon.keeps_layers_apart() else 0
        try:
            _load(daemon, plan, tag, known, progress)
        except ImageError as error:
            if not known or _MISSING not in str(error):
                raise
            progress.note("the daemon lost a layer: everything is sent again")
            known = 0
            _load(daemon, plan, tag, known, progress)
        loaded = daemon.image(tag)
        if loaded is None or loaded.image_id != plan.image_id:
            found = loaded.image_id if loaded else "nothing"
            raise ImageError(f"the daemon made {found} of image {plan.image_id}", hint="look at the daemon's own log")
    sent = _sent(plan, known)
    return sent, sum(layer.size for layer in sent if not layer.reused)


def _known(daemon: Daemon, plan: ImagePlan) -> int:
    """How many layers, from the lowest on, an image of the daemon has in common with ours."""
    wanted = [layer.diff_id for layer in plan.layers]
    candidates: list[StoredImage] = list(daemon.images(f"{LABELS}set-digest"))
    base = _base_of(plan)
    found = daemon.image(base) if base else None
    return max((_common(wanted, image.diff_ids) for image in [*candidates, *([found] if found else [])]), default=0)


def _base_of(plan: ImagePlan) -> str | None:
    labels = json.loads(plan.config)["config"].get("Labels") or {}
    digest: str | None = labels.get("org.opencontainers.image.base.digest")
    return digest


def _common(wanted: Sequence[str], there: Sequence[str]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(wanted, there, strict=False)) if a != b), min(len(wanted), len(there))
    )


def _sent(plan: ImagePlan, known: int) -> tuple[SentLayer, ...]:
    return tuple(
        SentLayer(layer.digest, layer.size, layer.kind, number < known) for number, layer in enumerate(plan.layers)
    )


def _load(daemon: Daemon, plan: ImagePlan, tag: str, known: int, progress: Progress) -> None:
    total = sum(layer.size for layer in plan.layers[known:])
    with progress.task("loading into Docker", total) as advance:
        daemon.load(_archive(plan, tag, known, advance))


def _archive(plan: ImagePlan, tag: str, known: int, advance: Advance) -> Iterator[bytes]:
    """What `docker load` reads: layers first, then the config and the list of them all."""
    for layer in plan.layers[known:]:
        yield _member(_name(layer), layer.size)
        sent = 0
        for chunk in layer.read(0):
            sent += len(chunk)
            advance(len(chunk))
            yield chunk
        if sent != layer.size:
            raise ImageError(f"layer {layer.digest} has {sent} bytes, {layer.size} expected", hint="run again")
        yield bytes(-sent % tarfile.BLOCKSIZE)
    config_name = f"{plan.image_id.removeprefix('sha256:')}.json"
    names = [_name(layer) for layer in plan.layers]
    listing = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": names}]).encode()
    for name, content in ((config_name, plan.config), ("manifest.json", listing)):
        yield _member(name, len(content))
        yield content + bytes(-len(content) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _name(layer: Layer) -> str:
    return f"{layer.diff_id.removeprefix('sha256:')}/layer.tar"


def _member(name: str, size: int) -> bytes:
    """The head of a file in the archive."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)
