"""What the server really has: the branch at our commit, all of its content, every LFS object by samples."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from functools import partial
from typing import Any

from deploytk.base.errors import ReleaseError
from deploytk.base.readback import Remembered
from deploytk.publish.samples import Samples, Sent
from deploytk.publish.targets.openxlab.git import Git
from deploytk.publish.targets.openxlab.lfs import batches, is_whole
from deploytk.publish.targets.openxlab.lfs_upload import read_action
from deploytk.publish.targets.openxlab.tree import Entry


def default_branch(git: Git) -> tuple[str, str | None]:
    """The branch that a clone gets, and its commit; None when the repository is empty."""
    branch = "main"
    refs = {}
    for line in git.must("ls-remote", "--symref", "hub", "HEAD", "refs/heads/*").decode().splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: refs/heads/") and name == "HEAD":
            branch = value.removeprefix("ref: refs/heads/")
        else:
            refs[name] = value
    return branch, refs.get(f"refs/heads/{branch}")


def verify(git: Git, entries: Sequence[Entry], branch: str, commit: str) -> None:
    """Raises ReleaseError unless `branch`, which a clone gets, is at `commit` and the server hands out all of it."""
    found, head = default_branch(git)
    if (found, head) != (branch, commit):
        raise ReleaseError(
            f"{git.host} shows {found} at {head or 'no commit'}, not {branch} at {commit}, which it has just taken",
            hint="run again; if it stays so, somebody else pushes, or the server loses data",
        )
    remembered = Remembered(git.url)
    if commit not in remembered.load():
        _fetch_anew(git, branch, commit)
        remembered.add([commit])
    Samples(git.origin, git.patience).check(git.url, _handed_out(git, entries))


def _fetch_anew(git: Git, branch: str, commit: str) -> None:
    """All that a clone gets but LFS objects: git checks each by its id, and that none is missing."""
    place = git.work / "check.git"
    shutil.rmtree(place, ignore_errors=True)
    git.must("init", "--quiet", "--bare", str(place))
    inside = (f"--git-dir={place}",)
    git.must(*inside, "fetch", "--quiet", "--depth=1", "--no-tags", git.url, f"refs/heads/{branch}")
    found = git.must(*inside, "rev-parse", "FETCH_HEAD").decode().strip()
    git.must(*inside, "fsck", "--connectivity-only", "--no-dangling", found)
    if found != commit:
        raise ReleaseError(f"{git.host} hands out {found} as {branch}, not {commit}", hint="run again")


def _handed_out(git: Git, entries: Sequence[Entry]) -> list[Sent]:
    """Where each LFS object is handed out; raises ReleaseError when one is not there, or with another size.

    What a server says of where an object is may hold for a minute only; reading all samples back can take longer.
    """
    large = {entry.oid: entry for entry in entries if entry.oid}
    found = []
    for asked, answered in batches(git, "download", list(large.values())):
        items = {item["oid"]: item for item in answered if is_whole(git, asked, item)}
        missing = [oid for oid in asked if oid not in items]
        if missing:
            raise ReleaseError(
                f"{git.host} lost {large[missing[0]].path} ({len(missing)} LFS objects are not there)",
                hint="run again: they are sent again",
            )
        found += [_sent(git, large[oid], items[oid]) for oid in asked]
    return found


def _sent(git: Git, entry: Entry, item: dict[str, Any]) -> Sent:
    action = read_action(git, item["actions"]["download"])
    headers = dict(action.headers)
    if action.origin == git.origin and "authorization" not in {name.lower() for name in headers}:
        pair = base64.b64encode(":".join(git.login).encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    assert entry.source is not None  # noqa: S101 (LFS objects are files)
    anew = partial(_handed_out_now, git, entry)
    return Sent(entry.path, entry.source, entry.size, str(entry.oid), action.url, headers, anew)


def _handed_out_now(git: Git, entry: Entry) -> Sent:
    [sent] = _handed_out(git, [entry])
    return sent
