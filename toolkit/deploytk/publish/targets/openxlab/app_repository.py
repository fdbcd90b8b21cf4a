"""The app on OpenXLab: a repository of its own, without the model, and the form that only a person can fill in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from deploytk import lmdeploy
from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError, UsageError
from deploytk.base.files import disk_errors, staged_directory
from deploytk.base.processes import die_with_parent
from deploytk.base.shipped import shipped
from deploytk.bundle import MANIFEST, ROOM, Bundle
from deploytk.publish.release import AppPlan, Change, changes_between
from deploytk.publish.targets.openxlab.place import SITE, Place

UVICORN = "uvicorn==0.30.6"
LMDEPLOY = "0.10.2"
"""The newest for OpenXLab's Python 3.9: from 0.11.0 on there are wheels for 3.10 and later only."""

_LIMIT_S = 300.0
_DATE = "2024-01-01T00:00:00+0000"
_LEFT_OUT = ("Dockerfile", f"{ROOM}/page.py", "requirements.txt")
_AT_ROOT = ("packages.txt",)
_OF_THE_PAGE = ("page.py", "chat.html")
_ENVIRONMENT = {"GIT_AUTHOR_NAME": "deploytk", "GIT_AUTHOR_EMAIL": "deploytk@localhost", "GIT_AUTHOR_DATE": _DATE,
                "GIT_COMMITTER_NAME": "deploytk", "GIT_COMMITTER_EMAIL": "deploytk@localhost",
                "GIT_COMMITTER_DATE": _DATE, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}  # fmt: skip


def app_place(bundle: Bundle) -> Path:
    """Where the app repository of a bundle is written: beside it."""
    return bundle.path.with_name(f"{bundle.path.name}.app")


def write_app(bundle: Bundle, out: Path, url: str, revision: str) -> Path:
    """Write the complete app repository `out`, which fetches `revision` of the model repository `url` when it starts.

    The same bundle, url and revision give the same files. Raises ReleaseError when `out` is something else.
    """
    if out.exists() and not (out / "model_source.json").is_file() and any(out.iterdir()):
        raise ReleaseError(f"{out} is there and is no app repository", hint="move it away, then run again")
    with disk_errors(out, ReleaseError), staged_directory(out, resumable=False) as staging:
        for path, content in app_files(bundle, url, revision).items():
            (staging / path).parent.mkdir(exist_ok=True)
            (staging / path).write_bytes(content)
    return out


def app_files(bundle: Bundle, url: str, revision: str) -> dict[str, bytes]:
    """The whole app repository, path -> content, which fetches `revision` of the model repository `url`."""
    kind = cast(dict[str, Any], bundle.manifest["app"])["kind"]
    template = shipped("templates") / "openxlab"
    texts = {
        source.name if source.name in _AT_ROOT else f"{ROOM}/{source.name}": source.read_bytes()
        for source in template.iterdir()
        if source.is_file() and not (kind == "api" and source.name in _OF_THE_PAGE)
    }
    for file in bundle.files:
        if file.kind in ("app", "card") and file.path not in _LEFT_OUT:
            texts[file.path] = (bundle.path / file.path).read_bytes()
    texts[MANIFEST] = (bundle.path / MANIFEST).read_bytes()
    texts["requirements.txt"] = f"lmdeploy=={hosted_lmdeploy(bundle)}\n{UVICORN}\n".encode()
    texts["model_source.json"] = (json.dumps({"url": url, "revision": revision}, indent=1) + "\n").encode()
    texts[".gitignore"] = b".askpass\n.model.git/\n*.partial\n__pycache__/\n"
    return texts


def app_changes(wanted: Mapping[str, bytes], there: Mapping[str, str]) -> tuple[Change, ...]:
    """What writing these files would do to files of which the SHA-256 digests are known."""
    sizes = {path: (hashlib.sha256(content).hexdigest(), len(content)) for path, content in wanted.items()}
    return changes_between(sizes, there)


def plan_app(bundle: Bundle, url: str, revision: str, remote: str | None, *, is_private: bool) -> AppPlan:
    """What `write_app` would write, against what it wrote before, and what a person would give the app."""
    out = app_place(bundle)
    there = {str(path.relative_to(out)): hash_file(path) for path in out.rglob("*") if path.is_file()}
    changes = app_changes(app_files(bundle, url, revision), there)
    return AppPlan(
        place=f"{out}, pushed to {remote}" if remote else str(out),
        sdk="gradio",
        hardware=None,
        is_private=None,
        secrets=("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN") if is_private else (),
        changes=changes,
        upload_bytes=sum(change.bytes for change in changes),
    )


