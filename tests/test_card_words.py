"""The owner's words in a model card: kept by every later package and publish, in both languages, on every hub."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from bundles import Notes, make_bundle
from conftest import MODELS
from hypothesis import given
from hypothesis import strategies as st
from test_card_report import _report as report_of_a_smoke_test

import deploytk
from deploytk.artifact import CalibrationData, QuantizationCost, QuantizedBy, read_artifact
from deploytk.base.errors import BundleError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import (
    BundleOptions,
    HubCard,
    measured_in,
    read_bundle,
    read_notes,
    settle_edits,
    shown_on,
    verify_bundle,
)
from deploytk.bundle.chinese import in_chinese
from deploytk.bundle.provenance import provenance_of
from deploytk.bundle.value import CARDS
from deploytk.bundle.words import merge_cards
from deploytk.plan import PlanRequest
from deploytk.publish.target import target_class

TINY = BundleOptions(name="tiny", license="apache-2.0")
LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "# x\n"]), max_size=12).map("".join)


def _packaged(out: Path, options: BundleOptions = TINY, notes: Notes | None = None, gpu: str = "A10") -> Path:
    return make_bundle(MODELS / "hf-awq", out, options, PlanRequest(gpu=gpu), notes).path


def _edit(card: Path, old: str, new: str) -> None:
    text = card.read_text()
    assert old in text
    card.write_text(text.replace(old, new, 1))


@given(LINES, LINES)
def test_what_nobody_edited_is_written_anew_and_what_is_not_new_stays(base: str, other: str) -> None:
    assert merge_cards(base, base, other).text == other
    assert merge_cards(base, other, base).text == other


@given(LINES, LINES, st.integers(0, 12))
def test_a_line_that_was_written_into_a_card_is_in_every_later_one(base: str, new: str, at: int) -> None:
    lines = base.splitlines(keepends=True)
    mine = "".join([*lines[:at], "my own words\n", *lines[at:]])

    assert "my own words\n" in merge_cards(base, mine, new).text


def test_where_both_changed_a_line_the_owners_stands_and_is_told() -> None:
    merged = merge_cards("one\ntwo\n", "one\nmine\n", "one\nnew\n")

    assert (merged.text, merged.instead) == ("one\nmine\n", ("mine",))


def test_keys_of_the_head_are_merged_one_by_one() -> None:
    base = "---\nlicense: mit\ntags:\n- a\n---\ntext\n"
    mine = "---\nlicense: mit\nlanguage: zh\ntags:\n- a\n- own\n---\ntext\n"
    new = "---\nlicense: apache-2.0\ntags:\n- a\npipeline_tag: text-generation\n---\ntext\n"

    head = yaml.safe_load(merge_cards(base, mine, new).text.split("---\n")[1])

    assert head == {
        "license": "apache-2.0",
        "language": "zh",
        "tags": ["a", "own"],
        "pipeline_tag": "text-generation",
    }


def test_words_in_both_cards_are_kept_when_the_model_is_packaged_again(tmp_path: Path) -> None:
    out, notes = _packaged(tmp_path / "b"), Notes()
    _edit(out / "README.md", "## Run it\n", "## From me\n\nTrained on my own diary.\n\n## Run it\n")
    _edit(out / "README_zh.md", "## 运行\n", "用我的日记训练。\n\n## 运行\n")
    _edit(out / "README.md", "license: apache-2.0\n", "license: apache-2.0\nlanguage: zh\n")

    _packaged(out, gpu="H200", notes=notes)  # other figures, other notes of the plan

    card = (out / "README.md").read_text()
    assert "## From me\n\nTrained on my own diary.\n\n## Run it\n" in card
    assert "language: zh\n" in card
    assert "measured on another GPU" not in card  # of the A10
    assert "用我的日记训练。" in (out / "README_zh.md").read_text()
    assert "what you wrote into README.md is kept" in notes.lines


def test_an_edited_bundle_that_is_packaged_again_stays_as_it_is(tmp_path: Path) -> None:
    out = _packaged(tmp_path / "b")
    _edit(out / "README.md", "# tiny\n", "# My tiny one\n")

    first = make_bundle(MODELS / "hf-awq", out, TINY, PlanRequest(gpu="A10"))
    second = make_bundle(out, tmp_path / "elsewhere", TINY, PlanRequest(gpu="A10"))

    assert "# My tiny one\n" in (out / "README.md").read_text()
    assert first.digest == second.digest


def test_an_edited_card_is_what_the_bundle_is_from_then_on(tmp_path: Path) -> None:
    out, notes = _packaged(tmp_path / "b"), Notes()
    before = read_bundle(out).digest
    _edit(out / "README.md", "# tiny\n", "# My tiny one\n")

    bundle = settle_edits(read_bundle(out), notes)

    verify_bundle(bundle, Silent())
    assert bundle.digest != before
    assert read_bundle(out) == bundle
    assert notes.lines == ["README.md of the bundle: taken as edited"]
    assert settle_edits(bundle, Silent()) is bundle


def test_a_card_that_was_edited_after_signing_wants_to_be_signed_again(tmp_path: Path) -> None:
    out = _packaged(tmp_path / "b")
    (out / "model.sig").write_text("{}")
    _edit(out / "README.md", "# tiny\n", "# My tiny one\n")

    with pytest.raises(BundleError, match=r"was signed before README\.md was edited"):
        settle_edits(read_bundle(out), Silent())
    assert settle_edits(read_bundle(out), Silent(), is_signed_anew=True).path == out


def test_a_card_that_is_no_text_or_endless_is_refused_in_words(tmp_path: Path) -> None:
    out = _packaged(tmp_path / "b")
    (out / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="is no text in UTF-8"):
        _packaged(out)
    (out / "README.md").write_bytes(b"x" * (2**22 + 1))
    with pytest.raises(BundleError, match="too many for a card"):
        read_bundle(out)


def test_notes_go_into_both_cards_and_stay_without_being_given_again(tmp_path: Path) -> None:
    (tmp_path / "NOTES.md").write_text("Ask my **cat**.\n")
    (tmp_path / "NOTES_zh.md").write_text("请问我的**猫**。\n")
    options = BundleOptions(name="tiny", license="mit", notes=read_notes(tmp_path / "NOTES.md"))

    out = _packaged(tmp_path / "b", options)
    _packaged(out)

    assert "\nAsk my **cat**.\n" in (out / "README.md").read_text()
    chinese = (out / "README_zh.md").read_text()
    assert "\n请问我的**猫**。\n" in chinese
    assert "cat" not in chinese


def test_new_notes_take_the_place_of_earlier_ones_and_an_empty_file_ends_them(tmp_path: Path) -> None:
    out = _packaged(tmp_path / "b", BundleOptions(name="tiny", notes={"README.md": "The first words."}))
    _packaged(out, BundleOptions(name="tiny", notes={"README.md": "The second words."}))
    card = (out / "README.md").read_text()
    assert "The second words." in card
    assert "The first words." not in card

    (tmp_path / "empty.md").write_text("\n")
    _packaged(out, BundleOptions(name="tiny", notes=read_notes(tmp_path / "empty.md")))
    assert "words." not in (out / "README.md").read_text()


def test_notes_that_are_no_text_are_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "NOTES.md").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is no text in UTF-8"):
        read_notes(tmp_path / "NOTES.md")


def test_the_words_of_the_models_own_card_are_kept_a_step_lower(
    tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    model, notes = model_copy("hf-awq"), Notes()
    own = "---\nlicense: mit\nlanguage: [zh, en]\n---\n# Mine\n\nA diary.\n\n## Data\n\n```\n# no heading\n```\n"
    (model / "README.md").write_text(own)

    out = make_bundle(model, tmp_path / "b", BundleOptions(name="tiny"), progress=notes).path

    card = (out / "README.md").read_text()
    assert "\nA diary.\n\n### Data\n\n```\n# no heading\n```\n" in card
    assert "# Mine" not in card
    assert yaml.safe_load(card.split("---\n")[1])["language"] == ["zh", "en"]
    assert "the words of the model's own README.md are in the card; --notes FILE replaces them" in notes.lines


def test_figures_that_a_later_card_lacks_are_told_of(tmp_path: Path) -> None:
    measured = measured_in(report_of_a_smoke_test(), "it")
    out, notes = _packaged(tmp_path / "b", BundleOptions(name="tiny", measured=measured)), Notes()

    _packaged(out, BundleOptions(name="tiny"), notes)

    assert "README.md has no measured figures any more: give --report again to keep them" in notes.lines


HUBS = ["huggingface", "modelscope", "openxlab"]


def _hub_card(name: str) -> HubCard:
    made = target_class(name).about.card
    assert made
    return made("me/tiny")


@pytest.mark.parametrize("name", HUBS)
def test_a_card_on_a_hub_tells_how_to_download_it_from_there_alone(tmp_path: Path, name: str) -> None:
    bundle = read_bundle(_packaged(tmp_path / "b"))

    with shown_on(bundle, _hub_card(name)) as shown:
        verify_bundle(shown, Silent())
        card = (shown.path / "README.md").read_text()
        head = yaml.safe_load(card.split("---\n")[1])

    others = [other for other in HUBS if other != name]
    assert "\n".join(_hub_card(name).commands) in card
    assert not any(command in card for other in others for command in _hub_card(other).commands[:2])
    assert head["license"] == "apache-2.0"
    assert shown.manifest.card.generated["README.md"] == card  # what is cloned from there and edited is merged as well
    assert "deploytk: how to download it -->\n<!-- /deploytk" in (bundle.path / "README.md").read_text()


@pytest.mark.parametrize("name", ["modelscope", "openxlab"])
def test_a_chinese_hub_shows_the_chinese_card_and_leads_to_the_english_one(tmp_path: Path, name: str) -> None:
    out = _packaged(tmp_path / "b")
    _edit(out / "README_zh.md", "## 运行\n", "用我的日记训练。\n\n## 运行\n")

    with shown_on(read_bundle(out), _hub_card(name)) as shown:
        chinese, english = ((shown.path / card).read_text() for card in ("README.md", "README_en.md"))
        assert not (shown.path / "README_zh.md").exists()

    assert "[English](README_en.md)" in chinese
    assert "用我的日记训练。" in chinese
    assert "[中文](README.md)" in english
    assert "## Run it" in english


def test_hugging_face_and_modelscope_read_the_heads_of_their_cards(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    bundle = read_bundle(_packaged(tmp_path / "b", BundleOptions(name="tiny", license="mit", languages=("zh", "en"))))
    with shown_on(bundle, _hub_card("huggingface")) as shown:
        card = ModelCard.load(shown.path / "README.md")
    assert (card.data.license, card.data.language) == ("mit", ["zh", "en"])

    with shown_on(bundle, _hub_card("modelscope")) as shown:
        data = ModelCard.load(shown.path / "README.md").data.to_dict()
    # The fields that ModelScope's documentation names: modelscope.cn/docs, model card.
    assert (data["tasks"], data["frameworks"]) == (["text-generation"], ["pytorch"])
    assert (data["license"], data["language"]) == ("mit", ["zh", "en"])


def test_a_signed_bundle_is_shown_as_it_was_signed(tmp_path: Path) -> None:
    out = _packaged(tmp_path / "b")
    (out / "model.sig").write_text("{}")
    bundle = read_bundle(out)

    with shown_on(bundle, _hub_card("modelscope")) as shown:
        assert shown is bundle


@pytest.mark.parametrize("model", ["hf-awq", "workspace-0.4.2-awq"])
def test_the_chinese_card_is_wholly_chinese(tmp_path: Path, model: str) -> None:
    out = make_bundle(MODELS / model, tmp_path / "b", TINY, PlanRequest(gpu="T4")).path

    text = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->|https?://\S+", "", (out / CARDS[1]).read_text(), flags=re.DOTALL)

    assert re.findall(r"(?:[A-Za-z]{2,} ){3,}", text) == []  # three words of English in a row


def test_every_note_of_a_plan_can_be_said_in_chinese() -> None:
    """The texts of caveats.py, with something in every place, each have a line of notes_zh.yaml."""
    source = Path(deploytk.__file__).parent / "plan" / "caveats.py"
    yields = [node.value for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Yield)]
    texts = [_text(node) for node in yields if isinstance(node, (ast.Constant, ast.JoinedStr))]
    # Two are put together: what is missing of memory, and the advisories, whose words come with them.
    texts = [text.replace("X are missing", "9 MiB are missing") for text in texts if text not in ("X; X",)]
    missing = [text for text in texts if in_chinese([_filled(text)]) == ((), 1)]

    assert len(texts) > 20
    assert missing == []


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)


def _filled(text: str) -> str:
    sessions = "8 sessions of 2048 tokens"
    return (
        text.replace("for X; X", f"for {sessions}; 4 of them would fit")
        .replace("fewer than X", f"fewer than {sessions}")
        .replace("names (auto_map): X", "names (auto_map): you trust it")
    )


def test_what_quantization_cost_is_told_with_what_it_does_not_show() -> None:
    artifact = read_artifact(MODELS / "hf-awq")
    cost = QuantizationCost("deploytk", "sha256:" + "0" * 64, 40, 2048, 8.0, 8.2, 0.0123, 0.951, 8, 8, 7)
    data = CalibrationData("deploytk", "sha256:" + "1" * 64, 128, 2048)
    by = QuantizedBy("awq", "lmdeploy", "0.18.0", "0.1.0", ("search-scale",), "float16", data, cost)

    unknown = {one.name: one for one in provenance_of(artifact)}
    told = {one.name: one for one in provenance_of(dataclasses.replace(artifact, quantized_by=by))}

    assert unknown["Measured loss"].value.startswith("none was measured")
    assert unknown["Calibrated on"].value_zh == "模型文件中没有记录"
    assert told["Quantized by"].value == "deploytk quantize, lmdeploy 0.18.0 (search-scale)"
    assert told["Calibrated on"].value.startswith("the texts of deploytk, 128 × 2048 tokens, sha256:1")
    # (8.2 / 8.0 - 1) = 2.5 %
    loss = "perplexity 8.000 → 8.200 (+2.50 %), KL 0.0123 nats, 95.1% of likeliest tokens the same"
    assert told["Measured loss"].value.startswith(loss)
    assert told["Measured loss"].value.endswith("7 of 8 known answers, 8 before; says nothing of long answers")
