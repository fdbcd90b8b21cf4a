"""Puts an image into a Docker daemon: only the layers that it lacks, as they are read from disk."""

from __future__ import annotations

import json
import re
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

from deploytk.base.errors import ImageError
from deploytk.base.progress import Advance, Progress
from deploytk.image.config import LABELS, content_digest
from deploytk.image.docker import Daemon, connected
from deploytk.image.media_types import INDEX_TYPES, MANIFEST_TYPE
from deploytk.image.oci import LAYOUT, LAYOUT_CONTENT
from deploytk.image.reference import parse_tag
from deploytk.image.value import ImagePlan, Layer, SentLayer

PARTIAL = f"{LABELS}partial-of"
"""The label of an image that only holds layers until those above them are there."""

STAGE_BYTES = 64 * 2**20
_AT_ONCE = 2  # one stage on its way, one being unpacked
_MISSING = re.compile(r"no such file|not found")


def load_image(plan: ImagePlan, tag: str, progress: Progress) -> tuple[tuple[SentLayer, ...], int]:
    """Load the image under `tag`; returns its layers and the bytes sent. Raises ImageError with what the daemon said.

    What the daemon has of it is not sent: the archive only names those layers.
    """
    with connected("without Docker take --output oci:DIR or --output registry") as daemon:
        if _is_there(daemon, plan, tag):
            return _sent(plan, frozenset(layer.digest for layer in plan.layers)), 0
        is_stacked = daemon.stacks_layers()
        known = _known(daemon, plan, is_stacked=is_stacked)
        try:
            _load(daemon, plan, _stages(plan, tag, known, is_stacked=is_stacked), progress)
        except ImageError as error:
            if not known or not _MISSING.search(str(error)):
                raise
            progress.note("the daemon lost a layer: everything is sent again")
            known = frozenset()
            _load(daemon, plan, _stages(plan, tag, known, is_stacked=is_stacked), progress)
        if not _is_there(daemon, plan, tag):
            raise ImageError(f"the daemon has no image {plan.image_id} now", hint="look at the daemon's own log")
    sent = _sent(plan, known)
    return sent, sum(layer.size for layer in sent if not layer.reused)


def _is_there(daemon: Daemon, plan: ImagePlan, tag: str) -> bool:
    """The classic image store names an image by its config, containerd's by its manifest."""
    found = daemon.image(tag)
    return found is not None and found.image_id in (plan.image_id, plan.digest)


def _known(daemon: Daemon, plan: ImagePlan, *, is_stacked: bool) -> frozenset[str]:
    """The layers that need not be sent, by what the daemon's images consist of.

    The classic store knows a layer by itself and all those below it, so it has what an image begins with (measured
    with Docker 20.10). That of containerd knows it by its digest alone, but keeps it as it came: for certain only
    those of our own images have the very bytes (measured with Docker 26.1).
    """
    ours = list(daemon.images(f"{LABELS}set-digest"))
    if not is_stacked:
        return frozenset(diff_id for image in ours for diff_id in image.diff_ids)
    base = daemon.image(_base_of(plan))
    wanted = [layer.diff_id for layer in plan.layers]
    common = max((_common(wanted, image.diff_ids) for image in [*ours, *([base] if base else [])]), default=0)
    return frozenset(wanted[:common])


def _base_of(plan: ImagePlan) -> str:
    digest: str = json.loads(plan.config)["config"]["Labels"]["org.opencontainers.image.base.digest"]
    return digest


def _common(wanted: Sequence[str], there: Sequence[str]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(wanted, there, strict=False)) if a != b), min(len(wanted), len(there))
    )


def _sent(plan: ImagePlan, known: frozenset[str]) -> tuple[SentLayer, ...]:
    return tuple(SentLayer(layer.digest, layer.size, layer.kind, layer.diff_id in known) for layer in plan.layers)


