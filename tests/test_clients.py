"""The client libraries that people use get answers from the app, and words where it refuses.

`make clients` installs each, once, in an environment of its own: they cannot share one, not with deploytk either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import plain_http
import pytest
from conftest import MODELS
from ports import free_port

from deploytk.base.processes import running, wait_until

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

PROGRAMS = Path(__file__).parent / "clients"
INSTALLED = Path(__file__).parents[1] / ".venv" / "clients"
THANKS = "You are welcome. I am always here."
NO_TOOLS = "tools: the CPU engine of this model has no tools (function calls)"
NO_JSON = "response_format: the CPU engine of this model has no JSON by a schema"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app of the tiny model on the CPU engine."""
    place = tmp_path_factory.mktemp("app")
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "deploytk", "serve", str(MODELS / "hf-awq"), "--engine", "cpu", "--app", "api"]

    def is_ready() -> bool:
        try:
            return plain_http.get(f"{url}/ready").status_code == 200
        except httpx.HTTPError:
            return False

    log = place / "log"
    with running([*command, "--port", url.rpartition(":")[2]], cwd=place, environment=dict(os.environ), log=log) as app:
        wait_until(is_ready, app, log, 120, "the app")
        yield url


def asked(name: str, program: str, url: str) -> dict[str, Any]:
    """What the client in the environment `name` makes of the app."""
    place = INSTALLED / name
    if not (place / ".ready").is_file():
        if os.environ.get("CI") or os.environ.get("DEPLOYTK_REQUIRE_SERVICES"):
            pytest.fail("run `make clients`")
        pytest.skip("needs `make clients`")
    start = [place / "bin" / "python", PROGRAMS / program]
    if program.endswith(".mjs"):
        # Node looks for packages beside the program.
        (place / program).write_bytes((PROGRAMS / program).read_bytes())
        start = ["node", place / program]
    environment = {
        "PATH": os.environ["PATH"],
        "NO_PROXY": "*",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HOME": str(place),
    }
    done = subprocess.run(
        [*map(str, start), url, "hf-awq"], capture_output=True, text=True, timeout=150, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("major", ["2", "3"])
def test_openai_answers_and_refuses_by_the_field(major: str, url: str) -> None:
    found = asked(f"openai{major}", "openai_client.py", url)

    assert found.pop("version").startswith(f"{major}.")
    assert found.pop("created") > 1_700_000_000
    assert found == {
        "whole": THANKS,
        "streamed": THANKS,
        "same_usage": True,
        "models": ["hf-awq", "hf-awq"],
        "prompts": [0, 1],
        "missing": "model_not_found",
        "tools": [400, "tools", "unsupported_parameter"],
        "json": [400, "response_format", "unsupported_parameter"],
        "logprobs": [400, "logprobs", "unsupported_parameter"],
    }


def test_langchain_chats_and_is_told_what_it_cannot_have(url: str) -> None:
    found = asked("langchain", "langchain_client.py", url)

    assert (found["whole"], found["streamed"], found["limited"]) == (THANKS, THANKS, "length")
    assert found["history"]
    assert found["completion"]
    assert (found["tools"], found["json"]) == ([400, "tools"], [400, "response_format"])


def test_litellm_chats_and_shows_why_it_is_refused(url: str) -> None:
    found = asked("litellm", "litellm_client.py", url)

    assert (found["whole"], found["streamed"]) == (THANKS, THANKS)
    assert NO_TOOLS in found["tools"]
    assert NO_JSON in found["json"]


def test_instructor_shows_the_refusal_and_no_error_of_its_own(url: str) -> None:
    found = asked("instructor", "instructor_client.py", url)

    assert found["whole"] == THANKS
    assert NO_TOOLS in found["tools"]
    assert NO_JSON in found["json"]


def test_the_sdk_of_vercel_chats_and_shows_the_refusal(url: str) -> None:
    found = asked("vercel", "vercel_client.mjs", url)

    assert (found["whole"], found["streamed"], found["finish"]) == (THANKS, THANKS, "stop")
    assert found["tokens"] > 0
    assert (found["tools"], found["json"]) == ([400, NO_TOOLS], [400, NO_JSON])