def hosted_lmdeploy(bundle: Bundle) -> str:
    """The LMDeploy that the app installs: the planned one, or the newest for the hub's Python that serves it alike."""
    plan = cast(dict[str, Any], bundle.manifest["plan"])
    borders = cast(dict[str, Any], bundle.manifest["model"])["lmdeploy"]
    planned = str(plan["lmdeploy"])
    try:
        has_wheel = lmdeploy.age(planned) <= lmdeploy.age(LMDEPLOY)
        serves = lmdeploy.age(borders["min"]) <= lmdeploy.age(LMDEPLOY)
        flags = [word for word in plan["argv"] if word.startswith("--")]
        takes = all(lmdeploy.has_flag(LMDEPLOY, flag) for flag in flags)
    except (ValueError, KeyError, TypeError):  # a version or flag that this deploytk does not know
        return planned
    return LMDEPLOY if not has_wheel and serves and takes else planned


def push_app(app: Path, remote: str) -> str:
    """Push the app repository to `remote` as one commit on top of what is there, with the user's own git settings.

    Returns the commit. Nothing is pushed when nothing has changed.
    """
    if re.search(r"//[^/@]*:[^/@]*@", remote):
        raise UsageError(
            "--app-remote holds a password", hint="use an ssh address, or git's credential helper, without the password"
        )
    git_directory = app.with_name(f".{app.name}.git")
    shutil.rmtree(git_directory, ignore_errors=True)
    try:
        _git(app, git_directory, "init", "--quiet", "--initial-branch=main", ".")
        parent = ""
        if _git(app, git_directory, "ls-remote", remote, "refs/heads/main"):
            _git(app, git_directory, "fetch", "--quiet", "--depth=1", remote, "refs/heads/main")
            parent = _git(app, git_directory, "rev-parse", "FETCH_HEAD").strip()
        _git(app, git_directory, "add", "--all", "--force", ".")
        tree = _git(app, git_directory, "write-tree").strip()
        if parent and _git(app, git_directory, "rev-parse", f"{parent}^{{tree}}").strip() == tree:
            return parent
        parents = ("-p", parent) if parent else ()
        commit = _git(app, git_directory, "commit-tree", tree, *parents, "-m", "Update the app").strip()
        _git(app, git_directory, "push", "--quiet", remote, f"{commit}:refs/heads/main")
        return commit
    finally:
        shutil.rmtree(git_directory, ignore_errors=True)


def steps_left(bundle: Bundle, place: Place, app: Path, remote: str | None, *, is_private: bool) -> tuple[str, ...]:
    """What only a person can do, one sentence each: OpenXLab has no way to make an app but its web form."""
    plan = cast(dict[str, Any], bundle.manifest["plan"])
    gib = plan["vram"]["total_bytes"] / 2**30
    code = remote or "the repository that you pushed to"
    push = () if remote else (f"push {app} to a new GitHub repository, or run again with --app-remote URL",)
    secrets = (
        " Under 高级配置 (advanced) set the variables OPENXLAB_USERNAME and OPENXLAB_GIT_TOKEN (one that may read)."
    )
    return (
        *push,
        f"open {SITE}/apps, 创建应用 (create), Gradio: name {bundle.name}, task Text Generation, code {code}, "
        f"start file app.py, hardware with {gib:.1f} GiB of GPU memory or more ({SITE}/apps/apply-hardware)."
        + (secrets if is_private else ""),
        "when the app has an address: deploytk publish with the same options and --app-url ADDRESS --wait 2h",
        f"once it runs, 公开 (make it public) on the app's page; the model repository is {place.page}",
    )


def _git(app: Path, git_directory: Path, *arguments: str) -> str:
    environment = {**os.environ, **_ENVIRONMENT, "GIT_DIR": str(git_directory), "GIT_WORK_TREE": str(app)}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=app, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_LIMIT_S, preexec_fn=die_with_parent, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise ReleaseError("git is not installed here", hint="install it: apt-get install git") from error
    except subprocess.TimeoutExpired as error:
        raise ReleaseError(f"git did not end within {_LIMIT_S:.0f} s", hint="run again later") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ReleaseError(
            f"git {arguments[0]} failed for the app: {lines[-1][:300]}",
            hint="try `git ls-remote` with the address of --app-remote: it must work without a password prompt",
        )
    return done.stdout
