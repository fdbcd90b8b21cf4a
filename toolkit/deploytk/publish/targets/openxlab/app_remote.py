"""The git repository that the app is pushed to, with the user's own git settings; what others wrote there stays."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType

from deploytk.base.errors import ReleaseError
from deploytk.bundle import MANIFEST
from deploytk.publish.plan import Change, is_done, paths_with
from deploytk.publish.superseded import named_in
from deploytk.publish.targets.common.app_repository import app_changes
from deploytk.publish.targets.openxlab.commits import FIRST_S, REF, Commit
from deploytk.publish.targets.openxlab.foreign import read_blobs
from deploytk.publish.targets.openxlab.git import first_of_all

_LIMIT_S = 300.0
_BRANCH = "refs/heads/main"


class AppRemote:
    """What is at the address now; a context, at whose end nothing is left here."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.parent: str | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="deploytk-")

    def __enter__(self) -> AppRemote:
        try:
            self._look()
        except BaseException:
            self._directory.cleanup()
            raise
        return self

    def _look(self) -> None:
        self._git("init", "--quiet", "--bare", "--initial-branch=main", ".")
        if self._git("ls-remote", self.address, _BRANCH):
            self._git("fetch", "--quiet", "--depth=1", self.address, _BRANCH)
            self.parent = self._git("rev-parse", "FETCH_HEAD").decode().strip()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._directory.cleanup()

    def changes(self, wanted: Mapping[str, bytes], *, is_mirror: bool) -> tuple[Change, ...]:
        """What pushing would do."""
        ours = named_in(self.read(MANIFEST) or b"")
        blobs = self._blobs
        known = self._contents({oid for path, oid in blobs.items() if oid and (path in wanted or path in ours)})
        there = {path: _facts(known[oid]) if oid in known else (0, "") for path, oid in blobs.items()}
        return app_changes(wanted, there, ours, is_mirror=is_mirror)

    def read(self, path: str) -> bytes | None:
        """A file that is there; None when there is none of that name."""
        oid = self._blobs.get(path)
        return self._contents({oid})[oid] if oid else None

    def push(self, wanted: Mapping[str, bytes], changes: tuple[Change, ...]) -> str:
        """One commit on top of what is there; nothing is pushed when nothing has changed."""
        if self.parent and is_done(changes):
            return self.parent
        commit = Commit("Update the app", self.parent, FIRST_S, wanted, paths_with("deleted", changes))
        self._git("fast-import", "--quiet", "--force", stdin=commit.stream())
        made = self._git("rev-parse", REF).decode().strip()
        self._git("push", "--quiet", self.address, f"{made}:{_BRANCH}")
        return made

    @cached_property
    def _blobs(self) -> dict[str, str]:
        """Path -> git object id of what is there, "" for what is no file (a submodule)."""
        listing = self._git("ls-tree", "-r", "-z", "--full-tree", self.parent) if self.parent else b""
        entries = (entry.partition("\t") for entry in listing.decode("utf-8", "surrogateescape").split("\0") if entry)
        return {path: facts.split()[2] if facts.split()[1] == "blob" else "" for facts, _, path in entries}

    def _contents(self, oids: Collection[str]) -> dict[str, bytes]:
        return read_blobs(lambda asked: self._git("cat-file", "--batch", stdin=asked), sorted(oids))

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        place = self._directory.name
        environment = {**os.environ, "GIT_DIR": place, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=Path(place), env=environment, input=stdin, capture_output=True,
                timeout=_LIMIT_S, preexec_fn=first_of_all(arguments), check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise ReleaseError("git is not installed here", hint="install it: apt-get install git") from error
        except subprocess.TimeoutExpired as error:
            raise ReleaseError(f"git did not end within {_LIMIT_S:.0f} s", hint="run again later") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ReleaseError(
                f"git {arguments[0]} failed for the app: {lines[-1][:300]}",
                hint="try `git ls-remote` with the address of --app-remote: it must work without a password prompt",
            )
        return done.stdout


def _facts(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()
