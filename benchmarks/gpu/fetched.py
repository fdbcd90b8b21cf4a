"""Apps without weights, with real LMDeploy on a GPU: what brings the weights, and 8 of 8 right answers afterwards.

    python benchmarks/gpu/fetched.py MODEL DIALOGS [-o OUT]

Needs `lmdeploy` and gradio, a GPU, and root for /weights. Two apps, each as it is published:

- the files of a Space with the gradio SDK; the hub's cache holds what its README asks the hub to preload;
- the files of an image built with `--weights download`; a server on loopback stands for the hub.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "toolkit"), str(ROOT / "benchmarks")]

import httpx  # noqa: E402
from serving import gpu  # noqa: E402
from timing import machine  # noqa: E402

from deploytk.artifact import read_artifact  # noqa: E402
from deploytk.base.progress import Silent  # noqa: E402
from deploytk.bundle import Bundle, BundleOptions, render_bundle  # noqa: E402
from deploytk.image.fetching import fetching_files  # noqa: E402
from deploytk.image.layers import ROOT as IMAGE_ROOT  # noqa: E402
from deploytk.image.tar import Link  # noqa: E402
from deploytk.image.value import WEIGHTS_PLACE, WeightsSource  # noqa: E402
from deploytk.plan import PlanRequest, plan_serving  # noqa: E402
from deploytk.publish.targets.huggingface.space_files import ModelSource, space_files  # noqa: E402

REPO, REVISION = "me/tiny", "0" * 40
READY_S = 150


def write_space(bundle: Bundle, out: Path, home: Path) -> None:
    """The Space's files at `out`; below `home` the hub's cache with the model, as links to blobs."""
    for path, content in space_files(
        bundle, ModelSource("http://127.0.0.1:9", REPO, REVISION, False), "gradio"
    ).items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
    cache = home / ".cache" / "huggingface" / "hub" / f"models--{REPO.replace('/', '--')}"
    for file in bundle.files:
        if file.kind in ("weights", "model"):
            blob, link = cache / "blobs" / file.sha256, cache / "snapshots" / REVISION / file.path
            blob.parent.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes((bundle.path / file.path).read_bytes())
            link.symlink_to(blob)


def write_image(bundle: Bundle, out: Path, endpoint: str) -> None:
    """The files of an image without weights, and a place for what it fetches."""
    contents = {f"{IMAGE_ROOT}/{file.path}": file for file in bundle.files if file.kind != "weights"}
    for name, file in contents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes((bundle.path / file.path).read_bytes())
    (out / IMAGE_ROOT / "deploytk.json").write_bytes((bundle.path / "deploytk.json").read_bytes())
    for name, content in fetching_files(bundle, WeightsSource(endpoint, REPO, REVISION)).items():
        if isinstance(content, Link):
            (out / name).symlink_to(content.target)
        elif isinstance(content, bytes):
            (out / name).write_bytes(content)
    Path(WEIGHTS_PLACE).mkdir(exist_ok=True)


@contextlib.contextmanager
def hub(bundle: Bundle, root: Path) -> Iterator[str]:
    """REPO/resolve/REVISION/PATH over HTTP."""
    place = root / REPO / "resolve" / REVISION
    place.parent.mkdir(parents=True)
    place.symlink_to(bundle.path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answers_of(directory: Path, log: Path, dialogs: list[dict[str, str]], **environment: str) -> dict[str, Any]:
    """Start app.py there; what it went through until it was ready, and how many answers are right."""
    started, states = time.monotonic(), []
    url = "http://127.0.0.1:7861"
    settings = {**os.environ, "HOST": "127.0.0.1", "PORT": "7861", "HF_HUB_OFFLINE": "1", **environment}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=directory, env=settings, stdout=output, stderr=output
        )
    try:
        while not states or states[-1] != "ready":
            if process.poll() is not None or time.monotonic() - started > READY_S or states[-1:] == ["failed"]:
                return {"states": states, "log": log.read_text(errors="replace")[-1500:]}
            state = _state(url)
            if state != states[-1:] and state:
                states += state
            time.sleep(0.02)
        ready_s = time.monotonic() - started
        model = httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).json()["data"][0]
        right = sum(_answer(url, model["id"], dialog["prompt"]) == dialog["answer"] for dialog in dialogs)
        page = httpx.get(url, timeout=20, trust_env=False)
        return {
            "states": states,
            "ready_s": round(ready_s, 1),
            "engine": model.get("owned_by"),
            "right": f"{right} of {len(dialogs)}",
            "page": page.status_code,
            "fetched": [
                line for line in log.read_text(errors="replace").splitlines() if line.endswith((" bytes", "preloaded"))
            ],
        }
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _state(url: str) -> list[str]:
    try:
        return [str(httpx.get(f"{url}/ready", timeout=5, trust_env=False).json()["state"])]
    except (httpx.HTTPError, ValueError, KeyError):
        return []


def _answer(url: str, model: str, prompt: str) -> str:
    body: Mapping[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 512,
    }
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False).json()
    return str(answer["choices"][0]["message"]["content"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("dialogs", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    dialogs = json.loads(arguments.dialogs.read_text(encoding="utf-8"))
    found: dict[str, Any] = {"machine": machine(), "gpu": gpu()}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        artifact = read_artifact(arguments.model)
        plan = plan_serving(artifact, PlanRequest(model_name="tiny"))
        bundle = render_bundle(artifact, plan, BundleOptions(name="tiny", license="mit"), place / "bundle", Silent())
        write_space(bundle, place / "space", place / "home")
        found["space, preloaded"] = answers_of(
            place / "space", place / "space.log", dialogs, HOME=str(place / "home"), HF_HUB_CACHE=""
        )
        with hub(bundle, place / "hub") as endpoint:
            write_image(bundle, place / "image", endpoint)
            image = place / "image" / IMAGE_ROOT
            weights = {"DEPLOYTK_WEIGHTS": WEIGHTS_PLACE}  # as the config of the image says
            found["image, fetched"] = answers_of(image, place / "image.log", dialogs, **weights)
    text = json.dumps(found, indent=1)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    print(text)


main()
