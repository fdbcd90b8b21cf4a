"""Reads requirements.txt and packages.txt as the hub will install them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from deploytk.preflight.value import Finding
from deploytk.publish.platform import Platform

_NO_INDEX = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ProxyError",
    "SSLError",
)  # pip's words
_LIMIT_S = 300.0
_LINE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*(?P<version>[^;#]*?)\s*(;.*)?")

# Their wheels are few or none: pip builds them, which needs nvcc, a compiler, and longer than a hub waits.
_BUILT = {
    "apex": "it is optional everywhere",
    "auto-gptq": "TurboMind reads AWQ and GPTQ weights itself",
    "autoawq": "TurboMind reads AWQ weights itself",
    "causal-conv1d": "no model that TurboMind serves needs it",
    "deepspeed": "it is for training",
    "flash-attn": "LMDeploy brings its own attention kernels",
    "mamba-ssm": "no model that TurboMind serves needs it",
    "xformers": "LMDeploy brings its own attention kernels",
}

# The first versions that need a Python newer than 3.9, by their package metadata.
_NEWER_PYTHON = {
    "gradio": ("5", (3, 10)),
    "lmdeploy": ("0.11", (3, 10)),
    "transformers": ("5", (3, 10)),
    "uvicorn": ("0.40", (3, 10)),
}


def check_requirements(app: Path, platform: Platform) -> list[Finding]:
    """What speaks against requirements.txt, without asking anybody."""
    place = app / "requirements.txt"
    if not place.is_file():
        hint = "write one, with == for every package"
        return [Finding("warning", "unpinned", "there is no requirements.txt: the image's versions are used", hint)]
    findings: list[Finding] = []
    for number, raw in enumerate(place.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        line = raw.split(" #")[0].strip()
        if not line or line.startswith(("#", "-")):
            continue
        where = f"requirements.txt, line {number}"
        if re.match(r"(git\+|https?://|\.|/)|.*@\s*(git\+|https?://)", line):
            hint = "name a released version from the package index"
            findings.append(Finding("warning", "unpinned", f"{where}: {line!r} is fetched and built at install", hint))
            continue
        match = _LINE.fullmatch(line)
        if not match or not re.fullmatch(r"((===?|~=|!=|<=?|>=?)\s*[\w.*+!-]+\s*,?\s*)*", match["version"]):
            findings.append(
                Finding("error", "malformed", f"{where}: {line!r} is no requirement", "write NAME==VERSION")
            )
            continue
        findings += _of_package(where, match["name"].lower().replace("_", "-"), match["version"], platform)
    return findings


def _of_package(where: str, name: str, version: str, platform: Platform) -> list[Finding]:
    found = []
    if name in _BUILT:
        message = f"{where}: {name} is compiled at install, which an app image cannot do"
        found.append(Finding("error", "builds-at-install", message, f"leave it out: {_BUILT[name]}"))
    elif not version.startswith(("==", "~=")) and "<" not in version:
        message = f"{where}: {name} may be any version{f' ({version})' if version else ''}"
        found.append(
            Finding("warning", "unpinned", message, "pin it with ==: the version of today worked, not the next")
        )
    first, python = _NEWER_PYTHON.get(name, ("", (0, 0)))
    lowest = re.match(r"(?:===?|~=|>=?)\s*v?([\d.]+)", version)
    if first and lowest and platform.python < python and _numbers(lowest[1]) >= _numbers(first):
        needs = ".".join(map(str, python))
        there = ".".join(map(str, platform.python))
        message = f"{where}: {name} {lowest[1]} needs Python {needs}, {platform.name} has {there}"
        found.append(Finding("error", "needs-newer-python", message, f"name a version of {name} below {first}"))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.strip(".").split(".") if part)


def check_packages(app: Path, source: str) -> list[Finding]:
    """Whether packages.txt, for apt, has the programs that the start-up uses."""
    place = app / "packages.txt"
    named = set(place.read_text(encoding="utf-8").split()) if place.is_file() else set()
    needs = {"git"} if re.search(r"git clone|[\"']git[\"']", source) else set()
    needs |= {"git", "git-lfs"} if re.search(r"git[ -]lfs|[\"']lfs[\"']", source) else set()
    return [
        Finding("error", "missing-package", f"the app uses {program}, packages.txt does not name it", f"add {program}")
        for program in sorted(needs - named)
    ]


def ask_pip(app: Path, platform: Platform) -> list[Finding]:
    """Whether pip can install the requirements from wheels for the hub's Python; asks the package index."""
    python = ".".join(map(str, platform.python))
    command = [sys.executable, "-I", "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", "--no-input"]
    command += ["--disable-pip-version-check", "--target", "unused", "--only-binary", ":all:"]
    command += ["--python-version", python, "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"]
    command += ["-r", str(app / "requirements.txt")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        hint = "run again, or look at the requirements by hand"
        return [Finding("unknown", "not-checked", f"pip did not resolve them in {_LIMIT_S:.0f} s", hint)]
    if done.returncode == 0:
        return []
    if any(sign in done.stderr for sign in _NO_INDEX):
        hint = "look at the network or at PIP_INDEX_URL, then run again"
        return [Finding("unknown", "not-checked", "the package index does not answer", hint)]
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: no reason given"]
    message = f"pip cannot install the requirements for Python {python}: {errors[0].removeprefix('ERROR: ')[:300]}"
    return [Finding("error", "unresolvable", message, "change the version that it names")]
