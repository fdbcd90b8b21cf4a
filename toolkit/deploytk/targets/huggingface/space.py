"""The app on Hugging Face: a Space with the docker SDK that fetches the model while it is built."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any, cast

import httpx
import yaml

from deploytk import lmdeploy
from deploytk.bundle import MANIFEST, Bundle
from deploytk.digests import hash_file
from deploytk.errors import ReleaseError, TryAgainError
from deploytk.progress import Progress
from deploytk.release import PublishOptions
from deploytk.shipped import shipped
from deploytk.targets.huggingface.client import Client
from deploytk.targets.huggingface.repository import LocalFile, bring, open_repository

TOKEN_VARIABLE = "HF_APP_TOKEN"  # noqa: S105 (its name)
"""A token that may read; the Space gets it as its secret HF_TOKEN, to fetch a private model."""

_SECRETS = {TOKEN_VARIABLE: "HF_TOKEN", "DEPLOYTK_API_KEYS": "DEPLOYTK_API_KEYS"}
_FETCH = """
# The model comes while the Space is built: it starts with everything there.
USER root
RUN --mount=type=secret,id=HF_TOKEN,mode=0444 HF_TOKEN="$(cat /run/secrets/HF_TOKEN 2>/dev/null || true)" \\
    python fetch_model.py
