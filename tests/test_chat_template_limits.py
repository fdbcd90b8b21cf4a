"""Chat templates that loop or explode: found in a child before a server renders them, in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import MODELS

from deploytk.base.errors import EndpointError
from deploytk.base.progress import Silent
from deploytk.serve import ServeOptions, open_endpoint
from deploytk.serve.chat_template import require_ending_template

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


def test_a_model_whose_template_loops_is_not_served(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODELS / "hf-awq", tmp_path / "m"))
    (model / "chat_template.jinja").write_text(LOOP)

    served = open_endpoint(str(model), ServeOptions(engine="cpu"), Silent())
    with pytest.raises(EndpointError, match="does not come to an end"), served:
        pytest.fail("it was served")
