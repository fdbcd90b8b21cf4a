"""The files of a Space: the app without the model, and what brings the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from deploytk import lmdeploy
from deploytk.base.errors import UsageError
from deploytk.base.shipped import shipped
from deploytk.bundle import MANIFEST, ROOM, START, Bundle, to_text_of_app
from deploytk.publish.targets.huggingface.hardware import needs_gpu, suggested_hardware
from deploytk.publish.targets.huggingface.options import AppSdk

_FETCH = """
# The model comes while the Space is built: it starts with everything there.
USER root
RUN --mount=type=secret,id=HF_TOKEN,mode=0444 HF_TOKEN="$(cat /run/secrets/HF_TOKEN 2>/dev/null || true)" \\
    python -I deploytk_app/fetch_model.py
USER 10001:10001
"""
_GRADIO_PYTHON = "3.12"
OWNED = ("sdk", "sdk_version", "python_version", "app_file", "app_port", "models", "preload_from_hub")
"""Keys at the head of a Space's README.md without which it runs not, or something else; others are anybody's."""

_PRELOADED_AT_MOST = 100  # files; a longer list is no list for a front matter


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the model is published."""

    endpoint: str
    repo: str
    revision: str  # "" before it is known
    is_private: bool


def space_files(bundle: Bundle, source: ModelSource, sdk: AppSdk) -> dict[str, bytes]:
    """Path -> content; raises UsageError when the engine of the plan cannot run under that SDK."""
    texts = {
        file.path: (bundle.path / file.path).read_bytes()
        for file in bundle.files
        if file.kind == "app" and not file.path.startswith(".")
    }
    texts[f"{ROOM}/fetch_model.py"] = (shipped("templates") / "fetch" / "fetch_model.py").read_bytes()
    place = {"endpoint": source.endpoint, "repo": source.repo, "revision": source.revision}
    texts["model_source.json"] = (json.dumps(place, indent=1) + "\n").encode()
    if sdk == "docker":
        front: dict[str, Any] = {"sdk": "docker", "app_port": bundle.manifest.app.port}
        texts["Dockerfile"] = _dockerfile(bundle, texts["Dockerfile"].decode()).encode()
    else:
        front = {"sdk": "gradio", "sdk_version": _gradio_version(), "python_version": _GRADIO_PYTHON}
        front |= {"app_file": START, **_preloaded(bundle, source)}
        texts["requirements.txt"] = _requirements(bundle, texts["requirements.txt"].decode()).encode()
        del texts["Dockerfile"]
    readme = _readme(bundle, source.repo, front)
    return with_readme(bundle, texts, readme, readme)


def with_readme(bundle: Bundle, texts: Mapping[str, bytes], readme: str, generated: str) -> dict[str, bytes]:
    """The files with that README.md, and a deploytk.json that tells of all of them and of what was `generated`."""
    files = {path: content for path, content in texts.items() if path != MANIFEST} | {"README.md": readme.encode()}
    manifest = to_text_of_app(bundle.manifest, files, {"README.md": generated})
    return files | {MANIFEST: manifest.encode()}


def _dockerfile(bundle: Bundle, text: str) -> str:
    """The bundle's own, with the planned LMDeploy: a Space is built without arguments."""
    version = bundle.manifest.plan.lmdeploy
    if version:
        text = re.sub(r"^ARG LMDEPLOY_VERSION=.*$", f"ARG LMDEPLOY_VERSION={version}", text, flags=re.MULTILINE)
        base = lmdeploy.legacy_base(str(version))
        if base:
            text = re.sub(r"^ARG BASE_IMAGE=.*$", f"ARG BASE_IMAGE={base}", text, flags=re.MULTILINE)
    return f"{text.rstrip()}\n{_FETCH}"


def _requirements(bundle: Bundle, text: str) -> str:
    """The app's own and the engine's: under Gradio's SDK both share one environment."""
    version = bundle.manifest.plan.lmdeploy
    if version is None:
        return f"{text.rstrip()}\ndeploytk[cpu]\n"
    if not lmdeploy.goes_with_gradio_6(str(version)):
        hint = "take --app-sdk docker, or modernize the model first"
        raise UsageError(f"LMDeploy {version} cannot share an environment with Gradio 6", hint=hint)
    return f"{text.rstrip()}\nlmdeploy=={version}\n"


def _preloaded(bundle: Bundle, source: ModelSource) -> dict[str, list[str]]:
    """What the hub puts into the Space's cache while it builds it; it cannot read private repositories then.

    What it does not bring, the app fetches itself when it starts.
    """
    names = [file.path for file in bundle.files if file.kind in ("weights", "model")]
    # Names and commas separate: a name with either cannot be told.
    if source.is_private or len(names) > _PRELOADED_AT_MOST or any(re.search(r"[\s,]", name) for name in names):
        return {}
    return {"preload_from_hub": [f"{source.repo} {','.join(names)} {source.revision}"]}


def _gradio_version() -> str:
    """The one that images are locked to."""
    lock = (shipped("images") / "requirements" / "app.txt").read_text(encoding="utf-8")
    found = re.search(r"^gradio==(\S+)", lock, re.MULTILINE)
    assert found  # noqa: S101 (a test holds it)
    return found[1]


def _readme(bundle: Bundle, model: str, front: Mapping[str, Any]) -> str:
    """Source: hub-docs, docs/hub/spaces-config-reference.md."""
    facts = {
        "title": bundle.manifest.app.title,
        "emoji": "💬",
        "colorFrom": "blue",
        "colorTo": "green",
        **front,
        "license": bundle.manifest.card.license or "unknown",
        "models": [model],
        "startup_duration_timeout": "1h",
        "tags": ["deploytk", "lmdeploy"],
    }
    if needs_gpu(bundle):
        facts["suggested_hardware"] = suggested_hardware(bundle)
    head = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=10**6)
    return (
        f"---\n{head}---\n\nServes [{model}](https://huggingface.co/{model}) as a chat page and an OpenAI-style API.\n"
    )
