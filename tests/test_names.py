"""Names in any script: served under a slug, titled as typed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from bundles import make_bundle
from conftest import MODELS
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st
from workspaces import write_workspace

from deploytk.artifact import read_artifact
from deploytk.base.errors import UsageError
from deploytk.base.names import LONGEST, SLUG, slug
from deploytk.bundle import BundleOptions
from deploytk.plan import PlanRequest, plan_serving


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("Qwen2.5-7B_x", "Qwen2.5-7B_x"),
        ("my model (v2)", "my-model-v2"),
        ("café", "cafe"),
        (".hidden-", "hidden"),
        ("v1.", "v1"),
        ("a--b..c", "a-b.c"),
        ("tool.git", "tool"),
        ("模型", "model-"),
        ("internlm-微调-7b", "internlm-7b-"),
        ("Модель 7B", "7B-"),
    ],
)
def test_a_slug_keeps_what_it_can(typed: str, expected: str) -> None:
    assert slug(typed).startswith(expected)


@given(st.text(max_size=200) | st.text("ab0-._", max_size=8) | st.text(max_size=4).map("{}.git".format))
def test_every_text_has_a_slug_that_hubs_take(text: str) -> None:
    assert SLUG.fullmatch(slug(text))
    validate_repo_id(f"me/{slug(text)}")
    assert len(slug(text)) <= LONGEST
    assert slug(slug(text)) == slug(text)


@pytest.mark.parametrize("name", ["0.", "a-", "a--b", "llama.git", "-.-"])
def test_a_deployment_of_any_typed_name_is_packaged_and_read(tmp_path: Path, name: str) -> None:
    """What hubs do not take is not served either: a bundle that deploytk has written is one that it reads."""
    options = BundleOptions.titled(name)

    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", options)

    assert bundle.manifest.app.title == name
    assert SLUG.fullmatch(bundle.manifest.plan.model_name)


@pytest.mark.parametrize("template", ["llama2", "own.", "-own-", "我的"])
def test_an_old_server_goes_by_its_chat_template(tmp_path: Path, template: str) -> None:
    """It has no flag for a name."""
    bundle = make_bundle(write_workspace(tmp_path / "w", "0.1.0", model_name=template), tmp_path / "bundle")

    assert bundle.manifest.plan.model_name == template


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
    assert SLUG.fullmatch(bundle.name)
    manifest = json.loads((bundle.path / "deploytk.json").read_text())
    assert manifest["app"]["title"] == name
    assert f"# {name}".replace("-", "\\-") in (bundle.path / "README.md").read_text().replace("-", "\\-")


@pytest.mark.parametrize("typed", ["a\nb", "\x1b[31m", " ", "x" * 97])
def test_a_title_that_cannot_be_printed_is_refused(tmp_path: Path, typed: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions.titled(typed))


def test_a_directory_whose_name_cannot_be_printed_is_served_all_the_same() -> None:
    options = BundleOptions.after(Path("/models/a\x1b[31mb"))

    assert SLUG.fullmatch(options.name)
    assert options.title == options.name
