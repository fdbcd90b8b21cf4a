"""Finds out what works on this machine, before a long job finds out."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import httpx

from deploytk import lmdeploy
from deploytk.base.settings import Settings
from deploytk.publish.target import About, loadable_targets

_ANSWER_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a command may need."""

    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str  # what was found
    needed_for: str
    hint: str  # "" when nothing is to be done


@dataclass(frozen=True, slots=True)
class Checkup:
    checks: tuple[Check, ...]
    can: tuple[str, ...]  # what works here, as commands


def check_up(settings: Settings, *, security: bool = False) -> Checkup:
    """Look at driver, GPU, engines, Docker, git, credentials and mirrors; nothing is changed, no token is shown."""
    targets = [found.about for found in loadable_targets()]
    checks = (
        _gpu(),
        _lmdeploy(),
        _extra("cpu", "torch", "transformers", needed_for="serve --engine cpu, demo"),
        _extra("ui", "gradio", needed_for="gradio_client at what serve and demo start"),
        _docker(),
        *(check for target in targets for check in _of_target(target)),
        *_mirrors(settings),
    )
    if security:
        checks = (*checks, *_advisories(checks))
    working = {check.name for check in checks if check.status == "ok"}
    commands = _COMMANDS | {f"publish --target {target.name}": _needs(target) for target in targets}
    return Checkup(checks, tuple(command for command, needs in commands.items() if needs <= working))


_COMMANDS: dict[str, set[str]] = {
    "inspect, plan, modernize, package, preflight, report": set(),
    "smoke of a server that runs": set(),
    "serve --engine cpu": {"extra cpu", "extra ui"},
    "serve --engine turbomind": {"GPU", "LMDeploy", "extra ui"},
    "build": {"Docker"},
}


def _gpu() -> Check:
    needed_for = "serve --engine turbomind, the VRAM part of smoke and bench"
    query = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if not shutil.which(query[0]):
        return Check("GPU", "missing", "no NVIDIA driver", needed_for, "without a GPU use --engine cpu for previews")
    return _run("GPU", query, needed_for, hint="run nvidia-smi to see what the driver says")


def _lmdeploy() -> Check:
    needed_for = "serve --engine turbomind"
    if not shutil.which("lmdeploy"):
        return Check(
            "LMDeploy", "missing", "not on PATH", needed_for, "pip install lmdeploy, in an environment with a GPU"
        )
    return _run(
        "LMDeploy", ("lmdeploy", "--version"), needed_for, hint="reinstall it: pip install --force-reinstall lmdeploy"
    )


_NEEDS = {
    "pickles": "of weights in pickles: ",
    "code": "of models with Python files: ",
    "images": "of models with pictures: ",
}


def _advisories(checks: Sequence[Check]) -> Iterator[Check]:
    """What is known to be weak in the LMDeploy found here, else in the one that images install, and in this Python."""
    found = next((check for check in checks if check.name == "LMDeploy" and check.status == "ok"), None)
    installed = re.search(r"\d+(\.\d+)+(\.post\d+)?", found.detail) if found else None
    packages = {"lmdeploy": installed[0] if installed else lmdeploy.NEWEST} | _versions("torch", "transformers")
    for advisory, version in lmdeploy.advisories_in(packages.items()):
        fixed = f"fixed in {advisory.fixed}" if advisory.fixed else "not fixed in any release"
        what = f"{_NEEDS.get(advisory.needs or '', '')}{advisory.what} ({fixed})"
        status: Literal["ok", "broken"] = "ok" if advisory.is_shielded else "broken"
        hint = f"the app shields from it: {advisory.why}" if advisory.is_shielded else advisory.why
        yield Check(advisory.id, status, what, f"{advisory.package} {version}", hint)


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _extra(extra: str, *packages: str, needed_for: str) -> Check:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        hint = f"pip install 'deploytk[{extra}]'"
        return Check(f"extra {extra}", "missing", f"{', '.join(missing)} not installed", needed_for, hint)
    return Check(f"extra {extra}", "ok", ", ".join(packages), needed_for, "")


def _docker() -> Check:
    needed_for = "build, serve and smoke of images"
    try:
        from deploytk.image.docker import daemon_version
    except ImportError:
        return Check("Docker", "missing", "the docker package is not installed", needed_for, "pip install docker")
    from deploytk.base.errors import ImageError

    try:
        return Check("Docker", "ok", daemon_version(), needed_for, "")
    except ImageError as error:
        return Check("Docker", "missing", str(error), needed_for, error.hint)


def _program(name: str, command: tuple[str, ...], needed_for: str) -> Check:
    if not shutil.which(name):
        return Check(name, "missing", "not on PATH", needed_for, f"install it, for example: apt-get install {name}")
    return _run(name, command, needed_for, hint=f"run {' '.join(command)} to see what is wrong")


def _run(name: str, command: tuple[str, ...], needed_for: str, hint: str) -> Check:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_WITHIN_S * 6, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, "broken", str(error), needed_for, hint)
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    detail = "; ".join(lines[:8]) or f"exit code {done.returncode}"
    return Check(name, "broken" if done.returncode else "ok", detail, needed_for, hint if done.returncode else "")


def _needs(target: About) -> set[str]:
    """The names of the checks that must be well for publishing there."""
    extras = {f"extra {name}" for name in target.extra[:1]}
    return {*target.programs, *target.needs, *extras, *([f"credentials {target.name}"] if target.credential else [])}


def _of_target(target: About) -> list[Check]:
    needed_for = f"publish --target {target.name}"
    checks = [_program(name, (name, "--version"), needed_for) for name in target.programs]
    if target.extra:
        name, *packages = target.extra
        checks.append(_extra(name, *packages, needed_for=needed_for))
    if target.credential:
        found = target.credential()
        status: Literal["ok", "missing"] = "ok" if found.source else "missing"
        detail, hint = (f"from {found.source}", "") if found.source else ("none found", found.hint)
        checks.append(Check(f"credentials {target.name}", status, detail, needed_for, hint))
    return checks


def _mirrors(settings: Settings) -> list[Check]:
    mirrors = settings.mirrors
    addresses = {
        "mirror pip": mirrors.address("pip"),
        "mirror apt": mirrors.address("apt"),
        "mirror huggingface": os.environ.get("HF_ENDPOINT") or mirrors.address("huggingface"),
    }
    return [_mirror(name, address) for name, address in addresses.items() if address]


def _mirror(name: str, address: str) -> Check:
    needed_for = "build, publish"
    try:
        answer = httpx.head(address, timeout=_ANSWER_WITHIN_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        hint = "correct [mirrors] in deploytk.toml or HF_ENDPOINT"
        return Check(name, "broken", f"{address} does not answer: {type(error).__name__}", needed_for, hint)
    return Check(name, "ok", f"{address} answers ({answer.status_code})", needed_for, "")
