"""Sends files to a repository of ModelScope, from a tree of links that holds nothing else."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelscope_hub import HubApi, errors
from modelscope_hub.constants import MODEL_LFS_SUFFIX, UPLOAD_LFS_FORCE_THRESHOLD_BYTES

from deploytk.base.digests import hash_files
from deploytk.base.errors import ReleaseError
from deploytk.base.progress import Advance, Progress

_BRANCH = "master"
_AT_ONCE = 100  # blobs that are asked about together
_THREADS = 4
_REASONS = (
    (errors.AuthenticationError, re.compile(r"AuthenticationError|\[401\]")),
    (errors.PermissionDeniedError, re.compile(r"PermissionDeniedError|\[403\]")),
    (errors.QuotaExceededError, re.compile(r"QuotaExceededError")),
    (errors.NetworkError, re.compile(r"connect|timed? ?out|network|ServerError|\[(5\d\d|429)\]", re.IGNORECASE)),
)


def site(api: HubApi) -> str:
    return str(api.legacy.endpoint).rstrip("/")


def of_the_hub(path: str) -> bool:
    """Whether the hub itself makes that file with a repository."""
    return path in (".gitattributes", "configuration.json")


def send_files(
    api: HubApi, repo: str, repo_type: str, paths: Mapping[str, Path], message: str, progress: Progress
) -> None:
    """Upload these files under these names: what is large first, seen by nobody, then all in one commit.

    The client would commit what it could when a file fails, and with it a deploytk.json that names the others: it
    gets to commit only when every large file is there. Its memory of earlier uploads lies outside and goes away.
    """
    if not paths:
        return
    before = {path: _mark(path) for path in paths.values()}
    _send_blobs(
        api, repo, repo_type, [path for name, path in paths.items() if _is_large(name, before[path][0])], progress
    )
    for path, mark in before.items():
        if _mark(path) != mark:
            raise ReleaseError(f"{path} changed while it was sent", hint="package the model again, then publish")
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        staging = Path(directory) / "files"
        for name, path in paths.items():
            link = staging / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        # It prints a report on stdout, which is for our value alone, and says why a file failed in its log only.
        with contextlib.redirect_stdout(io.StringIO()), _reasons():
            api.upload_folder(
                repo,
                repo_type,
                staging,
                commit_message=message,
                revision=_BRANCH,
                disable_tqdm=True,
                tracker_path=Path(directory) / "tracker",
            )


def _is_large(name: str, size: int) -> bool:
    """Whether the client sends the file apart from the commit; one too many does no harm."""
    return size > UPLOAD_LFS_FORCE_THRESHOLD_BYTES or Path(name).suffix.lower() in MODEL_LFS_SUFFIX


def _send_blobs(api: HubApi, repo: str, repo_type: str, paths: Sequence[Path], progress: Progress) -> None:
    """Send what the hub has not of these contents."""
    sizes = {path: path.stat().st_size for path in paths}
    digests = hash_files(paths, "checking", progress)
    unique = {digests[path]: path for path in paths}
    wanted = sorted(unique)
    with progress.task("sending", sum(sizes[path] for path in unique.values())) as advance:
        for start in range(0, len(wanted), _AT_ONCE):
            oids = wanted[start : start + _AT_ONCE]
            objects = [{"oid": oid, "size": sizes[unique[oid]]} for oid in oids]
            addresses = api.legacy.validate_blobs(repo, repo_type, objects)
            sending = [(unique[oid], str(addresses[oid])) for oid in oids if addresses.get(oid)]
            advance(sum(sizes[unique[oid]] for oid in oids if not addresses.get(oid)))
            with ThreadPoolExecutor(_THREADS) as threads:
                for done in [threads.submit(_send_blob, api, path, address, advance) for path, address in sending]:
                    done.result()


def _send_blob(api: HubApi, path: Path, address: str, advance: Advance) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        api.legacy.upload_blob(address, file, size)
    advance(size)


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Raise, for files that failed, what the client has in its log only: its own error names no reason."""
    said = _Lines()
    log = logging.getLogger("modelscope_hub")
    was = log.handlers, log.propagate
    log.handlers, log.propagate = [said], False
    try:
        yield
    except (errors.StorageError, RuntimeError) as error:  # the latter for commits that fail
        reason = said.lines[-1] if said.lines else str(error)
        kind = next((kind for kind, sign in _REASONS if sign.search(reason)), errors.StorageError)
        raise kind(reason) from error
    finally:
        log.handlers, log.propagate = was


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(" ".join(record.getMessage().split()))


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
