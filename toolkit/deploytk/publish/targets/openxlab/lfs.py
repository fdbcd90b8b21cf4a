"""What a server says of LFS objects: which it has, and where the others go."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

import httpx

from deploytk.base.errors import ReleaseError
from deploytk.base.net import describe, trusted
from deploytk.publish.targets.openxlab.git import Finished, Git
from deploytk.publish.targets.openxlab.tree import Entry

ANSWER_WITHIN_S = 60.0
_BATCH = 100  # what git-lfs itself asks for at once
JSON = "application/vnd.git-lfs+json"


def present_objects(git: Git, entries: Collection[Entry]) -> set[str]:
    """The object ids among `entries` that the server would hand out, with the size that they must have."""
    found: set[str] = set()
    for asked, answered in batches(git, "download", entries):
        found |= {str(item["oid"]) for item in answered if is_whole(git, asked, item)}
    return found


def batches(
    git: Git, operation: Literal["download", "upload"], entries: Collection[Entry]
) -> Iterator[tuple[dict[str, int], list[Any]]]:
    """Sizes by object id that were asked for, and what the server says of them, in portions."""
    sizes = {entry.oid: entry.size for entry in entries if entry.oid}
    wanted = sorted(sizes)
    with _client(git) as client:
        for start in range(0, len(wanted), _BATCH):
            asked = {oid: sizes[oid] for oid in wanted[start : start + _BATCH]}
            yield asked, _ask(git, client, operation, asked)


def _client(git: Git) -> httpx.Client:
    return httpx.Client(
        auth=git.login,
        timeout=ANSWER_WITHIN_S,
        verify=trusted(),
        trust_env=not git.origin.is_loopback,
        follow_redirects=False,  # the login goes where it was meant to go
        headers={"Accept": JSON, "Content-Type": JSON},
    )


def _ask(git: Git, client: httpx.Client, operation: str, asked: dict[str, int]) -> list[Any]:
    answers: list[httpx.Response] = []
    objects = [{"oid": oid, "size": size} for oid, size in asked.items()]

    def attempt() -> Finished:
        body = {"operation": operation, "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
        try:
            answer = client.post(f"{git.lfs_url}/objects/batch", json=body)
        except httpx.TransportError as error:
            return Finished(1, b"", f"failed to connect: {describe(error)}")
        answers.append(answer)
        # A server that has none of the objects, or only what an earlier crash of its left of them, may say so for the
        # whole request: 404 and 422.
        return git.finished(answer, (200, 404, 422) if operation == "download" else (200,))

    git.retry(attempt)
    if answers[-1].status_code != 200:
        return []
    try:
        listed = answers[-1].json()["objects"]
        if not isinstance(listed, list):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise _no_list(git) from error
    return listed


def is_whole(git: Git, asked: dict[str, int], item: Any) -> bool:
    """Whether the server would hand the object out, with the size that it must have."""
    try:
        has_action = "error" not in item and "download" in (item.get("actions") or {})
        return bool(has_action and item["size"] == asked.get(item["oid"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_list(git) from error


def _no_list(git: Git) -> ReleaseError:
    return ReleaseError(
        f"{git.host} answers no list of LFS objects", hint="is it a git server with LFS? run again, or ask its owner"
    )
