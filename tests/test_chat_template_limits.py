"""Chat templates that loop or explode: found in a child before a server renders them, in words."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MODELS

from deploytk.artifact import read_artifact
from deploytk.base.errors import EndpointError
from deploytk.base.progress import Silent
from deploytk.bench import make_matrix
from deploytk.bench.engines import running_engine
from deploytk.bench.matrix import expand
from deploytk.bundle import require_ending_template
from deploytk.plan import PlanRequest
from deploytk.quantize import QuantizeOptions, quantize
from deploytk.quantize.engines import windows
from deploytk.serve import ServeOptions, open_endpoint

LOOP = "{% for _ in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (LOOP, "does not come to an end within"),
        ("{{ 'a' * 10 ** 10 }}", "more than 1 MiB of text"),
        ("{% for a in range(99999) %}{{ messages[0].content * 100 }}{% endfor %}", "more than 1 MiB of text"),
        ("{% set a = 'x' * 10 ** 6 %}{{ (a ~ a) * 3000 }}", "more than 1 MiB of text"),
    ],
)
def test_a_template_without_end_is_refused_in_words(template: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)

    with pytest.raises(EndpointError, match=problem):
        require_ending_template(tmp_path)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.json", "a list"])
def test_it_is_found_wherever_servers_look(place: str, tmp_path: Path) -> None:
    template = "{{ 'a' * 10 ** 10 }}"
    value = [{"name": "default", "template": template}] if place == "a list" else template
    name = "tokenizer_config.json" if place == "a list" else place
    (tmp_path / name).write_text(json.dumps({"chat_template": value}))

    with pytest.raises(EndpointError, match="more than 1 MiB of text"):
        require_ending_template(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system role') }}",
        "{{ nothing.at.all }}",
        "{% if %}",
        "{{ 1 // 0 }}",
        "{% for m in messages %}{{ m['content'] | tojson }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
        "{{ strftime_now('%d %b %Y') }}",
        "",
    ],
)
def test_whatever_else_is_wrong_with_a_template_is_for_the_server_to_say(template: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(template)

    require_ending_template(tmp_path)


@pytest.fixture
def exploding(tmp_path: Path) -> Path:
    model = Path(shutil.copytree(MODELS / "hf-fp16", tmp_path / "m"))
    (model / "chat_template.jinja").write_text("{{ 'a' * 10 ** 10 }}")
    return model


def test_a_model_whose_template_explodes_is_not_served(exploding: Path) -> None:
    served = open_endpoint(str(exploding), ServeOptions(engine="cpu"), Silent())
    with pytest.raises(EndpointError, match="more than 1 MiB of text"), served:
        pytest.fail("it was served")


def test_a_model_whose_template_explodes_is_not_quantized(exploding: Path, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="more than 1 MiB of text"):
        quantize(read_artifact(exploding), tmp_path / "out", QuantizeOptions(), Silent())

    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_model_whose_template_explodes_is_not_started_to_be_measured(exploding: Path, tmp_path: Path) -> None:
    (deployment, *_), _ = expand([exploding], make_matrix({"engines": ("cpu",)}), PlanRequest())

    with pytest.raises(EndpointError, match="more than 1 MiB"), running_engine(deployment, 1, tmp_path / "log", 60):
        pytest.fail("it was started")


class _Looping:
    """A tokenizer with a template that was fine for one letter."""

    chat_template = "yes"

    def apply_chat_template(self, messages: Any, tokenize: bool) -> str:
        while len(messages[0]["content"]) > 1:
            with contextlib.suppress(Exception):  # a template may be written so as to go on
                list(range(1000))
        return "fine"

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] * len(text)}


def test_a_template_that_loops_at_a_longer_text_ends_the_quantizer_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_RENDERED_WITHIN_S", 0.2)
    chat = {"messages": [{"role": "user", "content": "more than a letter"}]}
    started = time.monotonic()

    with pytest.raises(windows.EndlessTemplateError, match="does not come to an end within"):
        windows.make_windows([chat], _Looping(), 4, 1)

    assert time.monotonic() - started < 60  # not by the time limit of the tests, which takes the same signal
