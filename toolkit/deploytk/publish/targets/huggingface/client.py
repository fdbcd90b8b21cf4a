"""huggingface_hub, wrapped: time limits, bounded retries, its errors in words, no telemetry."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils.tqdm import disable_progress_bars

from deploytk.base.bound import keep_at_home
from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.net import trusted
from deploytk.base.origin import origin_of
from deploytk.base.progress import Progress
from deploytk.base.retry import BUSY, Retry, RetryPolicy
from deploytk.publish.superseded import LARGEST_MANIFEST_BYTES
from deploytk.publish.targets.huggingface.place import Hub
from deploytk.publish.targets.huggingface.refusals import (
    FAILURES,
    asked_wait_s,
    busy,
    in_words,
    is_slow,
    is_transient,
    status_of,
    wait_s,
)
from deploytk.publish.targets.huggingface.uploads import Addition

PATIENCE_S = 120.0
"""How long a hub that does not answer is asked again."""

_STALLED_S = 120.0  # nothing sent or received; the client itself would wait for ever
_COMMITTED_S = (
    0.3  # more of that, for each file of a commit: hubs answer when all are in git, slow ones take 0.1 s each
)
_LONGEST_PAUSE_S = 8.0
_MUCH_BYTES = 16 * 2**20  # more than waits in the buffers of a connection that is dead

Result = TypeVar("Result")


class MovedError(Exception):
    """The commit was not taken, or its answer was lost; the hub asks to wait `wait_s` before the next look.

    `is_slow`: it has the commit, and has not answered in time.
    """

    def __init__(self, why: str, wait_s: float, *, is_slow: bool) -> None:
        super().__init__()
        self.why, self.wait_s, self.is_slow = why, wait_s, is_slow


@dataclass(frozen=True, slots=True)
class Head:
    """A repository as it is."""

    commit: str | None
    is_private: bool
    host: str | None = None  # where a Space's app answers


@dataclass(frozen=True, slots=True)
class RemoteFile:
    size: int
    sha256: str | None  # of a large file (LFS, xet)
    blob: str | None  # git's object id of a small one


class Client:
    def __init__(self, hub: Hub, progress: Progress, patience_s: float = PATIENCE_S) -> None:
        self.hub = hub
        self.progress = progress
        self.patience_s = patience_s
        self._said: set[tuple[int, float | None]] = set()  # which refusals a person has read of
        _quiet()
        session = type(huggingface_hub.get_session())  # httpx or httpx2, by its version
        # On loopback no proxy can be meant.
        huggingface_hub.set_client_factory(
            lambda: session(
                follow_redirects=True,
                timeout=_STALLED_S,
                verify=trusted(),
                trust_env=not hub.is_loopback,
                event_hooks={"request": [self._keep_at_home], "response": [self._note_busy]},
            )
        )
        self.api = _Api(endpoint=hub.endpoint, token=hub.token)

    def _keep_at_home(self, request: Any) -> None:
        """The client sends the token to whatever address the hub names for "verify", a next page or a redirect."""
        keep_at_home(str(request.url), request.headers, self.hub.origin)

    def _note_busy(self, answer: Any) -> None:
        """Says at once that a server is busy: the client would wait as it is told, up to 16 minutes, without a word.

        How long it is waited for is ours to say, with the request as a whole (`ask`). Short pauses are left to the
        client, which sends a part of a file again where all of it would be.
        """
        asked_s = asked_wait_s(answer.headers) if answer.status_code in BUSY else None
        if asked_s is not None and asked_s > _LONGEST_PAUSE_S:
            raise HfHubHTTPError(f"answers {answer.status_code}", response=answer)
        if answer.status_code in BUSY and (answer.status_code, asked_s) not in self._said:
            self._said.add((answer.status_code, asked_s))
            when = f"in {asked_s:.0f} s" if asked_s else "in a moment"
            self.progress.note(f"{answer.request.url.host} answers {answer.status_code}: asked again {when}")

    def retry(self) -> Retry:
        """For one thing that is asked of the hub, its failures and the pauses between them."""
        policy = RetryPolicy(attempts=1000, total_s=self.patience_s, longest_s=_LONGEST_PAUSE_S)
        return Retry(policy, self.hub.host, self.progress.note)

    def not_now(self, problem: str, asked_s: float) -> TryAgainError:
        """The hub asks for more time than its patience."""
        return self.retry().over(problem, asked_s)

    def account(self) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            account = self.api.whoami()
            return {**account, "name": str(account["name"])}

        return self.ask(read, "who you are")

    def head(self, repo: str, kind: str = "model") -> Head | None:
        """None when there is no such repository, or none that the token may see."""
        try:
            info = self.ask(lambda: self.api.repo_info(repo, repo_type=kind), repo, passing=(404,))
        except HfHubHTTPError:
            return None
        return Head(info.sha, bool(info.private), getattr(info, "host", None))

    def listing(self, repo: str, revision: str = "main", kind: str = "model") -> dict[str, RemoteFile]:
        def read() -> dict[str, RemoteFile]:
            entries = self.api.list_repo_tree(repo, recursive=True, revision=revision, repo_type=kind)
            return {
                entry.path: RemoteFile(
                    entry.lfs.size if entry.lfs else entry.size,
                    entry.lfs.sha256 if entry.lfs else None,
                    None if entry.lfs else entry.blob_id,
                )
                for entry in entries
                if isinstance(entry, RepoFile)
            }

        return self.ask(read, repo)

    def read(self, repo: str, path: str, kind: str) -> bytes | None:
        """A small file as the hub hands it out now; None when it has none, or one that is too large to be small."""
        prefix = "" if kind == "model" else f"{kind}s/"
        url = f"{self.hub.endpoint}/{prefix}{repo}/resolve/main/{quote(path)}"

        def get() -> bytes | None:
            headers = {"Authorization": f"Bearer {self.hub.token}"}
            with huggingface_hub.get_session().stream("GET", url, headers=headers) as answer:
                if answer.status_code in BUSY:
                    answer.raise_for_status()
                content = b""
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > LARGEST_MANIFEST_BYTES:
                        return None
                return content if answer.status_code == 200 else None

        return self.ask(get, path)

    def choose_storage(self, repo: str, kind: str) -> bool:
        """Whether uploads go by xet. The client knows no way back from xet where a mirror has none: asked here, once.

        Source: huggingface/huggingface_hub#4507.
        """
        if constants.HF_HUB_DISABLE_XET or self.hub.is_official:
            return not constants.HF_HUB_DISABLE_XET
        url = f"{self.hub.endpoint}/api/{kind}s/{repo}/xet-write-token/main"

        def probe() -> int:
            headers = {"Authorization": f"Bearer {self.hub.token}"}
            answer = huggingface_hub.get_session().get(url, headers=headers)
            if answer.status_code in BUSY:
                answer.raise_for_status()
            # Where others could read what is sent there, it is none.
            storage = origin_of(answer.headers.get("X-Xet-Cas-Url"))
            return int(answer.status_code) if storage is None or storage.is_private else 0

        has_xet = self.ask(probe, repo) == 200
        if not has_xet:
            constants.HF_HUB_DISABLE_XET = True  # what HF_HUB_DISABLE_XET=1 does for the client on its own
            self.progress.note(f"{self.hub.host} has no xet storage: sending by LFS, as HF_HUB_DISABLE_XET=1 would")
        return has_xet

    def check_card(self, text: str, kind: str = "model") -> None:
        """Ask the hub whether it takes this README.md, before anything large is sent; raises ReleaseError if not."""

        def post() -> str | None:
            headers = {"Authorization": f"Bearer {self.hub.token}"}
            body = {"content": text, "repoType": kind}
            answer = huggingface_hub.get_session().post(
                f"{self.hub.endpoint}/api/validate-yaml", json=body, headers=headers
            )
            if answer.status_code in BUSY:
                answer.raise_for_status()
            if answer.status_code != 400:
                return None
            said = answer.json()
            return "; ".join(str(error["message"]) for error in said.get("errors") or [{"message": said["error"]}])

        refusal = self.ask(post, "README.md")
        if refusal is not None:
            said = self.hub.redact(" ".join(refusal.split())[:300])
            raise ReleaseError(
                f"{self.hub.host} refuses the head of README.md: {said}",
                hint="correct the card's template, package again, then publish",
            )

    def commit(
        self,
        repo: str,
        changes: Sequence[CommitOperationAdd | CommitOperationDelete],
        head: Head,
        message: str,
        kind: str,
    ) -> str:
        """One commit on top of `head`; raises MovedError when it is no longer the newest or nobody knows."""
        title, _, body = message.partition("\n")
        try:
            with _answer_within(_STALLED_S + _COMMITTED_S * len(changes)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the hub advises about the card
                done = self.api.create_commit(
                    repo,
                    changes,
                    commit_message=title,
                    commit_description=body.strip(),
                    repo_type=kind,
                    parent_commit=head.commit,
                )
        except FAILURES as error:
            status = status_of(error)
            # 409 too: another commit is being made. A lost answer: whether it landed, the next look tells.
            if status in (409, 412) or is_transient(error):
                why = busy(error) if is_transient(error) else "takes commits of others meanwhile"
                raise MovedError(why, wait_s(error) or 0.0, is_slow=is_slow(error)) from error
            raise in_words(error, repo, self.hub) from error
        return done.oid

    def send(self, repo: str, additions: Sequence[Addition], kind: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # between huggingface_hub and httpx2
            self.ask(
                lambda: self.api.preupload_lfs_files(repo, additions, repo_type=kind, free_memory=False),
                repo,
                done_bytes=lambda: sum(made.sent_bytes for made in additions),
            )

    def create(self, repo: str, kind: str, *, is_private: bool, **space: Any) -> tuple[Head, bool]:
        """The repository, and whether it was created just now."""
        refused: Exception | None = None
        try:
            self.ask(
                lambda: self.api.create_repo(repo, private=is_private, repo_type=kind, **space),
                repo,
                passing=(402, 403, 409),  # it is there, or may be: then the token needs no right to create it
            )
        except HfHubHTTPError as error:
            refused = error
        head = self.head(repo, kind)
        if head is None and refused is not None and status_of(refused) != 409:
            raise in_words(refused, repo, self.hub) from refused
        if head is None:
            raise ReleaseError(f"{self.hub.host} has {repo} and does not show it", hint="run again in a minute")
        return head, refused is None

    def ask(
        self,
        call: Callable[[], Result],
        what: str,
        *,
        passing: tuple[int, ...] = (),
        done_bytes: Callable[[], int] = lambda: 0,
    ) -> Result:
        """`call`, again while the hub is busy or gone, no longer than its patience; errors in words.

        Errors of the client with a status in `passing` pass as they are. The patience begins with the first failure,
        and anew where much was done since the last one: an upload of hours outlives more than one short absence.
        """
        retry, done = self.retry(), 0
        while True:
            try:
                return call()
            except FAILURES as error:  # noqa: PERF203 (it waits anyway)
                if status_of(error) in passing and not is_transient(error):
                    raise
                if not is_transient(error):
                    raise in_words(error, what, self.hub) from error
                if done_bytes() - done > _MUCH_BYTES:
                    retry.progressed()
                    done = done_bytes()
                retry.wait(busy(error), wait_s(error))


class _Api(HfApi):
    def _validate_yaml(self, *_arguments: Any, **_options: Any) -> None:
        """Nothing: `check_card` has asked before the upload; create_commit would ask again after it."""


@contextmanager
def _answer_within(seconds: float) -> Iterator[None]:
    """An answer may take so long. Given up earlier, a commit lands all the same, and is asked for a second time."""
    session = huggingface_hub.get_session()
    before = session.timeout
    session.timeout = (_STALLED_S, seconds, _STALLED_S, _STALLED_S)  # to connect, read, write, get a connection
    try:
        yield
    finally:
        session.timeout = before


def _quiet() -> None:
    constants.HF_HUB_DISABLE_TELEMETRY = True
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its warnings show addresses that are signed
    disable_progress_bars()
