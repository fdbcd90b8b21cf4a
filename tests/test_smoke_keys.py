"""Keys of servers: found where they are named, sent to that server alone, shown nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from commands import Done, run
from conftest import MODELS
from honest_server import Send, answer_json, honest
from lying_server import Asked, Script, lying, plain

KEY = "sk-1234567890abcdef"


def _asking_for(key: str, seen: list[Asked] | None = None) -> Script:
    """An honest server that lets in who has `key`."""

    def script(asked: Asked, send: Send) -> None:
        if seen is not None:
            seen.append(asked)
        if f"authorization: bearer {key}".encode() in asked.head.lower():
            honest(asked, send)
        else:
            send(answer_json({"error": {"message": "no key, no answer"}}, "401 Unauthorized"))

    return script


_LIMITS = ("--requests", "2", "--output-tokens", "6", "--time-limit", "60s")


def _refused(url: str, *more: str, **environment: str) -> Done:
    """What never comes to a measurement needs no process of its own."""
    with mock.patch.dict(os.environ, environment):
        return run("smoke", url, *_LIMITS, *more)


def _smoke(url: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploytk", "smoke", url, *_LIMITS, *more],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(("options", "variable"), [((), "DEPLOYTK_API_KEY"), (("--api-key-env", "MY_KEY"), "MY_KEY")])
def test_the_key_of_the_variable_is_sent_and_shown_nowhere(
    options: tuple[str, ...], variable: str, tmp_path: Path
) -> None:
    seen: list[Asked] = []
    kept = [str(tmp_path / name) for name in ("r.json", "r.jsonl")]
    with lying(_asking_for(KEY, seen)) as url:
        done = _smoke(f"{url}/x", "-o", kept[0], "--raw", kept[1], *options, **{variable: KEY})

    assert done.returncode == 0, done.stdout + done.stderr
    assert {asked.path for asked in seen} >= {"/x/ready", "/x/v1/models", "/x/metrics", "/x/v1/chat/completions"}
    assert all(f"bearer {KEY}".encode() in asked.head.lower() for asked in seen)
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert KEY not in done.stdout + done.stderr + written


def test_a_missing_key_is_said_at_once_with_the_option() -> None:
    with lying(_asking_for(KEY)) as url:
        done = _refused(f"{url}/x")

    assert done.code == 1
    assert "wants a key (HTTP status 401)" in done.stderr
    assert "DEPLOYTK_API_KEY" in done.stderr
    assert "--api-key-env" in done.stderr


def test_a_wrong_key_is_said_and_not_shown() -> None:
    with lying(_asking_for("another")) as url:
        done = _refused(f"{url}/x", DEPLOYTK_API_KEY=KEY)

    assert done.code == 1
    assert "does not take the key" in done.stderr
    assert KEY not in done.stdout + done.stderr


def test_a_key_asked_for_by_completions_alone_is_said() -> None:
    def script(asked: Asked, send: Send) -> None:
        if "completions" in asked.path:
            send(answer_json({"error": "no"}, "401 Unauthorized"))
        else:
            honest(asked, send)

    with lying(script) as url:
        done = _refused(f"{url}/x")

    assert done.code == 1
    assert "wants a key" in done.stderr


def test_a_redirect_to_another_server_does_not_get_the_key() -> None:
    stolen: list[Asked] = []
    with lying(lambda asked, send: (stolen.append(asked), send(plain(b"{}")))[1]) as thief:

        def script(_: Asked, send: Send) -> None:
            send(plain(b"", "307 There", f"Location: {thief}/x\r\n"))

        with lying(script) as url:
            done = _refused(f"{url}/x", "--wait", "0s", DEPLOYTK_API_KEY=KEY)

    assert done.code == 1
    assert stolen == []


@pytest.mark.parametrize(
    ("source", "options", "environment", "word"),
    [
        ("http://127.0.0.1:9", ("--api-key-env", "NOT_SET"), {}, "holds no key"),
        ("http://127.0.0.1:9", (), {"DEPLOYTK_API_KEY": "a b"}, "no key can be sent"),
        ("http://127.0.0.1:9", (), {"DEPLOYTK_API_KEY": "a\nHost: b"}, "no key can be sent"),
        (str(MODELS / "hf-awq"), ("--api-key-env", "HOME"), {}, "--api-key-env does nothing here"),
    ],
)
def test_a_key_that_cannot_be_sent_is_bad_usage(
    source: str, options: tuple[str, ...], environment: dict[str, str], word: str
) -> None:
    done = _refused(source, *options, **environment)

    assert done.code == 2
    assert word in done.stderr
    assert "Host: b" not in done.stderr


@pytest.mark.engine
def test_a_model_started_here_with_keys_is_asked_with_one_of_them(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODELS / "hf-awq", tmp_path / "m"))
    done = _smoke(str(model), "--engine", "cpu", DEPLOYTK_API_KEYS=f"{KEY}, other-key")

    assert "HTTP status 401" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
