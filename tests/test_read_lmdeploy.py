"""What LMDeploy serves is read from its sources: the reader, and the table that it wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from read_lmdeploy.pytorch import read_pytorch
from read_lmdeploy.shapes import GATES, HELPERS, PYTORCH_WEIGHTS, TURBOMIND_WEIGHTS
from read_lmdeploy.sources import UnreadableError, find_sources
from read_lmdeploy.table import make_table, to_text
from read_lmdeploy.turbomind import read_turbomind

from deploytk import lmdeploy
from deploytk.lmdeploy.conditions import CONDITIONS
from deploytk.lmdeploy.table import EngineTable, Row, engine_table, within

EXCERPTS = Path(__file__).parent / "data" / "lmdeploy"
TABLE = Path(lmdeploy.__file__).with_name("support.json")
VERSIONS = sorted(path.name for path in EXCERPTS.iterdir())


class Excerpt:
    """The parts of a release that decide, as they are in its sources; `changes` are other texts for some."""

    has_kernels = False

    def __init__(self, version: str, changes: dict[str, str] | None = None) -> None:
        self.version = version
        files = (EXCERPTS / version).rglob("*.txt")
        self.texts = {str(p.relative_to(EXCERPTS / version)).removesuffix(".txt"): p.read_text() for p in files}
        self.texts |= changes or {}

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def names(self, folder: str) -> list[str]:
        return [path for path in self.texts if path.startswith(folder)]


def _asked(row: Row, version: str) -> set[str]:
    return {name for name, versions in row.conditions.items() if version in versions}


def _weights(table: EngineTable, version: str) -> dict[str, set[str]]:
    rows = table.weights.items()
    return {name: _asked(row, version) for name, row in rows if version in row.served and name != "none"}


def _served(table: EngineTable, version: str) -> set[str]:
    return {name for name, row in table.architectures.items() if version in row.served}


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "0.2.1"])
def test_the_table_says_of_turbomind_what_the_sources_say(version: str) -> None:
    found, table = read_turbomind(Excerpt(version)), engine_table("turbomind")

    assert found.architectures == _served(table, version)
    for name, conditions in found.conditions.items():
        assert conditions <= _asked(table.architectures[name], version)
    if "quant_method" in str(Excerpt(version).texts):
        assert found.weights == _weights(table, version)


@pytest.mark.parametrize("version", ["0.7.3", "0.13.0", "0.15.0", "0.18.0"])
def test_the_table_says_of_the_pytorch_engine_what_the_sources_say(version: str) -> None:
    found, table = read_pytorch(Excerpt(version)), engine_table("pytorch")

    assert found.architectures
    assert found.architectures <= _served(table, version)
    assert found.removed == {name for name, versions in table.removed.items() if version in versions}
    assert found.weights == _weights(table, version)


def test_a_model_that_is_named_as_removed_is_not_served() -> None:
    found = read_pytorch(Excerpt("0.15.0"))

    assert "Starcoder2ForCausalLM" in found.removed
    assert not found.removed & found.architectures
    assert "Starcoder2ForCausalLM" in read_pytorch(Excerpt("0.13.0")).architectures


def test_parts_of_other_models_and_other_chips_are_no_models() -> None:
    names = read_pytorch(Excerpt("0.18.0")).architectures

    assert not {name for name in names if "Eagle" in name or "Draft" in name}


def test_models_with_a_model_inside_and_with_windows_are_found_in_their_readers() -> None:
    found = read_turbomind(Excerpt("0.18.0"))

    assert "inner_supported" in found.conditions["InternVLChatModel"]
    assert found.windowed == {"GptOssForCausalLM"}
    assert "inner_known" in read_pytorch(Excerpt("0.18.0")).conditions["InternVLChatModel"]


@pytest.mark.parametrize(
    ("path", "known", "new"),
    [
        ("lmdeploy/turbomind/supported_models.py", "num_attn_head == 40", "num_attn_head in (40, 48)"),
        ("lmdeploy/turbomind/supported_models.py", "in [128, 64]", "in [128, 64, 96]"),
        ("lmdeploy/turbomind/deploy/converter.py", "assert version == 'gemm'", "assert version in ('gemm', 'gemv')"),
    ],
)
def test_code_of_a_new_shape_stops_the_reader_and_is_shown(path: str, known: str, new: str) -> None:
    text = Excerpt("0.13.0").texts[path]
    assert known in text

    with pytest.raises(UnreadableError, match=r"0\.13\.0: .* is new"):
        read_turbomind(Excerpt("0.13.0", {path: text.replace(known, new)}))


@pytest.mark.parametrize(
    ("path", "known", "new"),
    [
        ("lmdeploy/pytorch/nn/linear/__init__.py", "quant_method == 'awq'", "quant_method == 'nvfp4'"),
        ("lmdeploy/pytorch/config.py", "'group_size': 32", "'group_size': 64"),
        ("lmdeploy/pytorch/nn/linear/__init__.py", "activation_scheme == 'static'", "activation_scheme == 'dynamic'"),
    ],
)
def test_new_weights_of_the_pytorch_engine_stop_the_reader_too(path: str, known: str, new: str) -> None:
    text = Excerpt("0.18.0").texts[path]
    assert known in text

    with pytest.raises(UnreadableError):
        read_pytorch(Excerpt("0.18.0", {path: text.replace(known, new)}))


def test_every_condition_has_a_meaning_and_words() -> None:
    tables = [engine_table("turbomind"), engine_table("pytorch")]
    used = {
        name
        for table in tables
        for row in (*table.architectures.values(), *table.weights.values())
        for name in row.conditions
    }
    known = {name for names in (*GATES.values(), *TURBOMIND_WEIGHTS.values()) for name in names}
    known |= {name for names in PYTORCH_WEIGHTS.values() for name in names or ()} | set(HELPERS.values())
    assert used
    assert used - {"inner_supported", "inner_known"} <= set(CONDITIONS)
    assert {name for name in known if "HELPER" not in name} - {"inner_supported"} <= set(CONDITIONS)
    assert lmdeploy.models_page()  # a KeyError for a condition without words


def test_the_page_of_models_is_what_the_table_says() -> None:
    page = Path(__file__).parents[1] / "docs" / "models.md"

    assert page.read_text(encoding="utf-8") == lmdeploy.models_page(), "run tools/read_lmdeploy again"


def test_spans_have_gaps_and_open_ends() -> None:
    assert within("0.14.0-0.15.0 0.17.0-") == {"0.14.0", "0.15.0", "0.17.0", "0.18.0"}
    assert within("") == frozenset()


@pytest.mark.skipif("LMDEPLOY_CHECKOUT" not in os.environ, reason="LMDEPLOY_CHECKOUT names no clone of LMDeploy")
def test_the_whole_table_is_what_every_tag_says() -> None:
    """LMDEPLOY_CHECKOUT: a clone with its tags. LMDEPLOY_WHEELS: a folder with the wheels of what has no tag."""
    wheels = sorted(Path(os.environ["LMDEPLOY_WHEELS"]).rglob("lmdeploy-*.whl"))

    table = make_table(find_sources(Path(os.environ["LMDEPLOY_CHECKOUT"]), wheels))

    assert to_text(table) == TABLE.read_text()
