"""Puts an image into a Docker daemon: only the layers that it lacks, as they are read from disk."""

from __future__ import annotations

import hashlib
import json
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from deploytk.containers import Daemon, StoredImage, connected
from deploytk.errors import ImageError
from deploytk.image.config import LABELS
from deploytk.image.value import ImagePlan, Layer, SentLayer
from deploytk.progress import Advance, Progress

PARTIAL = f"{LABELS}partial-of"
"""The label of an image that only holds layers until those above them are there."""

STAGE_BYTES = 64 * 2**20
_AT_ONCE = 2  # one stage on its way, one being unpacked
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
        is_incremental = daemon.keeps_layers_apart()
        known = _known(daemon, plan) if is_incremental else 0
        try:
            _load(daemon, plan, _stages(plan, tag, known, is_incremental=is_incremental), progress)
        except ImageError as error:
            if not known or _MISSING not in str(error):
                raise
            progress.note("the daemon lost a layer: everything is sent again")
            known = 0
            _load(daemon, plan, _stages(plan, tag, known, is_incremental=True), progress)
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


def _load(daemon: Daemon, plan: ImagePlan, stages: Sequence[_Stage], progress: Progress) -> None:
    """While the daemon unpacks the layers of one stage, those of the next are on their way."""
    total = sum(layer.size for stage in stages for layer in stage.layers)
    failed = threading.Event()
    threads = ThreadPoolExecutor(_AT_ONCE)
    try:
        with progress.task("loading into Docker", total) as advance:

            def load(stage: _Stage, below: _Stage | None) -> None:
                try:
                    with connected() as own:
                        own.load(_archive(stage, below, failed, advance))
                except BaseException:
                    failed.set()
                    raise
                finally:
                    stage.sent.set()
                    stage.loaded.set()

            loads = [threads.submit(load, *pair) for pair in zip(stages, [None, *stages], strict=False)]
            for one in loads:
                one.result()
    finally:
        failed.set()  # after the last one nobody looks
        threads.shutdown(wait=False, cancel_futures=True)
    for image in daemon.images(f"{PARTIAL}={plan.image_id}"):
        daemon.remove_image(image.image_id)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Some layers, and the image that they are the top of."""

    layers: tuple[Layer, ...]
    below: tuple[Layer, ...]  # which the daemon has by the time it looks
    config: bytes
    tags: tuple[str, ...]
    sent: threading.Event = field(default_factory=threading.Event)
    loaded: threading.Event = field(default_factory=threading.Event)


def _stages(plan: ImagePlan, tag: str, known: int, *, is_incremental: bool) -> list[_Stage]:
    """The layers above the `known` lowest, in as many stages as are worth while.

    A daemon takes layers only as those of an image, so all but the last end in one without a name, which goes when all
    is there. What a killed run leaves of these is known to the next one.
    """
    ends, size = [known], 0
    for number, layer in enumerate(plan.layers[known:-1] if is_incremental else (), known + 1):
        size += layer.size
        if size >= STAGE_BYTES:
            ends.append(number)
            size = 0
    stages = [
        _Stage(plan.layers[first:end], plan.layers[:first], _partial_config(plan, end), ())
        for first, end in pairwise(ends)
    ]
    return [*stages, _Stage(plan.layers[ends[-1] :], plan.layers[: ends[-1]], plan.config, (tag,))]


def _partial_config(plan: ImagePlan, end: int) -> bytes:
    """Of an image with the layers up to `end`, labelled so that it is found again."""
    whole = json.loads(plan.config)
    whole["config"] = {"Labels": (whole["config"].get("Labels") or {}) | {PARTIAL: plan.image_id}}
    whole["rootfs"]["diff_ids"] = whole["rootfs"]["diff_ids"][:end]
    del whole["history"]
    return json.dumps(whole, sort_keys=True).encode()


def _archive(stage: _Stage, below: _Stage | None, failed: threading.Event, advance: Advance) -> Iterator[bytes]:
    """What `docker load` reads: layers first, then the config and the list of them all.

    The end is held back until the daemon has the layers `below`: it looks for them then.
    """

    def go_on() -> None:
        if failed.is_set():
            raise ImageError("another layer could not be loaded", hint="run again")

    if below:
        below.sent.wait()
    for layer in stage.layers:
        yield _member(_name(layer), layer.size)
        sent = 0
        for chunk in layer.read(0):
            go_on()
            sent += len(chunk)
            advance(len(chunk))
            yield chunk
        if sent != layer.size:
            raise ImageError(f"layer {layer.digest} has {sent} bytes, {layer.size} expected", hint="run again")
        yield bytes(-sent % tarfile.BLOCKSIZE)
    stage.sent.set()
    if below:
        below.loaded.wait()
    go_on()
    config_name = f"{hashlib.sha256(stage.config).hexdigest()}.json"
    names = [_name(layer) for layer in (*stage.below, *stage.layers)]
    listing = json.dumps([{"Config": config_name, "RepoTags": stage.tags or None, "Layers": names}]).encode()
    for name, content in ((config_name, stage.config), ("manifest.json", listing)):
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
