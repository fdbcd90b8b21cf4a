"""Sends LFS objects by the protocol's basic transfer: each to the address that the server names, no login elsewhere.

Not by git-lfs: it sends to plain http where it is told to, follows redirects of uploads without end, and asks for a
login wherever one is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from deploytk.base.errors import DeployError, ReleaseError
from deploytk.base.net import describe, trusted
from deploytk.base.origin import Origin, origin_of
from deploytk.base.progress import Advance, Progress
from deploytk.base.retry import BUSY, retry_after_s
from deploytk.publish.targets.openxlab.git import Finished, Git
from deploytk.publish.targets.openxlab.lfs import JSON, batches
from deploytk.publish.targets.openxlab.tree import Entry

# A server may take long to check a large file.
TIMEOUT = httpx.Timeout(connect=30, read=300, write=60, pool=None)
_SMALL_AT_ONCE = 8
_LARGE_BYTES = 64 * 2**20
_BLOCK_BYTES = 2**20
_STALE = (400, 401, 403, 404, 410)  # of a storage whose address has run out: another one is asked for, once


@dataclass(frozen=True, slots=True)
class Action:
    """An address for one object, and what the request to it carries."""

    origin: Origin
    url: str
    headers: dict[str, str] = field(repr=False)  # a login for this object may be among them


def read_action(git: Git, value: object) -> Action:
    """What the server says of an object; raises ReleaseError unless it may be sent there, with what goes with it.

    Its own login goes to no other server: not ours, and not as a header in its answer either.
    """
    found = value if isinstance(value, dict) else {}
    url, given = found.get("href"), found.get("header") or {}
    origin = origin_of(url)
    if not origin or not origin.is_private or not isinstance(given, dict):
        raise ReleaseError(
            f"{git.host} wants objects to travel without encryption",
            hint="its administrator must set its external address (of LFS) to https",
        )
    headers = {str(name): str(text) for name, text in given.items()}
    if origin != git.origin and any(git.redact(text) != text for text in headers.values()):
        raise ReleaseError(
            f"{git.host} wants its login to be sent to {origin}",
            hint="tell its administrator: addresses of objects must come with a login of their own",
        )
    return Action(origin, str(url), headers)


def send_objects(git: Git, entries: Sequence[Entry], progress: Progress) -> None:
    """Send the LFS objects of `entries`; an interruption loses one large file or a few small ones at most."""
    unique = {entry.oid: entry for entry in entries if entry.oid and entry.source}
    marks = {oid: _mark(entry) for oid, entry in unique.items()}
    small = [entry for entry in unique.values() if entry.size < _LARGE_BYTES]
    large = [entry for entry in unique.values() if entry.size >= _LARGE_BYTES]
    with progress.task("sending", sum(entry.size for entry in unique.values())) as advance:
        for those, at_once in ((small, _SMALL_AT_ONCE), (large, 1)):
            _send_all(git, those, at_once, advance)
    for oid, entry in unique.items():
        if _mark(entry) != marks[oid]:
            raise _changed(entry)


def _send_all(git: Git, entries: Sequence[Entry], at_once: int, advance: Advance) -> None:
    by_oid = {str(entry.oid): entry for entry in entries}
    with _client(git) as client, ThreadPoolExecutor(at_once) as threads:
        for asked, answered in batches(git, "upload", entries):
            told = _by_oid(answered)
            sending = [threads.submit(_Upload(git, client, by_oid[oid], advance).run, told.get(oid)) for oid in asked]
            try:
                for done in sending:
                    done.result()
            finally:
                for waiting in sending:
                    waiting.cancel()


def _client(git: Git) -> httpx.Client:
    return httpx.Client(timeout=TIMEOUT, verify=trusted(), trust_env=not git.origin.is_loopback, follow_redirects=False)


def _by_oid(answered: Sequence[Any]) -> dict[str, dict[str, Any]]:
    return {str(item.get("oid")): item for item in answered if isinstance(item, dict)}


class _Upload:
    """One object on its way."""

    def __init__(self, git: Git, client: httpx.Client, entry: Entry, advance: Advance) -> None:
        self._git = git
        self._client = client
        self._entry = entry
        self._advance = advance
        self._shown = 0

    def run(self, told: dict[str, Any] | None) -> None:
        """Send it as the server says; asked anew after a failure, the server may have it, and says so."""
        retry = self._git.patience()
        is_stale = False
        while True:
            try:
                answer = self._attempt(told)
            except httpx.TransportError as error:
                self._refuse_short()
                retry.wait(f"does not answer: {describe(error)}")
            else:
                if answer is None:
                    return
                self._git.refuse_redirect(answer)
                if answer.status_code in BUSY:
                    asked_s = retry_after_s(answer.headers.get("Retry-After"))
                    retry.wait(f"answers {answer.status_code} to {self._entry.path}", asked_s)
                elif is_stale or answer.status_code not in _STALE:
                    raise self._refused(answer)
                else:
                    is_stale = True
            [(_, answered)] = batches(self._git, "upload", [self._entry])
            told = _by_oid(answered).get(str(self._entry.oid))

    def _attempt(self, told: dict[str, Any] | None) -> httpx.Response | None:
        """None when the server has it now; else the answer that says no."""
        actions = self._actions(told)
        if "upload" not in actions:
            self._show(self._entry.size)
            return None
        answer = self._put(read_action(self._git, actions["upload"]))
        if answer.is_success and "verify" in actions:
            answer = self._verify(read_action(self._git, actions["verify"]))
        return None if answer.is_success else answer

    def _actions(self, told: dict[str, Any] | None) -> dict[str, Any]:
        if told is None or "error" in told:
            said = (told or {}).get("error")
            why = str(said.get("message") if isinstance(said, dict) else "it does not say why")[:200]
            raise ReleaseError(
                f"{self._git.host} does not take {self._entry.path}: {self._git.redact(why)}",
                hint="see the message; then run again: what has arrived is not sent again",
            )
        actions = told.get("actions") or {}
        return actions if isinstance(actions, dict) else {}

    def _put(self, action: Action) -> httpx.Response:
        given = {name.lower() for name in action.headers}
        own = {"Content-Length": str(self._entry.size), "Content-Type": "application/octet-stream"}
        headers = {name: text for name, text in own.items() if name.lower() not in given} | action.headers
        return self._client.put(action.url, headers=headers, content=self._content(), auth=self._auth(action, given))

    def _verify(self, action: Action) -> httpx.Response:
        given = {name.lower() for name in action.headers}
        headers = {"Accept": JSON, "Content-Type": JSON} | action.headers
        body = {"oid": self._entry.oid, "size": self._entry.size}
        return self._client.post(action.url, headers=headers, json=body, auth=self._auth(action, given))

    def _auth(self, action: Action, given: set[str]) -> httpx.Auth:
        is_ours = action.origin == self._git.origin and "authorization" not in given
        return httpx.BasicAuth(*self._git.login) if is_ours else httpx.Auth()

    def _content(self) -> Iterator[bytes]:
        assert self._entry.source is not None  # noqa: S101 (it is an LFS object)
        done = 0
        with self._entry.source.open("rb", buffering=0) as file:
            while block := file.read(min(_BLOCK_BYTES, self._entry.size - done)):
                yield block
                done += len(block)
                self._show(done)

    def _show(self, done: int) -> None:
        if done > self._shown:
            self._advance(done - self._shown)
            self._shown = done

    def _refused(self, answer: httpx.Response) -> DeployError:
        origin = Origin.of(str(answer.request.url))
        if origin == self._git.origin:
            return self._git.error(Finished(1, b"", f"error: {answer.status_code} to {self._entry.path}"))
        return ReleaseError(
            f"{origin}, where {self._git.host} sends {self._entry.path}, answers {answer.status_code}",
            hint="run again; if it happens again, tell the administrator of the hub",
        )

    def _refuse_short(self) -> None:
        assert self._entry.source is not None  # noqa: S101 (it is an LFS object)
        if not self._entry.source.is_file() or self._entry.source.stat().st_size < self._entry.size:
            raise _changed(self._entry)


def _mark(entry: Entry) -> tuple[int, int, int]:
    assert entry.source is not None  # noqa: S101 (only LFS objects are marked)
    try:
        status = entry.source.stat()
    except OSError as error:
        raise _changed(entry) from error
    return status.st_size, status.st_mtime_ns, status.st_ino


def _changed(entry: Entry) -> ReleaseError:
    return ReleaseError(f"{entry.source} changed while it was sent", hint="package the model again, then publish")
