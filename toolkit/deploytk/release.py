"""Stage 6: Bundle -> Release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from deploytk.bundle import Bundle
from deploytk.progress import Progress


@dataclass(frozen=True, slots=True)
class Change:
    """What publishing would do to one file of the repository."""

    path: str
    status: Literal["new", "changed", "same", "deleted"]
    bytes: int  # to be sent; 0 for same and deleted


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """What `publish --plan` shows; nothing has been changed."""

    target: str
    repo: str
    is_private: bool | None  # None where the target has no such notion
    changes: tuple[Change, ...]
    upload_bytes: int
    permissions: str  # what the credentials found may do, in words; never the credentials


@dataclass(frozen=True, slots=True)
class Release:
    """Where a bundle went, and how that was verified."""

    target: str
    repo: str
    revision: str
    url: str
    uploaded_files: int
    uploaded_bytes: int
    unchanged_files: int
    verified: str  # how: "sha256 read back", "LFS object ids", ...
    steps_left: tuple[str, ...]  # what only a person can do, one sentence each


@dataclass(frozen=True, slots=True)
class PublishOptions:
    repo: str | None = None  # OWNER/NAME, or a directory for the target `local`; each target has a default
    is_private: bool = True
    with_app: bool = False
    wait_s: float = 0.0  # how long to wait for the app to run


class Target(Protocol):
    """A place that turns a bundle into a release."""

    name: str

    def preview(self, bundle: Bundle, options: PublishOptions) -> ReleasePlan:
        """What `publish` would do; changes nothing."""
        ...

    def publish(self, bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
        """Upload, make visible in one step, verify; raises ReleaseError when refused, TryAgainError when busy.

        Run again after any interruption it ends in the same remote state as without.
        """
        ...