USER 10001:10001
"""
# GPU memory in GiB of what Spaces can be given. Source: hub-docs, docs/hub/spaces-gpus.md.
_HARDWARE = {"t4-small": 16, "l4x1": 24, "l40sx1": 48, "a100-large": 80}
_LAST_FOR_PYTHON_3_10, _BASE_FOR_IT = "0.7.3", "nvidia/cuda:12.4.1-base-ubuntu22.04"
_BUSY = re.compile(
    r"scheduling failure|unable to schedule|not enough (?:hardware )?capacity|no capacity", re.IGNORECASE
)
_FAILED = ("BUILD_ERROR", "CONFIG_ERROR", "RUNTIME_ERROR", "NO_APP_FILE", "DELETING")
_ASLEEP = ("PAUSED", "STOPPED", "SLEEPING")
_LOG_LINES = 15
_LOG_WITHIN_S = 10.0
_RESTART_EVERY_S = 60.0


def require_token(client: Client, repo: str, *, is_private: bool) -> None:
    """Raises ReleaseError when the Space could not read its model."""
    if is_private and not os.environ.get(TOKEN_VARIABLE):
        raise ReleaseError(
            f"the Space could not read its model: {repo} is private",
            hint=f"set {TOKEN_VARIABLE} to a token that may only read it ({client.hub.tokens_page}), or add --public",
        )


def publish_space(
    client: Client, bundle: Bundle, model: str, revision: str, options: PublishOptions, poll_s: float = 5.0
) -> tuple[str, ...]:
    """Create or update the Space MODEL-app and wait until this very commit of it answers; returns what is left to do.

    Raises ReleaseError with the end of its log when it fails, TryAgainError when it does not run in time.
    """
    name = f"{model}-app"
    secrets = {key: os.environ[variable] for variable, key in _SECRETS.items() if os.environ.get(variable)}
    space = {"space_sdk": "docker", "space_secrets": [{"key": k, "value": v} for k, v in secrets.items()] or None}
    if options.app_hardware:
        space["space_hardware"] = options.app_hardware
    repository = open_repository(client, name, "space", is_private=options.is_private, **space)
    with tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        wanted = _write(client, bundle, model, revision, Path(directory))
        outcome = bring(client, repository, wanted, f"Run {bundle.name}\n\n{bundle.digest}")
    is_changed = any(change.status != "same" for change in outcome.changes)
    if is_changed and not repository.is_new:
        for key, value in secrets.items():
            client.ask(lambda key=key, value=value: client.api.add_space_secret(name, key, value), name)  # type: ignore[misc]
    page = f"{client.hub.endpoint}/spaces/{name}"
    runtime = client.ask(lambda: client.api.get_space_runtime(name), name)
    hardware = str(runtime.requested_hardware or runtime.hardware or "cpu-basic")
    if options.app_hardware and hardware != options.app_hardware:
        client.ask(lambda: client.api.request_space_hardware(name, cast(Any, options.app_hardware)), name)
        hardware = options.app_hardware
    if _needs_gpu(bundle) and hardware.startswith("cpu"):
        asked = f"--app-hardware {suggested_hardware(bundle)}"
        return (f"give the Space a GPU, which costs money: run again with {asked}, or choose on {page}/settings",)
    if options.wait_s <= 0:
        return (f"see that it runs: {page}",)
    host = repository.head.host or f"https://{re.sub(r'[^a-z0-9]+', '-', name.lower())}.hf.space"
    _Waiting(client, name, outcome.commit, host, is_changed=is_changed).wait(options.wait_s, poll_s)
    return (f"test it: deploytk smoke {host}",)


def suggested_hardware(bundle: Bundle) -> str:
    """The smallest GPU of a Space that has the memory of the plan."""
    gib = cast(dict[str, Any], bundle.manifest["plan"])["vram"]["total_bytes"] / 2**30
    # A tenth of the memory is never free.
    return next((name for name, size in _HARDWARE.items() if gib <= 0.9 * size), "a100-large")


def _needs_gpu(bundle: Bundle) -> bool:
    return bool(cast(dict[str, Any], bundle.manifest["plan"])["engine"] != "cpu")


def _write(client: Client, bundle: Bundle, model: str, revision: str, out: Path) -> dict[str, LocalFile]:
    """The files of the Space: the app without the model, and what fetches the model."""
    texts = {
        file.path: (bundle.path / file.path).read_bytes()
        for file in bundle.files
        if file.kind == "app" and not file.path.startswith(".")
    }
    texts[MANIFEST] = (bundle.path / MANIFEST).read_bytes()
    texts["fetch_model.py"] = (shipped("templates") / "huggingface" / "fetch_model.py").read_bytes()
    source = {"endpoint": client.hub.endpoint, "repo": model, "revision": revision}
    texts["model_source.json"] = (json.dumps(source, indent=1) + "\n").encode()
    texts["Dockerfile"] = _dockerfile(bundle, texts["Dockerfile"].decode()).encode()
    texts["README.md"] = _readme(bundle, model).encode()
    for path, text in texts.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(text)
    return {path: LocalFile(out / path, len(text), hash_file(out / path)) for path, text in texts.items()}


def _dockerfile(bundle: Bundle, text: str) -> str:
    """The bundle's own, with the planned LMDeploy: a Space is built without arguments."""
    version = cast(dict[str, Any], bundle.manifest["plan"])["lmdeploy"]
    if version:
        text = re.sub(r"^ARG LMDEPLOY_VERSION=.*$", f"ARG LMDEPLOY_VERSION={version}", text, flags=re.MULTILINE)
        if lmdeploy.age(str(version)) <= lmdeploy.age(_LAST_FOR_PYTHON_3_10):
            text = re.sub(r"^ARG BASE_IMAGE=.*$", f"ARG BASE_IMAGE={_BASE_FOR_IT}", text, flags=re.MULTILINE)
    return f"{text.rstrip()}\n{_FETCH}"


def _readme(bundle: Bundle, model: str) -> str:
    """Source: hub-docs, docs/hub/spaces-config-reference.md."""
    app = cast(dict[str, Any], bundle.manifest["app"])
    card = cast(dict[str, Any], bundle.manifest["card"])
    front = {
        "title": app["title"],
        "emoji": "💬",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "docker",
        "app_port": app["port"],
        "license": card.get("license") or "unknown",
        "models": [model],
        "startup_duration_timeout": "1h",
        "tags": ["deploytk", "lmdeploy"],
    }
    if _needs_gpu(bundle):
        front["suggested_hardware"] = suggested_hardware(bundle)
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return (
        f"---\n{head}---\n\nServes [{model}](https://huggingface.co/{model}) as a chat page and an OpenAI-style API.\n"
    )


