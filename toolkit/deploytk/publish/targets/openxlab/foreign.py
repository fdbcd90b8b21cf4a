"""What lies in the repository and is not in the release: which of it goes, and what of it is in LFS."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from deploytk.bundle import MANIFEST
from deploytk.publish.superseded import Named, named_in
from deploytk.publish.targets.openxlab.git import Git

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")


@dataclass(frozen=True, slots=True)
class Extra:
    """What is there, by what its deploytk.json names."""

    deleted: frozenset[str]
    pointers: tuple[str, ...]  # files of others that LFS has: .gitattributes must go on saying so
    named: Named
    facts: Named  # size and SHA-256 of what is there, LFS objects by their pointers


def sort_extra(git: Git, blobs: Mapping[str, str], wanted: Collection[str], *, is_mirror: bool) -> Extra:
    """Of the files `blobs`, path -> git object id, those that are not wanted: what was ours and is unchanged goes."""
    extra = {path: oid for path, oid in blobs.items() if path not in wanted}
    contents = _contents(git, blobs.values())
    named = named_in(contents.get(blobs.get(MANIFEST, ""), b""))
    facts = {path: _facts(contents[oid]) for path, oid in blobs.items() if oid in contents}
    deleted = frozenset(path for path in extra if is_mirror or (path in facts and named.get(path) == facts[path]))
    kept = [path for path, oid in extra.items() if path not in deleted and _POINTER.fullmatch(contents.get(oid, b""))]
    return Extra(deleted, tuple(sorted(kept)), named, facts)


def small_files(git: Git, blobs: Mapping[str, str]) -> Callable[[str], bytes | None]:
    """Reads a file of the tree `blobs`, path -> git object id, that was fetched with it."""
    return lambda path: _contents(git, {blobs[path]}).get(blobs[path]) if path in blobs else None


def _facts(content: bytes) -> tuple[int, str]:
    """Size and SHA-256 of a file, by its LFS pointer where it is one."""
    pointer = _POINTER.fullmatch(content)
    if pointer:
        return int(pointer[2]), pointer[1].decode()
    return len(content), hashlib.sha256(content).hexdigest()


def _contents(git: Git, oids: Collection[str]) -> dict[str, bytes]:
    """The blobs that were fetched: none above a MiB, and no larger one comes now. Larger ones of ours are in LFS."""
    listing = git.must("cat-file", "--batch-all-objects", "--batch-check").decode().splitlines()
    here = [line.split()[0] for line in listing if line.split()[1] == "blob"]
    wanted = sorted(set(here) & set(oids))
    return read_blobs(lambda asked: git.must("cat-file", "--batch", stdin=asked), wanted)


def read_blobs(batch: Callable[[bytes], bytes], oids: Collection[str]) -> dict[str, bytes]:
    """Git object id -> content, of blobs that are there: one `git cat-file --batch` for all."""
    answer = batch("".join(f"{oid}\n" for oid in oids).encode()) if oids else b""
    found, at = {}, 0
    for oid in oids:
        end = answer.index(b"\n", at)
        size = int(answer[at:end].split()[2])
        found[oid] = answer[end + 1 : end + 1 + size]
        at = end + 1 + size + 1
    return found
