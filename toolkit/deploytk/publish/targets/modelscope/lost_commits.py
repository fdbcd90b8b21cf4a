"""Commits without an answer are looked for, and made a second time only when the hub has not got them."""

from __future__ import annotations

from collections.abc import Callable

from deploytk.base.errors import TryAgainError
from deploytk.base.retry import Retry
from deploytk.publish.targets.modelscope.signin import CommitLost

Listing = dict[str, str]
"""Path -> SHA-256 of the files that the hub has."""


def until_committed(
    step: Callable[[Listing | None], None], listing: Callable[[], Listing], patience: Callable[[], Retry]
) -> None:
    """`step` to its end, which makes commits; after one without an answer it is called again with what is there now.

    Raises TryAgainError when a commit that the hub may still be at does not show: once more would be the same work.
    """
    there: Listing | None = None
    while True:
        try:
            return step(there)
        except CommitLost as lost:  # noqa: PERF203 (it waits anyway)
            there = _look_for(lost, listing, patience())


def _look_for(lost: CommitLost, listing: Callable[[], Listing], retry: Retry) -> Listing:
    while True:
        there = listing()
        if all(there.get(path) == sha256 for path, sha256 in lost.digests.items()):
            return there
        try:
            retry.wait(str(lost))
        except TryAgainError:
            hint = "look at the repository in some minutes, then run again: what has arrived is not sent again"
            raise TryAgainError("ModelScope has not finished the commit", hint=hint) from lost
        if not lost.is_slow:  # the connection broke: if it has the commit, it shows it by now
            return listing()
