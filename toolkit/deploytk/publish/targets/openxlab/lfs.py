"""The LFS side: which objects the server has, and sending the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import httpx

from deploytk.base.errors import ReleaseError
from deploytk.base.progress import Progress
from deploytk.publish.targets.openxlab.git import Finished, Git
from deploytk.publish.targets.openxlab.place import Place, is_loopback
from deploytk.publish.targets.openxlab.tree import Entry

_ANSWER_WITHIN_S = 60.0
_BATCH = 100  # what git-lfs itself asks for at once
_PER_COMMAND = 1000
_LARGE_BYTES = 64 * 2**20
_JSON = "application/vnd.git-lfs+json"


def present_objects(git: Git, place: Place, entries: Collection[Entry]) -> set[str]:
    """The object ids among `entries` that the server would hand out, with the size that they must have."""
    sizes = {entry.oid: entry.size for entry in entries if entry.oid}
    wanted = sorted(sizes)
    found: set[str] = set()
    with _client(place) as client:
        for start in range(0, len(wanted), _BATCH):
            objects = [{"oid": oid, "size": sizes[oid]} for oid in wanted[start : start + _BATCH]]
            found |= _ask(git, client, place, objects)
    return found & {oid for oid, _ in sizes.items()}


def _client(place: Place) -> httpx.Client:
    host = httpx.URL(place.url).host
    return httpx.Client(
        auth=(place.account.username, place.account.token),
        timeout=_ANSWER_WITHIN_S,
        trust_env=not is_loopback(host),
        headers={"Accept": _JSON, "Content-Type": _JSON},
    )


def _ask(git: Git, client: httpx.Client, place: Place, objects: list[dict[str, object]]) -> set[str]:
    answers: list[httpx.Response] = []

    def attempt() -> Finished:
        body = {"operation": "download", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
        try:
            answer = client.post(f"{place.url}/info/lfs/objects/batch", json=body)
        except httpx.TransportError as error:
            return Finished(1, b"", f"failed to connect: {type(error).__name__}")
        answers.append(answer)
        # A server that has none of the objects, or only what an earlier crash of its left of them, may say so for the
        # whole request: 404 and 422.
        return Finished(0 if answer.status_code in (200, 404, 422) else 1, b"", f"error: {answer.status_code}")

    git.retry(attempt)
    if answers[-1].status_code != 200:
        return set()
    try:
        listed = answers[-1].json()["objects"]
        sizes = {str(asked["oid"]): asked["size"] for asked in objects}
        return {
            str(item["oid"])
            for item in listed
            if "error" not in item and "download" in item.get("actions", {}) and item["size"] == sizes.get(item["oid"])
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(
            f"{git.host} answers no list of LFS objects",
            hint="is it a git server with LFS? run again, or ask its owner",
        ) from error


def send_objects(git: Git, entries: Sequence[Entry], progress: Progress) -> None:
    """Send the LFS objects of `entries`; an interruption loses one large file or a few small ones at most."""
    unique = {entry.oid: entry for entry in entries if entry.oid and entry.source}
    store = git.repository / "lfs" / "objects"
    for oid, entry in unique.items():
        link = store / oid[:2] / oid[2:4] / oid
        link.parent.mkdir(parents=True, exist_ok=True)
        assert entry.source is not None  # noqa: S101 (it was asked for above)
        link.symlink_to(entry.source.resolve())  # read through the link: nothing is copied
    marks = {oid: _mark(entry) for oid, entry in unique.items()}
    large = [oid for oid, entry in unique.items() if entry.size >= _LARGE_BYTES]
    small = [oid for oid, entry in unique.items() if entry.size < _LARGE_BYTES]
    with progress.task("sending", sum(entry.size for entry in unique.values())) as advance:
        for oids, at_once in ((small, 8), (large, 1)):
            for start in range(0, len(oids), _PER_COMMAND):
                _send(git, oids[start : start + _PER_COMMAND], at_once, advance)
    for oid, entry in unique.items():
        if _mark(entry) != marks[oid]:
            raise ReleaseError(
                f"{entry.source} changed while it was sent", hint="package the model again, then publish"
            )


def _send(git: Git, oids: list[str], at_once: int, advance: Callable[[int], None]) -> None:
    watched = git.work / f"sent-{time.monotonic_ns()}"
    sent: dict[str, int] = {}
    read = 0

    def look() -> None:
        nonlocal read
        if not watched.exists():
            return
        text = watched.read_text(encoding="utf-8", errors="replace")
        whole = text.rfind("\n") + 1
        for line in text[read:whole].splitlines():
            _, _, amount, name = (*line.split(" ", 3), "", "", "")[:4]
            done = amount.partition("/")[0]
            if done.isdigit() and int(done) > sent.get(name, 0):
                advance(int(done) - sent.get(name, 0))
                sent[name] = int(done)
        read = whole

    git.retry(
        lambda: git.run(
            "git-lfs", "push", "--object-id", "hub", *oids,
            options=(f"lfs.concurrenttransfers={at_once}", f"lfs.{git.url}/info/lfs.access=basic"),
            watched=watched, look=look,
        )
    )  # fmt: skip


def _mark(entry: Entry) -> tuple[int, int, int]:
    assert entry.source is not None  # noqa: S101 (only LFS objects are marked)
    try:
        status = entry.source.stat()
    except OSError as error:
        raise ReleaseError(
            f"{entry.source} went away while it was sent", hint="package the model again, then publish"
        ) from error
    return status.st_size, status.st_mtime_ns, status.st_ino
