"""Runs git and git-lfs: no prompt, no configuration but ours, a token that is nowhere but in the environment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError
from deploytk.base.processes import die_with_parent
from deploytk.base.progress import Progress
from deploytk.publish.targets.openxlab.place import SITE, Account, is_loopback

Trouble = Literal["gone", "credentials", "forbidden", "missing", "moved", "disk", "other"]

LIMIT_S = 600.0
STALL_S = 300.0  # without a byte sent; a server may take long to check a large file
PATIENCE_S = 90.0  # with a server that does not answer
_FULL_BYTES = 2**18
_POLL_S = 0.1
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0

_ASKPASS = """#!/bin/sh
case "$1" in
Username*) printf '%s\\n' "$DEPLOYTK_GIT_USERNAME" ;;
*) printf '%s\\n' "$DEPLOYTK_GIT_TOKEN" ;;
esac
"""

# Everything else of the environment, such as GIT_TRACE, stays out.
_KEPT = ("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "HTTPS_PROXY", "https_proxy", "ALL_PROXY",
         "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip

# The first that fits counts: a refusal is followed by "the remote end hung up".
_SIGNS: dict[Trouble, str] = {
    "disk": r"^(?!remote:).*(no space left on device|disk quota exceeded|file too large)",
    "moved": r"non-fast-forward|fetch first|stale info|cannot lock ref|failed to update ref|but expected [0-9a-f]{40}",
    "forbidden": r"error: 403|status 403|http 403|permission denied|not allowed to push|protected branch|forbidden"
    r"|authorization error|hook declined|you do not have permission|read-only",
    "credentials": r"authentication failed|authentication required|error: 401|invalid credentials|access denied"
    r"|git credentials for .* not found"
    r"|could not read (username|password)|terminal prompts disabled|unauthorized",
    "missing": r"repository .*not found|error: 404|status 404|does not exist|does not appear to be a git repository",
    "gone": r"could not resolve host|failed to connect|connection (was )?(refused|reset)|couldn't connect|timed? ?out"
    r"|error: (5\d\d|429)|status 5\d\d|http 5\d\d|unexpected disconnect|early eof|rpc failed|\beof\b|no such host"
    r"|remote end hung up|closed (idle|network) connection|empty reply|broken pipe|too slow|network is unreachable"
    r"|fatal error: server error",
}


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str

    @property
    def trouble(self) -> Trouble:
        text = self.stderr.lower()
        return next((trouble for trouble, sign in _SIGNS.items() if re.search(sign, text, re.MULTILINE)), "other")


class Git:
    """git in the bare repository `work`/repo.git, for one server and account."""

    def __init__(self, work: Path, url: str, account: Account, progress: Progress, patience_s: float) -> None:
        self.work = work
        self.url = url
        self._account = account
        self._progress = progress
        self._patience_s = patience_s

    @property
    def repository(self) -> Path:
        return self.work / "repo.git"

    def start(self) -> None:
        """Make the repository anew: a kill may have left locks and half a pack in the one before."""
        check_tools()
        shutil.rmtree(self.work, ignore_errors=True)
        (self.work / "home").mkdir(parents=True)
        askpass = self.work / "askpass"
        askpass.write_text(_ASKPASS)
        askpass.chmod(0o700)
        self.must("init", "--quiet", "--bare", "--initial-branch=main", str(self.repository))
        self.must("remote", "add", "hub", self.url)

    def must(self, *arguments: str, stdin: bytes = b"", limit_s: float = LIMIT_S) -> bytes:
        """What git prints; tried again while the server is away. Raises what a user can act on."""
        return self.retry(lambda: self.run("git", *arguments, stdin=stdin, limit_s=limit_s))

    def retry(self, attempt: Callable[[], Finished]) -> bytes:
        gone_since: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            done = attempt()
            if done.code == 0:
                return done.stdout
            if done.trouble != "gone":
                raise self.error(done)
            gone_since = gone_since or time.monotonic()
            if time.monotonic() - gone_since > self._patience_s:
                raise self.error(done)
            self._progress.note(f"{self.host} does not answer, trying again: {_last_line(done.stderr)}")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def run(
        self,
        program: Literal["git", "git-lfs"],
        *arguments: str,
        stdin: bytes = b"",
        limit_s: float = LIMIT_S,
        options: tuple[str, ...] = (),
        watched: Path | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> Finished:
        """Run to the end, within the limit; with `watched`, as long as that file grows. `look` is called meanwhile."""
        settings = ("credential.helper=", "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0",
                    "http.lowSpeedLimit=1", "http.lowSpeedTime=60", "advice.detachedHead=false",
                    "lfs.locksverify=false", "lfs.transfer.maxretries=3", *options)  # fmt: skip
        environment = self._environment(settings, watched)
        out, err = self.work / "stdout", self.work / "stderr"
        given = self.work / "stdin"
        given.write_bytes(stdin)
        with given.open("rb") as readable, out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(
                [program, *arguments],
                cwd=self.repository if self.repository.is_dir() else self.work,
                env=environment, stdin=readable, stdout=output, stderr=errors,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            late = self._wait(process, limit_s, watched, look)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = self.redact(err.read_text(encoding="utf-8", errors="replace"))
        return Finished(process.returncode, out.read_bytes(), f"{said}\n{late}" if late else said)

    def _wait(
        self, process: subprocess.Popen[bytes], limit_s: float, watched: Path | None, look: Callable[[], None]
    ) -> str:
        started = grown = time.monotonic()
        size = 0
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S if watched else min(1.0, limit_s))
            look()
            now = time.monotonic()
            if watched is None:
                if now - started > limit_s:
                    return f"timed out after {limit_s:.0f} s"
                continue
            found = watched.stat().st_size if watched.exists() else 0
            if found != size:
                size, grown = found, now
            elif now - grown > STALL_S:
                return f"timed out: nothing was sent for {STALL_S:g} s"
        look()
        return ""

    def _environment(self, settings: tuple[str, ...], watched: Path | None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        ours = {
            "HOME": str(self.work / "home"),
            "XDG_CONFIG_HOME": str(self.work / "home"),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": str(self.work / "askpass"),
            "DEPLOYTK_GIT_USERNAME": self._account.username,
            "DEPLOYTK_GIT_TOKEN": self._account.token,
            # As -c, which git-lfs started by itself would not see.
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for number, setting in enumerate(settings):
            key, _, value = setting.partition("=")
            ours |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        if watched:
            ours["GIT_LFS_PROGRESS"] = str(watched)
        if is_loopback(urlsplit(self.url).hostname or ""):
            ours |= {"NO_PROXY": "*", "no_proxy": "*"}
        return {**kept, **ours}

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def redact(self, text: str) -> str:
        for secret in (self._account.token, quote(self._account.token, safe="")):
            text = text.replace(secret, "***")
        return text

    def error(self, done: Finished) -> DeployError:
        """What went wrong, in one line, and what to do about it."""
        user, host = self._account.username, self.host
        repo = urlsplit(self.url).path.strip("/").removesuffix(".git")
        # On a full disk there is no room for git's own words.
        trouble = "disk" if shutil.disk_usage(self.work).free < _FULL_BYTES else done.trouble
        if trouble == "gone":
            return TryAgainError(
                f"{host} does not answer: {_last_line(done.stderr)}",
                hint="run again later: what has arrived is not sent again",
            )
        if trouble == "disk":
            return ReleaseError(f"the disk of {self.work} is full", hint="free some space and run again")
        if trouble == "credentials":
            return ReleaseError(
                f"{host} does not take the token of {user}",
                hint="make a Git token that may write (密钥管理, 可写); set OPENXLAB_GIT_TOKEN, OPENXLAB_USERNAME",
            )
        if trouble == "forbidden":
            return ReleaseError(
                f"the token of {user} may not write to {repo}: {_last_line(done.stderr)}",
                hint="make a Git access token that may write (可写), of an account that owns the repository",
            )
        if trouble == "missing":
            return ReleaseError(f"{host} has no repository {repo}, or {user} may not see it", hint=creation_steps(repo))
        return ReleaseError(
            f"git failed: {_last_line(done.stderr)}", hint="run again; if it fails again, `deploytk doctor` shows git"
        )


def check_tools() -> None:
    """Raises ReleaseError when git or git-lfs is not installed."""
    for program in ("git", "git-lfs"):
        if not shutil.which(program):
            how = "brew install" if sys.platform == "darwin" else "apt-get install"
            raise ReleaseError(f"{program} is not installed here", hint=f"install it: {how} {program}")


def creation_steps(repo: str) -> str:
    owner, _, name = repo.rpartition("/")
    return (
        f"create it by hand, empty: {SITE}, log in as {owner}, 模型 (Models), 创建模型 (Create); name {name}, task "
        "Text Generation, visibility 私有 (private) or 公开 (public), add no file; then run the same command again"
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(fatal|error|remote|batch|lfs)", line.lower())] or lines
    return telling[-1][:300] if telling else "it said nothing"
