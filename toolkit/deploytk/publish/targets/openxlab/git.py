"""Runs git: no prompt, no configuration but ours; the token is in the environment alone, for one server alone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urljoin, urlsplit

import httpx

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError
from deploytk.base.net import trusted
from deploytk.base.origin import Origin, origin_of
from deploytk.base.processes import die_with_parent
from deploytk.base.progress import Progress
from deploytk.base.retry import BUSY, Retry, RetryPolicy, retry_after_s
from deploytk.publish.targets.openxlab.place import SERVER_VARIABLE, SITE, Account

Trouble = Literal["elsewhere", "gone", "credentials", "forbidden", "missing", "moved", "disk", "other"]

LIMIT_S = 600.0
PATIENCE_S = 90.0  # with a server that does not answer
_FULL_BYTES = 2**18
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0
_LOOK_WITHIN_S = 10.0
_SILENT_S = 60  # without a byte, git gives a request up

# Speaks git's credential protocol, for one origin: whoever else asks for a login ends the command.
_CREDENTIAL_HELPER = """#!/bin/sh
[ "$1" = get ] || exit 0
while IFS= read -r line && [ -n "$line" ]; do
  case "$line" in
  protocol=*) protocol=${line#protocol=} ;;
  host=*) host=${line#host=} ;;
  esac
done
if [ "$protocol://$host" = "$DEPLOYTK_GIT_ORIGIN" ]; then
  printf 'username=%s\\npassword=%s\\n' "$DEPLOYTK_GIT_USERNAME" "$DEPLOYTK_GIT_TOKEN"
else
  printf 'error: %s asks for the login of another server\\n' "$protocol://$host" >&2
  printf 'quit=1\\n'
fi
"""

_REMOTE = {"fetch", "ls-remote", "push"}

# Everything else of the environment, such as GIT_TRACE, stays out.
_KEPT = ("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "HTTPS_PROXY", "https_proxy", "ALL_PROXY",
         "all_proxy", "NO_PROXY", "no_proxy")  # fmt: skip

# The first that fits counts: a refusal is followed by "the remote end hung up".
_SIGNS: dict[Trouble, str] = {
    "disk": r"^(?!remote:).*(no space left on device|disk quota exceeded|file too large)",
    "elsewhere": r"asks for the login of another server|error: 30[12378]|unable to update url base|insecure redirect"
    r"|status 30[12378]|too many redirects|transport '\w+' not allowed",
    "moved": r"non-fast-forward|fetch first|stale info|cannot lock ref|failed to update ref|but expected [0-9a-f]{40}",
    "forbidden": r"error: 403|status 403|http 403|permission denied|not allowed to push|protected branch|forbidden"
    r"|authorization error|hook declined|you do not have permission|read-only",
    "credentials": r"authentication failed|authentication required|error: 401|invalid credentials|access denied"
    r"|git credentials for .* not found"
    r"|could not read (username|password)|terminal prompts disabled|unauthorized",
    "missing": r"repository .*not found|error: 404|status 404|does not exist|does not appear to be a git repository",
    "gone": r"could not resolve host|cannot be resolved|no such host|failed to connect|couldn't connect|timed? ?out"
    r"|connection (was )?(refused|reset)|error: (5\d\d|429|408|425)|status 5\d\d|http 5\d\d|unexpected disconnect"
    r"|early eof|rpc failed|\beof\b"
    r"|remote end hung up|closed (idle|network) connection|empty reply|broken pipe|too slow|network is unreachable"
    r"|fatal error: server error",
}


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str
    asked_s: float | None = None  # how long the server asks to wait

    @property
    def trouble(self) -> Trouble:
        text = self.stderr.lower()
        return next((trouble for trouble, sign in _SIGNS.items() if re.search(sign, text, re.MULTILINE)), "other")

    @property
    def is_slow(self) -> bool:
        """Whether the server has the request and has said nothing for long: it may still be at it."""
        return re.search(r"too slow|timed out after", self.stderr) is not None


def first_of_all(arguments: Collection[str]) -> Callable[[], None] | None:
    """What the process of such a git does before it becomes git.

    One that talks to a server may take minutes, and ends with us. All others end by themselves at once, and are spared
    what that costs: all of this process is copied for it.
    """
    return die_with_parent if _REMOTE.intersection(arguments) else None


class Git:
    """git in the bare repository `work`/repo.git, for one server and account."""

    def __init__(self, work: Path, url: str, account: Account, progress: Progress, patience_s: float) -> None:
        self.work = work
        self.url = url
        self.origin = Origin.of(url)
        self.lfs_url = f"{url}/info/lfs"
        self._account = account
        self._progress = progress
        self._patience_s = patience_s

    @property
    def repository(self) -> Path:
        return self.work / "repo.git"

    @property
    def _helper(self) -> Path:
        return self.work / "credential"

    def start(self) -> None:
        """Make the repository anew: a kill may have left locks and half a pack in the one before."""
        check_tools()
        shutil.rmtree(self.work, ignore_errors=True)
        (self.work / "home").mkdir(parents=True)
        self._helper.write_text(_CREDENTIAL_HELPER)
        self._helper.chmod(0o700)
        self.must("init", "--quiet", "--bare", "--initial-branch=main", str(self.repository))
        self.must("remote", "add", "hub", self.url)

    def must(self, *arguments: str, stdin: bytes = b"", limit_s: float = LIMIT_S) -> bytes:
        """What git prints; tried again while the server is away. Raises what a user can act on."""
        return self.retry(lambda: self.run(*arguments, stdin=stdin, limit_s=limit_s))

    def retry(self, attempt: Callable[[], Finished]) -> bytes:
        """What an attempt prints that comes to its end; tried again while the server is away."""
        retry = self.patience()
        while True:
            done = attempt()
            if done.code == 0:
                return done.stdout
            if done.trouble != "gone":
                raise self.error(done)
            self.wait(retry, done)

    def wait(self, retry: Retry, done: Finished) -> None:
        """Wait before the same is tried again, as long as the server asks for; raises TryAgainError at the end."""
        busy = re.search(r"error: (429|503)\b", done.stderr)
        problem = f"answers {busy[1]}" if busy else f"does not answer: {_last_line(done.stderr)}"
        retry.wait(problem, done.asked_s if done.asked_s is not None or not busy else self._asked_s())

    def _asked_s(self) -> float | None:
        """How long a busy server asks to wait, which git does not say: it is asked what git asks before a push.

        Source: git's remote-curl.c, `discover_refs` and `probe_rpc`: a request of nothing, which changes nothing.
        """
        kind = {"Content-Type": "application/x-git-receive-pack-request"}
        trust = not self.origin.is_loopback
        with httpx.Client(auth=self.login, timeout=_LOOK_WITHIN_S, verify=trusted(), trust_env=trust) as client:
            try:
                answer = _head_of(client, "GET", f"{self.url}/info/refs?service=git-receive-pack")
                if answer.status_code not in BUSY:
                    answer = _head_of(client, "POST", f"{self.url}/git-receive-pack", headers=kind, content=b"0000")
            except httpx.HTTPError:
                return None
        return retry_after_s(answer.headers.get("Retry-After")) if answer.status_code in BUSY else None

    def patience(self) -> Retry:
        """For one request to this server, or to where it keeps large files."""
        policy = RetryPolicy(total_s=self._patience_s, first_s=_FIRST_PAUSE_S, longest_s=_LONGEST_PAUSE_S)
        return Retry(policy, self.host, self._progress.note)

    def run(self, *arguments: str, stdin: bytes = b"", limit_s: float = LIMIT_S) -> Finished:
        """Run git to its end, within the limit."""
        environment = self._environment(self._settings())
        out, err = self.work / "stdout", self.work / "stderr"
        given = self.work / "stdin"
        given.write_bytes(stdin)
        with given.open("rb") as readable, out.open("wb") as output, err.open("wb") as errors:
            process = subprocess.Popen(
                ["git", *arguments],
                cwd=self.repository if self.repository.is_dir() else self.work,
                env=environment, stdin=readable, stdout=output, stderr=errors,
                start_new_session=True, preexec_fn=first_of_all(arguments),
            )  # fmt: skip
        late = ""
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            late = f"timed out after {limit_s:.0f} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said = self.redact(err.read_text(encoding="utf-8", errors="replace"))
        return Finished(process.returncode, out.read_bytes(), f"{said}\n{late}" if late else said)

    def _settings(self) -> tuple[str, ...]:
        """What git is told; an empty helper forgets those of the system."""
        helper = f"credential.helper=!{shlex.quote(str(self._helper))}"
        return ("credential.helper=", helper, "core.askPass=", "http.followRedirects=false", "protocol.allow=never",
                f"protocol.{self.origin.scheme}.allow=always", "core.hooksPath=/dev/null", "core.fsmonitor=false",
                "gc.auto=0", "http.lowSpeedLimit=1", f"http.lowSpeedTime={_SILENT_S}",
                "advice.detachedHead=false")  # fmt: skip

    def _environment(self, settings: tuple[str, ...]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        ours = {
            "HOME": str(self.work / "home"),
            "XDG_CONFIG_HOME": str(self.work / "home"),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "DEPLOYTK_GIT_ORIGIN": f"{self.origin.scheme}://{urlsplit(self.url).netloc}",
            "DEPLOYTK_GIT_USERNAME": self._account.username,
            "DEPLOYTK_GIT_TOKEN": self._account.token,
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for number, setting in enumerate(settings):
            key, _, value = setting.partition("=")
            ours |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        if self.origin.is_loopback:
            ours |= {"NO_PROXY": "*", "no_proxy": "*"}
        return {**kept, **ours}

    @property
    def host(self) -> str:
        return self.origin.netloc

    def redact(self, text: str) -> str:
        pair = b64encode(f"{self._account.username}:{self._account.token}".encode()).decode().rstrip("=")
        for secret in (self._account.token, quote(self._account.token, safe=""), pair):
            text = text.replace(secret, "***")
        return text

    @property
    def login(self) -> tuple[str, str]:
        """For requests to `origin` alone."""
        return self._account.username, self._account.token

    def finished(self, answer: httpx.Response, good: Collection[int]) -> Finished:
        """An answer by its status, as if git had got it. Raises ReleaseError for a redirect."""
        self.refuse_redirect(answer)
        code = 0 if answer.status_code in good else 1
        asked_s = retry_after_s(answer.headers.get("Retry-After"))
        return Finished(code, b"", f"error: {answer.status_code}", asked_s)

    def refuse_redirect(self, answer: httpx.Response) -> None:
        """Raises ReleaseError for an answer that sends us to another address."""
        if answer.is_redirect:
            to = origin_of(urljoin(str(answer.url), answer.headers["Location"]))
            raise self._elsewhere(f"{answer.url.path} to {to or 'no web address'}")

    def _elsewhere(self, what: str) -> ReleaseError:
        return ReleaseError(
            f"{self.host} sends elsewhere, where its token does not go: {what}",
            hint=f"if the server has moved, set {SERVER_VARIABLE} to its new address",
        )

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
        if trouble == "elsewhere":
            return self._elsewhere(_last_line(done.stderr))
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
    """Raises ReleaseError when git is not installed."""
    if not shutil.which("git"):
        how = "brew install" if sys.platform == "darwin" else "apt-get install"
        raise ReleaseError("git is not installed here", hint=f"install it: {how} git")


def creation_steps(repo: str) -> str:
    owner, _, name = repo.rpartition("/")
    return (
        f"create it by hand, empty: {SITE}, log in as {owner}, 模型 (Models), 创建模型 (Create); name {name}, task "
        "Text Generation, visibility 私有 (private) or 公开 (public), add no file; then run the same command again"
    )


def _head_of(client: httpx.Client, method: str, url: str, **more: Any) -> httpx.Response:
    """An answer whose body is left where it is, however long it may be."""
    with client.stream(method, url, **more) as answer:
        return answer


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(fatal|error|remote|batch|lfs)", line.lower())] or lines
    return telling[-1][:300] if telling else "it said nothing"
