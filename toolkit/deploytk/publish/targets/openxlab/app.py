"""The app on OpenXLab: a repository beside the bundle, pushed, and the form that only a person can fill in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError
from deploytk.base.processes import die_with_parent
from deploytk.bundle import Bundle
from deploytk.publish.plan import AppPlan
from deploytk.publish.targets.common.app_repository import app_changes, app_files
from deploytk.publish.targets.openxlab.place import SITE, Place

_LIMIT_S = 300.0
_DATE = "2024-01-01T00:00:00+0000"
_ENVIRONMENT = {"GIT_AUTHOR_NAME": "deploytk", "GIT_AUTHOR_EMAIL": "deploytk@localhost", "GIT_AUTHOR_DATE": _DATE,
                "GIT_COMMITTER_NAME": "deploytk", "GIT_COMMITTER_EMAIL": "deploytk@localhost",
                "GIT_COMMITTER_DATE": _DATE, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}  # fmt: skip


def app_place(bundle: Bundle) -> Path:
    """Where the app repository of a bundle is written: beside it."""
    return bundle.path.with_name(f"{bundle.path.name}.app")


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


def push_app(app: Path, remote: str) -> str:
    """Push the app repository to `remote` as one commit on top of what is there, with the user's own git settings.

    Returns the commit. Nothing is pushed when nothing has changed.
    """
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
    gib = bundle.manifest.plan.vram.total_bytes / 2**30
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
