"""OpenXLab's own package, 0.1.3, kept in an environment of its own and driven as a child process.

It cannot share an environment with a current typer, corrupts uploads that it resumes, and returns None for success
and failure alike. Here it is given one job after the other, a home of its own, a time limit, and never a second try
on the same upload; whatever it does not bring to an end is an error.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploytk.base.environments import OwnEnvironment, own_python
from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.processes import die_with_parent
from deploytk.base.progress import Progress
from deploytk.bundle import Bundle
from deploytk.publish.targets.openxlab.place import SITE, check_server
from deploytk.publish.targets.openxlab.tree import metafile

VERSION = "0.1.3"
API_VARIABLE, OSS_VARIABLE = "OPENXLAB_API_ENDPOINT", "OPENXLAB_OSS_ENDPOINT"

_JOB_WITHIN_S = 120.0
_SLOWEST_BYTES_PER_S = 50_000  # 100 KiB a request, one after the other
_RESULT = "deploytk-result:"


@dataclass(frozen=True, slots=True)
class Keys:
    access: str = field(repr=False)
    secret: str = field(repr=False)


_ENVIRONMENT = OwnEnvironment(
    package="openxlab",
    version=VERSION,
    raises=ReleaseError,
    hint="publish without --via sdk: by git, which needs no such package",
    imports="openxlab.model",
)


def sdk_python(progress: Progress) -> Path:
    """The Python of the environment that has openxlab 0.1.3; made on the first call, which needs a package index."""
    return own_python(_ENVIRONMENT, progress)


class Sdk:
    """One account on OpenXLab, by way of its package; a context, at whose end the child process is gone."""

    def __init__(self, python: Path, repo: str, keys: Keys) -> None:
        self._python = python
        self._owner, _, self._name = repo.partition("/")
        self._keys = keys
        self._child: subprocess.Popen[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Sdk:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def files(self) -> list[str]:
        """The names of the files in the repository."""
        return list(self._run("list"))

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """The bytes of each of these files, as the repository hands them out; one that it lacks is left out."""
        return {str(name): int(size) for name, size in self._run("sizes", files=list(names)).items()}

    def create(self, bundle: Bundle, *, is_private: bool) -> None:
        self._run("create", private=is_private, metafile=metafile(bundle))

    def set_visibility(self, *, is_private: bool) -> None:
        self._run("visibility", private=is_private)

    def upload(self, name: str, path: Path) -> None:
        """Upload one file under its name, from its beginning."""
        results = [{"Task": "Text Generation", "Dataset": "none"}]
        limit_s = _JOB_WITHIN_S + path.stat().st_size / _SLOWEST_BYTES_PER_S
        self._run("upload", limit_s, file=name, path=str(path.resolve()), results=results)

    def digest(self, name: str, size: int) -> str:
        """The SHA-256 of a file as the repository hands it out."""
        return str(self._run("digest", _JOB_WITHIN_S + size / _SLOWEST_BYTES_PER_S, file=name))

    def text(self, name: str) -> str:
        """A small file as the repository hands it out; bytes that are no UTF-8 as surrogates."""
        return str(self._run("text", file=name))

    def content(self, name: str) -> bytes:
        return self.text(name).encode("utf-8", "surrogateescape")

    def _run(self, verb: str, limit_s: float = _JOB_WITHIN_S, **more: object) -> Any:
        job = {"verb": verb, "owner": self._owner, "name": self._name, **more}
        job |= {"api": _address(API_VARIABLE), "oss": _address(OSS_VARIABLE)}
        child = self._child or self._start()
        try:
            line = _answer(child, json.dumps(job), limit_s)
        except TimeoutError as error:
            self._end()
            raise TryAgainError(
                f"OpenXLab's package did not end {verb} within {limit_s:.0f} s", hint="run again later"
            ) from error
        if not line:
            last = self._last_words()
            self._end()
            raise ReleaseError(
                f"OpenXLab's package broke off at {verb}: {self._redact(last)[:300]}",
                hint="run again, or leave --via out",
            )
        answer = json.loads(line)
        if "error" in answer:
            raise self._error(verb, str(answer["error"]), str(answer["kind"]))
        return answer["value"]

    def _start(self) -> subprocess.Popen[bytes]:
        kept = {
            name: os.environ[name]
            for name in ("PATH", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY")
            if name in os.environ
        }
        self._home = tempfile.TemporaryDirectory(prefix="deploytk-")
        home = self._home.name
        environment = {**kept, "HOME": home, "OPENXLAB_AK": self._keys.access, "OPENXLAB_SK": self._keys.secret}
        with (Path(home) / "said").open("wb") as said:
            self._child = subprocess.Popen(
                [str(self._python), "-I", str(Path(__file__).with_name("sdk_child.py"))], env=environment, cwd=home,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, preexec_fn=die_with_parent,
            )  # fmt: skip
        return self._child

    def _last_words(self) -> str:
        said = Path(self._home.name) / "said" if self._home else None
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines() if said else []
        return (lines or ["no output"])[-1]

    def _end(self) -> None:
        if self._child:
            self._child.kill()
            self._child.communicate()
        if self._home:
            self._home.cleanup()
        self._child = self._home = None

    def _error(self, verb: str, text: str, kind: str) -> ReleaseError | TryAgainError:
        # Its messages name the whole request; the one for a login has what is made of the secret.
        said = self._redact(re.sub(r"payload: .*?\},?\s*", "", text))
        if kind == "AwayError":
            hint = f"check {API_VARIABLE} and {OSS_VARIABLE}; no key was sent there"
            return ReleaseError(f"OpenXLab would take the keys elsewhere at {verb}: {said}", hint=hint)
        if any(sign in kind for sign in ("Connect", "Timeout", "RequestError")):
            return TryAgainError(f"OpenXLab does not answer at {verb}: {kind}", hint="run again later")
        if any(sign in text.lower() for sign in ("auth", "getjwt", "jwt", "401")):
            return ReleaseError(
                f"OpenXLab does not take the access key: {said}",
                hint="set OPENXLAB_AK and OPENXLAB_SK (OpenXLab, account, 密钥管理)",
            )
        return ReleaseError(
            f"OpenXLab refused {verb}: {said}", hint=f"look at the repository on {SITE}, then run again"
        )

    def _redact(self, text: str) -> str:
        return text.replace(self._keys.secret, "***").replace(self._keys.access, "***")


def _answer(child: subprocess.Popen[bytes], job: str, limit_s: float) -> str:
    """What the child answers to a job; "" when it ends instead. Raises TimeoutError."""
    assert child.stdin is not None  # noqa: S101 (both are pipes)
    assert child.stdout is not None  # noqa: S101
    try:
        child.stdin.write(f"{job}\n".encode())
        child.stdin.flush()
    except BrokenPipeError:
        return ""
    deadline = time.monotonic() + limit_s
    said = b""
    while not said.endswith(b"\n"):
        if not select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        more = os.read(child.stdout.fileno(), 2**16)
        if not more:
            return ""
        said += more
    return said.decode().rpartition(_RESULT)[2]


def _address(variable: str) -> str | None:
    address = os.environ.get(variable)
    return check_server(address) if address else None
