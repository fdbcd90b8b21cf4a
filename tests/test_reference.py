"""The reference is what the command line, the data files and the code say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import write_reference
from artifacts import internlm_7b
from commands import NAMES, options_of

from deploytk.artifact import KvPolicy
from deploytk.plan.kv import kv_bytes_per_token
from deploytk.plan.weights_size import weights_bytes
from deploytk.serve.container import app_settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OF_CHILDREN = (  # what deploytk tells the processes that it starts, and nobody else sets
    "DEPLOYTK_FETCH_PAUSE_S DEPLOYTK_GIT_ORIGIN DEPLOYTK_GIT_TOKEN DEPLOYTK_GIT_USERNAME DEPLOYTK_MODEL_ORIGIN "
    "DEPLOYTK_MODEL_REPO DEPLOYTK_MODEL_TOKEN DEPLOYTK_MODEL_USERNAME DEPLOYTK_PREFLIGHT_RAN DEPLOYTK_WEIGHTS "
    "HF_DATASETS_OFFLINE HF_HUB_OFFLINE LMDEPLOY_VERSION"
)


@pytest.mark.parametrize("name", ["commands.md", "gpus.md", "overhead.md", "api.md"])
def test_the_generated_pages_are_current(name: str) -> None:
    page = (DOCS / "reference" / name).read_text(encoding="utf-8")

    assert page == write_reference.pages()[name], "run `make reference`"


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_has_every_option_of_every_command(name: str) -> None:
    page = write_reference.commands_page()
    section = page.partition(f"## deploytk {name}\n")[2].partition("\n## ")[0]
    everywhere = page.partition("## Every command\n")[2].partition("\n## ")[0]

    assert [option for option in options_of(name) - {"-h"} if f"`{option}`" not in section + everywhere] == []


def test_every_variable_that_the_code_reads_is_on_its_page_and_no_other() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    code = [*(ROOT / "toolkit").rglob("*.py"), *(ROOT / "templates").rglob("*.py")]
    ours = r"(?:DEPLOYTK|HF|OPENXLAB|MODELSCOPE|LMDEPLOY)_[A-Z_]+"
    read = {name for path in code for name in re.findall(rf"[\"']({ours})[\"']", path.read_text(encoding="utf-8"))}

    assert {*re.findall(ours, page)} == read - {*OF_CHILDREN.split()}


def test_what_the_app_says_of_its_variables_is_on_their_page() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    said = (ROOT / "toolkit" / "deploytk" / "app" / "server.py").read_text(encoding="utf-8").split('"""')[1]
    of_app = page.partition("## The app")[2]

    for name, default in re.findall(r"^    (DEPLOYTK_\w+) .*?(?:\((\d+)\).*)?$", said, re.MULTILINE):
        assert name in of_app
        if default:
            assert re.search(rf"\| {name} \|.*\| {default} \|", of_app), name


def test_an_image_is_served_with_the_settings_that_an_app_outside_one_would_read() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8").partition("## The app")[2]
    of_app = {*re.findall(r"\bDEPLOYTK_[A-Z_]+", page)}
    of_this_machine = {"DEPLOYTK_ENGINE", "DEPLOYTK_ENGINE_LOG", "DEPLOYTK_FETCH"}  # the image has its own
    of_this_machine |= {"DEPLOYTK_ENDS_WITH_ENGINE"}  # Docker starts nothing anew here

    given = app_settings({**dict.fromkeys(of_app, "1"), "HF_TOKEN": "hf_secret", "PATH": "/bin"})

    assert given.keys() == of_app - of_this_machine
    assert app_settings({}) == {}


@pytest.mark.parametrize(("kv", "row"), [("none", "fp16"), ("int8", "int8"), ("int4", "int4")])
def test_the_kv_cache_is_explained_with_its_real_sizes(kv: KvPolicy, row: str) -> None:
    token_bytes = kv_bytes_per_token(internlm_7b(), kv, "0.18.0", 1)

    assert f"| {row} | {token_bytes:,} | {2048 * token_bytes / 2**20:,.0f} |" in _vram()


def test_the_weights_are_explained_with_their_real_sizes() -> None:
    fp16, w4 = (weights_bytes(internlm_7b(is_w4=is_w4), "0.1.0", 1) / 2**20 for is_w4 in (False, True))

    assert f"| fp16 | {fp16:,.1f} |" in _vram()
    assert f"(W4A16) | {w4:,.1f} |" in _vram()


def _vram() -> str:
    return (DOCS / "explanation" / "vram.md").read_text(encoding="utf-8")
