"""The git repository that the app is pushed to, with the user's own git settings; what others wrote there stays."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from deploytk.base.errors import ReleaseError
from deploytk.base.processes import die_with_parent
from deploytk.publish.plan import Change, is_done, paths_with
from deploytk.publish.superseded import Named
from deploytk.publish.targets.common.app_repository import app_changes
from deploytk.publish.targets.openxlab.commits import FIRST_S, REF, Commit

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

    def changes(self, wanted: Mapping[str, bytes], ours: Named, *, is_mirror: bool) -> tuple[Change, ...]:
        """What pushing would do; `ours` is what an earlier release wrote."""
        names = self._names()
        there = {path: self._digest(path) for path in names if path in wanted or path in ours}
        extra = {path: there.get(path, "") for path in names if path not in wanted}
        unchanged = {path for path in extra if path in ours and there[path] == ours[path][1]}
        return app_changes(wanted, there | extra, extra if is_mirror else unchanged)

    def push(self, wanted: Mapping[str, bytes], changes: tuple[Change, ...]) -> str:
        """One commit on top of what is there; nothing is pushed when nothing has changed."""
        if self.parent and is_done(changes):
            return self.parent
        commit = Commit("Update the app", self.parent, FIRST_S, wanted, paths_with("deleted", changes))
        self._git("fast-import", "--quiet", "--force", stdin=commit.stream())
        made = self._git("rev-parse", REF).decode().strip()
        self._git("push", "--quiet", self.address, f"{made}:{_BRANCH}")
        return made

    def _names(self) -> list[str]:
        if not self.parent:
            return []
        listing = self._git("ls-tree", "-r", "-z", "--name-only", "--full-tree", self.parent)
        return [path for path in listing.decode("utf-8", "surrogateescape").split("\0") if path]

    def _digest(self, path: str) -> str:
        return hashlib.sha256(self._git("cat-file", "blob", f"{self.parent}:{path}")).hexdigest()

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        place = self._directory.name
        environment = {**os.environ, "GIT_DIR": place, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=Path(place), env=environment, input=stdin, capture_output=True,
                timeout=_LIMIT_S, preexec_fn=die_with_parent, check=False,
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
