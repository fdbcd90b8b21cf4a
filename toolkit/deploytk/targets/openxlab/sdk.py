"""OpenXLab's own package, 0.1.3, kept in an environment of its own and driven as a child process.

It cannot share an environment with a current typer, corrupts uploads that it resumes, and returns None for success
and failure alike. Here it is given one job at a time, a home of its own, a time limit, and never a second try on
the same upload; whatever it does not bring to an end is an error.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from deploytk.atomic import disk_errors, locked
from deploytk.bundle import MANIFEST, Bundle
from deploytk.digests import hash_file
from deploytk.errors import ReleaseError, TryAgainError
from deploytk.processes import die_with_parent
from deploytk.progress import Progress
from deploytk.release import PublishOptions, Release
from deploytk.targets.openxlab.place import SITE, check_repo, check_server
from deploytk.targets.openxlab.tree import metafile

VERSION = "0.1.3"
API_VARIABLE, OSS_VARIABLE = "OPENXLAB_API_ENDPOINT", "OPENXLAB_OSS_ENDPOINT"

_INSTALL_WITHIN_S = 600.0
_JOB_WITHIN_S = 120.0
_SLOWEST_BYTES_PER_S = 50_000  # 100 KiB a request, one after the other
_TRIES = 3
_RESULT = "deploytk-result:"
_VERIFIED_BY = "downloading every file and comparing its SHA-256"


@dataclass(frozen=True, slots=True)
class Keys:
    access: str = field(repr=False)
    secret: str = field(repr=False)


def sdk_python(progress: Progress) -> Path:
    """The Python of the environment that has openxlab 0.1.3; made on the first call, which needs a package index."""
    cache = Path(os.environ.get("DEPLOYTK_CACHE_DIR") or platformdirs.user_cache_path("deploytk"))
    version = ".".join(map(str, sys.version_info[:2]))
    place = cache / f"openxlab-{VERSION}-python{version}"
    python, done = place / "bin" / "python", place / ".complete"
    if done.is_file():
        return python
    with disk_errors(place, ReleaseError), locked(cache / ".openxlab-sdk.lock", "the environment of openxlab"):
        shutil.rmtree(place, ignore_errors=True)
        progress.note(f"installing openxlab {VERSION} into {place}, once")
        _install([sys.executable, "-m", "venv", str(place)])
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        _install([*command, f"openxlab=={VERSION}"])
        _install([str(python), "-c", "import openxlab.model"])
        done.touch()
    return python


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_INSTALL_WITHIN_S, check=False,
            stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise TryAgainError(
            f"openxlab {VERSION} was not installed in {_INSTALL_WITHIN_S:.0f} s",
            hint="run again; a mirror helps: PIP_INDEX_URL",
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ReleaseError(
            f"openxlab {VERSION} cannot be installed: {last[:300]}",
            hint="publish without --via sdk: by git, which needs no such package",
        )


class Sdk:
    """One account on OpenXLab, by way of its package."""

    def __init__(self, python: Path, repo: str, keys: Keys) -> None:
        self._python = python
        self._owner, _, self._name = repo.partition("/")
        self._keys = keys

    def files(self) -> list[str]:
        """The names of the files in the repository."""
        return list(self._run("list"))

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

    def _run(self, verb: str, limit_s: float = _JOB_WITHIN_S, **more: object) -> Any:
        job = {"verb": verb, "owner": self._owner, "name": self._name, **more}
        job |= {"api": _address(API_VARIABLE), "oss": _address(OSS_VARIABLE)}
        kept = {
            name: os.environ[name]
            for name in ("PATH", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY")
            if name in os.environ
        }
        with tempfile.TemporaryDirectory(prefix="deploytk-") as home:
            environment = {**kept, "HOME": home, "OPENXLAB_AK": self._keys.access, "OPENXLAB_SK": self._keys.secret}
            script = str(Path(__file__).with_name("sdk_child.py"))
            try:
                done = subprocess.run(
                    [str(self._python), "-I", script], input=json.dumps(job), env=environment, cwd=home,
                    capture_output=True, text=True, timeout=limit_s, preexec_fn=die_with_parent, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise TryAgainError(
                    f"OpenXLab's package did not end {verb} within {limit_s:.0f} s", hint="run again later"
                ) from error
        lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
        if not lines:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise ReleaseError(
                f"OpenXLab's package broke off at {verb}: {self._redact(last)[:300]}",
                hint="run again, or leave --via out",
            )
        answer = json.loads(lines[-1].removeprefix(_RESULT))
        if "error" in answer:
            raise self._error(verb, str(answer["error"]), str(answer["kind"]))
        return answer["value"]

    def _error(self, verb: str, text: str, kind: str) -> ReleaseError | TryAgainError:
        said = self._redact(text)
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


def publish_by_sdk(bundle: Bundle, options: PublishOptions, progress: Progress) -> Release:
    """Upload a flat bundle file by file, each verified by downloading it; not atomic, every file is sent each time.

    Raises ReleaseError for a bundle with directories (the package keeps base names only) and for every difference.
    """
    nested = [file.path for file in bundle.files if "/" in file.path]
    if nested:
        raise ReleaseError(
            f"OpenXLab's package keeps no directories, and this bundle has {nested[0]}",
            hint="leave --via sdk out: git keeps them",
        )
    repo = check_repo(options.repo)
    access, secret = os.environ.get("OPENXLAB_AK", ""), os.environ.get("OPENXLAB_SK", "")
    if not (access and secret):
        raise ReleaseError(
            "no access key of OpenXLab is here", hint="set OPENXLAB_AK and OPENXLAB_SK (OpenXLab, account, 密钥管理)"
        )
    sdk = Sdk(sdk_python(progress), repo, Keys(access, secret))
    try:
        sdk.files()
    except ReleaseError as error:
        if "refused list" not in str(error):
            raise
        progress.note(f"{repo} is not there: creating it")
        sdk.create(bundle, is_private=options.is_private)
    # Told again for one that is there: what it is cannot be read.
    sdk.set_visibility(is_private=options.is_private)
    wanted = {file.path: (file.sha256, file.size) for file in bundle.files}
    manifest = bundle.path / MANIFEST
    wanted[MANIFEST] = (hash_file(manifest), manifest.stat().st_size)  # last: who sees it sees all the others
    total = sum(size for _, size in wanted.values())
    with progress.task("sending and reading back", total) as advance:
        for name, (sha256, size) in wanted.items():
            _send(sdk, name, bundle.path / name, sha256, size)
            advance(size)
    return Release(
        target="openxlab",
        repo=repo,
        revision=bundle.digest,
        url=f"{SITE}/models/detail/{repo}",
        uploaded_files=len(wanted),
        uploaded_bytes=total,
        unchanged_files=0,
        verified=True,
        verified_by=_VERIFIED_BY,
        steps_left=(),
    )


def _send(sdk: Sdk, name: str, path: Path, sha256: str, size: int) -> None:
    """One file, sent from its beginning each time, until it comes back as it is."""
    failure: ReleaseError | TryAgainError | None = None
    for _ in range(_TRIES):
        try:
            sdk.upload(name, path)
            found = sdk.digest(name, size)
        except (ReleaseError, TryAgainError) as error:
            failure = error
            continue
        if found == sha256:
            return
        failure = ReleaseError(
            f"{name} came back with other bytes", hint="run again; by git, without --via, it is safe"
        )
    assert failure is not None  # noqa: S101 (there was at least one try)
    raise failure


def _address(variable: str) -> str | None:
    address = os.environ.get(variable)
    return check_server(address) if address else None