def _load(daemon: Daemon, plan: ImagePlan, stages: Sequence[_Stage], progress: Progress) -> None:
    """While the daemon unpacks the layers of one stage, those of the next are on their way."""
    total = sum(layer.size for stage in stages for layer in stage.sent)
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
                    stage.is_sent.set()
                    stage.is_loaded.set()

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
    """An image that a daemon takes at once: ours, or one that ends on the way to it."""

    layers: tuple[Layer, ...]
    sent: tuple[Layer, ...]  # of these, what the daemon does not have by the time it looks
    config: bytes
    manifest: bytes | None = None  # of ours alone
    tag: str | None = None
    is_sent: threading.Event = field(default_factory=threading.Event)
    is_loaded: threading.Event = field(default_factory=threading.Event)


def _stages(plan: ImagePlan, tag: str, known: frozenset[str], *, is_stacked: bool) -> list[_Stage]:
    """What is not `known`, in as many stages as are worth while.

    A daemon takes layers only as those of an image, so all stages but the last end in one without a name, which goes
    when all is there. What a killed run leaves of these is known to the next one.
    """
    missing = [number for number, layer in enumerate(plan.layers) if layer.diff_id not in known]
    ends, size = [0], 0
    for number in missing[:-1] if is_stacked else ():
        size += plan.layers[number].size
        if size >= STAGE_BYTES:
            ends.append(number + 1)
            size = 0

    def sent(first: int, end: int) -> tuple[Layer, ...]:
        return tuple(plan.layers[number] for number in missing if first <= number < end)

    partial = [_Stage(plan.layers[:end], sent(first, end), _partial_config(plan, end)) for first, end in pairwise(ends)]
    return [*partial, _Stage(plan.layers, sent(ends[-1], len(plan.layers)), plan.config, plan.manifest, tag)]


def _partial_config(plan: ImagePlan, end: int) -> bytes:
    """Of an image with the layers up to `end`, labelled so that it is found again."""
    whole = json.loads(plan.config)
    whole["config"] = {"Labels": (whole["config"].get("Labels") or {}) | {PARTIAL: plan.image_id}}
    whole["rootfs"]["diff_ids"] = whole["rootfs"]["diff_ids"][:end]
    del whole["history"]
    return json.dumps(whole, sort_keys=True).encode()


def _archive(stage: _Stage, below: _Stage | None, failed: threading.Event, advance: Advance) -> Iterator[bytes]:
    """What `docker load` reads: layers, then the config, the manifest, and the lists of what there is.

    The end is held back until the daemon has the stage `below`: it looks for its layers then. manifest.json is for the
    classic image store, index.json for that of containerd.
    """

    def go_on() -> None:
        if failed.is_set():
            raise ImageError("another layer could not be loaded", hint="run again")

    if below:
        below.is_sent.wait()
    for layer in stage.sent:
        yield _member(_blob(layer.digest), layer.size)
        sent = 0
        for chunk in layer.read(0):
            go_on()
            sent += len(chunk)
            advance(len(chunk))
            yield chunk
        if sent != layer.size:
            raise ImageError(f"layer {layer.digest} has {sent} bytes, {layer.size} expected", hint="run again")
        yield bytes(-sent % tarfile.BLOCKSIZE)
    stage.is_sent.set()
    if below:
        below.is_loaded.wait()
    go_on()
    for name, content in _lists(stage).items():
        yield _member(name, len(content))
        yield content + bytes(-len(content) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _lists(stage: _Stage) -> dict[str, bytes]:
    """Everything of an image but its layers, by the names of the files in an archive."""
    config = content_digest(stage.config)
    names = [_blob(layer.digest) for layer in stage.layers]
    listed = {"Config": _blob(config), "RepoTags": [stage.tag] if stage.tag else None, "Layers": names}
    files = {_blob(config): stage.config, "manifest.json": json.dumps([listed]).encode()}
    if stage.manifest and stage.tag:
        digest = content_digest(stage.manifest)
        entry = {"mediaType": MANIFEST_TYPE, "digest": digest, "size": len(stage.manifest)}
        entry |= {"annotations": {"io.containerd.image.name": str(parse_tag(stage.tag))}}
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [entry]}
        files |= {_blob(digest): stage.manifest, "index.json": json.dumps(index).encode(), LAYOUT: LAYOUT_CONTENT}
    return files


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _member(name: str, size: int) -> bytes:
    """The head of a file in the archive."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)
