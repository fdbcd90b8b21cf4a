"""Names in any script: served under a slug, titled as typed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from bundles import make_bundle
from conftest import MODELS
from hypothesis import given
from hypothesis import strategies as st

from deploytk.artifact import read_artifact
from deploytk.base.errors import UsageError
from deploytk.base.names import LONGEST, slug
from deploytk.bundle import BundleOptions
from deploytk.bundle.manifest import NAME
from deploytk.plan import PlanRequest, plan_serving


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("Qwen2.5-7B_x", "Qwen2.5-7B_x"),
        ("my model (v2)", "my-model-v2"),
        ("café", "cafe"),
        (".hidden-", "hidden"),
        ("模型", "model-"),
        ("internlm-微调-7b", "internlm-7b-"),
        ("Модель 7B", "7B-"),
    ],
)
def test_a_slug_keeps_what_it_can(typed: str, expected: str) -> None:
    assert slug(typed).startswith(expected)


@given(st.text(max_size=200))
def test_every_text_has_a_slug_that_hubs_take(text: str) -> None:
    assert NAME.fullmatch(slug(text))
    assert len(slug(text)) <= LONGEST
    assert slug(slug(text)) == slug(text)


def test_names_that_differ_in_lost_letters_alone_stay_apart() -> None:
    assert len({slug(name) for name in ("模型-7b", "测试-7b", "7b", "модель-7b")}) == 4


@pytest.mark.parametrize("name", ["我的 模型", "Модель", "モデル-7B", "نموذج"])
def test_a_directory_with_any_name_is_planned_and_packaged(tmp_path: Path, name: str) -> None:
    model = tmp_path / name
    model.symlink_to(MODELS / "hf-awq")
    options = BundleOptions.titled(name)

    plan = plan_serving(dataclasses.replace(read_artifact(model), root=tmp_path / name), PlanRequest(model_name=name))
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", options)

    assert plan.model_name == bundle.name == options.name
    assert NAME.fullmatch(bundle.name)
    manifest = json.loads((bundle.path / "deploytk.json").read_text())
    assert manifest["app"]["title"] == name
    assert f"# {name}".replace("-", "\\-") in (bundle.path / "README.md").read_text().replace("-", "\\-")


@pytest.mark.parametrize("typed", ["a\nb", "\x1b[31m", " ", "x" * 97])
def test_a_title_that_cannot_be_printed_is_refused(tmp_path: Path, typed: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions.titled(typed))


def test_a_directory_whose_name_cannot_be_printed_is_served_all_the_same() -> None:
    options = BundleOptions.after(Path("/models/a\x1b[31mb"))

    assert NAME.fullmatch(options.name)
    assert options.title == options.name