class _Waiting:
    """Asks the hub how a Space is, and the app itself once the hub says that it runs."""

    def __init__(self, client: Client, name: str, commit: str, host: str, *, is_changed: bool) -> None:
        self._client, self._name, self._commit, self._host = client, name, commit, host
        self._progress: Progress = client.progress
        self._is_ours = not is_changed  # whether what the hub says is about this commit
        self._restarted_at: float | None = None
        self._last = ""

    def wait(self, limit_s: float, poll_s: float) -> None:
        started = time.monotonic()
        while True:
            state = self._look()
            if state == "ready":
                return
            if state != self._last:
                self._progress.note(f"the Space is {state}")
                self._last = state
            left = limit_s - (time.monotonic() - started)
            if left <= 0:
                raise self._too_long(state, limit_s)
            time.sleep(min(poll_s, left))

    def _look(self) -> str:
        """building, starting, loading, waiting for hardware or ready; raises ReleaseError when it failed."""
        runtime = self._client.ask(lambda: self._client.api.get_space_runtime(self._name), self._name)
        stage, sha = str(runtime.stage), runtime.raw.get("sha")
        # Right after the commit the hub still shows the stage of the one before.
        self._is_ours |= sha == self._commit or (sha is None and "BUILDING" in stage)
        if not self._is_ours or (sha is not None and sha != self._commit):
            return "building"
        said = " ".join(str(runtime.raw.get("errorMessage") or "").split())
        if _BUSY.search(said):
            self._restart()
            return "waiting for hardware"
        if stage in _FAILED:
            which = "build" if stage in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE") else "run"
            raise ReleaseError(
                f"the Space {self._name} failed: {stage} {said}".rstrip() + f"\n{self._log(which)}",
                hint="the lines above are the end of its log",
            )
        if stage in _ASLEEP:
            self._restart()
            return "starting"
        if stage != "RUNNING":
            return "building" if "BUILDING" in stage else "starting"
        return self._probe()

    def _restart(self) -> None:
        now = time.monotonic()
        if self._restarted_at is None or now - self._restarted_at > _RESTART_EVERY_S:
            self._restarted_at = now
            self._client.ask(lambda: self._client.api.restart_space(self._name), self._name)

    def _probe(self) -> str:
        hub = self._client.hub
        headers = {"Authorization": f"Bearer {hub.token}"}
        try:
            answer = httpx.get(f"{self._host}/ready", headers=headers, timeout=10, trust_env=not hub.is_loopback)
            facts = answer.json()
            state, detail = str(facts["state"]), str(facts.get("detail", ""))
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return "starting"
        if state == "failed":
            raise ReleaseError(
                f"the app of the Space {self._name} failed: {detail}\n{self._log('run')}",
                hint="the lines above are the end of its log",
            )
        return "ready" if state == "ready" else "loading the model"

    def _log(self, which: str) -> str:
        hub = self._client.hub
        lines: deque[str] = deque(maxlen=_LOG_LINES)
        until = time.monotonic() + _LOG_WITHIN_S
        url = f"{hub.endpoint}/api/spaces/{self._name}/logs/{which}"
        headers = {"Authorization": f"Bearer {hub.token}"}
        try:
            with httpx.stream("GET", url, headers=headers, timeout=5, trust_env=not hub.is_loopback) as answer:
                for line in answer.iter_lines():  # it goes on for as long as the Space runs
                    if line.startswith("data:"):
                        lines.append(str(json.loads(line[5:])["data"]).rstrip()[:300])
                    if time.monotonic() > until:
                        break
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            pass
        return "\n".join(f"  {hub.redact(line)}" for line in lines) or "  (no log)"

    def _too_long(self, state: str, limit_s: float) -> TryAgainError:
        if state == "waiting for hardware":
            return TryAgainError(
                f"the hub has no hardware free for the Space {self._name}, after {limit_s:.0f} s",
                hint="run the same command again later, or with another --app-hardware; meanwhile: deploytk serve",
            )
        return TryAgainError(
            f"the Space {self._name} is still {state} after {limit_s:.0f} s",
            hint="run the same command again, with a longer --wait",
        )
