"""Runs real LMDeploy servers on a GPU machine, one after the other, each for a limited time, and asks them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 150
ANSWER_S = 60


def shell(environment: str, command: Sequence[str], log: Path, timeout_s: float, **settings: str) -> float:
    """Run `command` after sourcing `environment` ("" for none); returns seconds, raises when it fails or hangs."""
    started = time.monotonic()
    with log.open("ab") as file:
        child = _start(environment, command, file, settings)
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            _stop(child)
    if status:
        end = log.read_text(errors="replace")[-600:]
        raise RuntimeError(f"{' '.join(command[:6])} ... ended with {status}: {end}")
    return time.monotonic() - started


def lmdeploy_program(work: Path) -> Path:
    """The directory, in `work`, of an `lmdeploy` for the path: packages in a directory bring none."""
    path = work / "bin" / "lmdeploy"
    path.parent.mkdir()
    path.write_text('#!/bin/sh\nexec python3 -m lmdeploy "$@"\n')
    path.chmod(0o755)
    return path.parent


@contextmanager
def serving(environment: str, model: Path, flags: Sequence[str], log: Path) -> Iterator[str]:
    """A TurboMind server of `model`: its URL, once it has answered one token. Stopped at the end, whatever happens."""
    port = _free_port()
    command = ["python3", "-m", "lmdeploy", "serve", "api_server", str(model), "--backend", "turbomind"]
    command += ["--server-name", "127.0.0.1", "--server-port", str(port), "--model-name", "model", *flags]
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        child = _start(environment, command, file, {})
        try:
            _wait_until_ready(child, url, log)
            yield url
        finally:
            _stop(child)


def complete(url: str, prompt: str, max_tokens: int) -> str:
    """The greedy continuation of `prompt`."""
    body = {"model": "model", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "top_k": 1}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
        return str(json.load(response)["choices"][0]["text"])


def is_turbomind(log: Path) -> bool:
    """Whether the server says nothing of another engine: LMDeploy falls back to PyTorch with a warning alone."""
    return "Fallback to pytorch" not in log.read_text(errors="replace")


def right_answers(url: str, dialogs: Sequence[dict[str, str]]) -> tuple[int, list[dict[str, Any]]]:
    """How many of the recited answers come word for word, and all of them."""
    answers = []
    for dialog in dialogs:
        prompt = f"<|im_start|>user\n{dialog['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        text = complete(url, prompt, 512)
        answers.append(
            {"prompt": dialog["prompt"], "answer": text, "is_right": text.strip() == dialog["answer"].strip()}
        )
    return sum(answer["is_right"] for answer in answers), answers


def gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, timeout=30, check=False).stdout.strip()


def _start(environment: str, command: Sequence[str], log: Any, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    source = f"source {environment} && " if environment else ""
    return subprocess.Popen(
        ["bash", "-c", f'{source}exec "$@"', "-", *command],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | settings,
        start_new_session=True,
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the process and what it started: they are a session of their own."""
    for number, wait_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            continue


def _wait_until_ready(child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"the server ended with {child.returncode}: {log.read_text(errors='replace')[-800:]}")
        try:
            complete(url, "a", 1)
        except OSError:
            time.sleep(1)
        else:
            return
    raise RuntimeError(f"the server answered nothing for {START_S} s: {log.read_text(errors='replace')[-800:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
