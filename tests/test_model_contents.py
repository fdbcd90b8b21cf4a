"""A file of a model is taken by what is in it: pickles by an allow-list, whatever they are called and come in."""

from __future__ import annotations

import io
import json
import os
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import run
from conftest import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from pickles import EVIL_FILES, HARMLESS_FILES, HOSTILE_FILES, PROTOCOL_2, calling, zipped

from deploytk.artifact import read_artifact
from deploytk.artifact.contents import content_of
from deploytk.artifact.second_opinion import second_opinion

ModelCopy = Callable[[str], Path]


def _written(place: Path, content: bytes) -> Path:
    place.write_bytes(content)
    return place


def test_all_eleven_that_scanners_were_compared_by_are_refused(tmp_path: Path) -> None:
    refused = [name for name, content in EVIL_FILES.items() if content_of(_written(tmp_path / name, content)).refusal]

    assert len(refused) == 11
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_a_hostile_file_is_refused_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    found = content_of(_written(tmp_path / name, HOSTILE_FILES[name]))

    assert found.refusal, "taken"
    assert not re.search(r"\bsafe\b", found.refusal)


@pytest.mark.parametrize("name", HARMLESS_FILES)
def test_what_no_loader_could_run_is_taken(tmp_path: Path, name: str) -> None:
    assert content_of(_written(tmp_path / name, HARMLESS_FILES[name]())).refusal == ""


def test_the_refusal_names_what_would_be_called(tmp_path: Path) -> None:
    found = content_of(_written(tmp_path / "a.bin", PROTOCOL_2 + calling("posix", "system")))

    assert found.refusal == "would call posix.system when it is loaded"


CALLS = {
    "REDUCE": b"cos\nsystem\n(S'id'\ntR",
    "INST": b"(S'id'\nios\nsystem\n",
    "OBJ": b"(cos\nsystem\nS'id'\no",
    "NEWOBJ": b"\x80\x02cos\nsystem\n(S'id'\nt\x81",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n(S'id'\nt}\x92",
    "BUILD": b"cos\nsystem\n}b",
}


@pytest.mark.parametrize("end", [b".", b""], ids=["whole", "cut off"])
@pytest.mark.parametrize("name", ["notes.txt", "pytorch_model.bin"])
@pytest.mark.parametrize("opcode", CALLS)
def test_a_call_is_named_by_whatever_opcode_it_is_made(tmp_path: Path, opcode: str, name: str, end: bytes) -> None:
    """A loader calls while it reads: what is cut off behind the call has been called."""
    found = content_of(_written(tmp_path / name, CALLS[opcode] + end))

    assert found.refusal.startswith("would call os.system"), found.refusal


@pytest.mark.parametrize("made", [b"N", b"ccollections\nOrderedDict\n)R", b"ctorch\nSize\n)R"])
def test_what_a_pickle_has_made_itself_is_not_called(tmp_path: Path, made: bytes) -> None:
    found = content_of(_written(tmp_path / "a.bin", b"\x80\x02" + made + b")R."))

    assert found.refusal == "does what no pickle of weights does (it calls what it has made)"


@pytest.mark.parametrize(
    "member", ["archive/code/__torch__.py", "archive/constants.pkl", "data.pkl", "archive/data.pkl/x"]
)
def test_a_zip_with_more_in_it_than_torch_writes_is_refused(tmp_path: Path, member: str) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/version", b"3")
        archive.writestr(member, b"\x80\x02}.")

    found = content_of(_written(tmp_path / "a.bin", file.getvalue()))

    assert f"it is a zip with {member!r} in it" in found.refusal


def _zip_of(*members: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for member in members:
            archive.writestr(member, b"\x80\x02}.")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_zip_of("a/data.pkl", compression=zipfile.ZIP_DEFLATED), "not stored as they are"),
        (_zip_of("a/data.pkl", "a/data.pkl"), "not one data.pkl"),
        (_zip_of("a/version"), "not one data.pkl"),
        (_zip_of("a/data.pkl", "b/version"), "several models"),
        (_zip_of("a/data.pkl") * 2, "the directory of the zip is not where it says"),
        (_zip_of("a/data.pkl") + b"behind", "the end of the zip is missing"),
    ],
)
def test_a_zip_that_readers_may_understand_differently_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    assert why in content_of(_written(tmp_path / "a.bin", content)).refusal


@given(
    seed=st.integers(0, 2**32), start=st.sampled_from([b"", b"\x80\x04", b"\x80\x02", b"\x1f\x8b", b"BZh", b"c", b"("])
)
@settings(max_examples=200, deadline=None)
def test_raw_weights_are_numbers_however_they_begin(
    tmp_path_factory: pytest.TempPathFactory, seed: int, start: bytes
) -> None:
    place = tmp_path_factory.mktemp("raw") / "layers.0.attention.wo.0.weight"
    place.write_bytes(start + random.Random(seed).randbytes(2000))

    assert content_of(place, is_raw=True).refusal == ""


def test_a_pickle_called_a_raw_weight_is_refused(tmp_path: Path) -> None:
    found = content_of(_written(tmp_path / "wo.0.weight", HOSTILE_FILES["protocol4.bin"]), is_raw=True)

    assert "would call" in found.refusal


@given(data=st.binary(max_size=400), name=st.sampled_from(["a.bin", "a.json", "a.npy", "a.model", "a.weight"]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    place = _written(tmp_path_factory.mktemp("any") / name, data)

    assert isinstance(content_of(place, is_raw=name.endswith("weight")).refusal, str)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_nothing_that_python_would_run_gets_by_among_random_opcodes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The call of a module that is not allowed, behind opcodes that leave the stack in any state."""
    harmless = [b"N", b"0", b"(", b"1", b"]", b"}", b")", b"I1\n", b"K\x01", b"\x85", b"\x94", b"q\x00", b"2", b"\x8f"]
    before = b"".join(data.draw(st.lists(st.sampled_from(harmless), max_size=8)))
    content = b"\x80\x04" + before + calling("os", "getenv", "HOME")
    place = _written(tmp_path_factory.mktemp("mixed") / "tokenizer.model", content)

    assert content_of(place).refusal


def _with_pickle(model_copy: ModelCopy, content: bytes) -> Path:
    """A model whose tokenizer, which any command passes on, is a pickle."""
    root = model_copy("hf-awq")
    (root / "extra.json").write_bytes(content)
    return root


@pytest.mark.parametrize(
    "command",
    [
        ["package", "MODEL", "-o", "OUT"],
        ["build", "MODEL", "-t", "a:1", "--output", "oci:OUT"],
        ["publish", "MODEL", "--target", "local", "--repo", "OUT"],
        ["serve", "MODEL", "--engine", "cpu", "--port", "0"],
        ["smoke", "MODEL", "--engine", "cpu"],
        ["chat", "MODEL", "--engine", "cpu"],
        ["bench", "MODEL", "--engines", "cpu", "-o", "OUT"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("is_bundle", [False, True], ids=["model", "bundle"])
def test_every_command_that_passes_a_model_on_refuses_it(
    model_copy: ModelCopy, tmp_path: Path, command: list[str], is_bundle: bool
) -> None:
    source = _with_pickle(model_copy, HOSTILE_FILES["protocol4.bin"])
    if is_bundle and command[0] not in ("package", "bench"):
        made = run("package", str(source), "-o", str(tmp_path / "bundle"), "--allow-pickle")
        assert made.code == 0, made.stderr
        source = tmp_path / "bundle"
    places = {"MODEL": str(source), "OUT": str(tmp_path / "out"), "oci:OUT": f"oci:{tmp_path / 'out'}"}

    result = run(*(places.get(word, word) for word in command))

    assert result.code == 1
    assert "extra.json would call" in result.stderr
    assert "--allow-pickle" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["serve", "smoke", "chat"])
def test_of_a_bundle_it_is_refused_before_any_engine_is_asked(
    command: str, model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU engine looks itself; LMDeploy does not."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lmdeploy").write_text("#!/bin/sh\nexit 1\n")
    (programs / "lmdeploy").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    source = _with_pickle(model_copy, HOSTILE_FILES["protocol4.bin"])
    made = run("package", str(source), "-o", str(tmp_path / "bundle"), "--allow-pickle")
    assert made.code == 0, made.stderr

    result = run(command, str(tmp_path / "bundle"), "--engine", "turbomind")

    assert result.code == 1
    assert "extra.json would call" in result.stderr


@pytest.mark.parametrize("name", ["extra.json", "pytorch_model.bin"])
def test_nothing_is_quantized_that_would_call_something(model_copy: ModelCopy, tmp_path: Path, name: str) -> None:
    root = model_copy("hf-fp16")
    (root / name).write_bytes(HOSTILE_FILES["protocol4.bin"])
    if name.endswith(".bin"):  # beside safetensors nobody would open it
        (root / "model.safetensors").unlink()

    result = run("quantize", str(root), "-o", str(tmp_path / "out"))

    assert result.code == 1
    assert f"{name} would call" in result.stderr
    assert not (tmp_path / "out").exists()


def test_inspect_says_it(model_copy: ModelCopy) -> None:
    result = run("inspect", str(_with_pickle(model_copy, HOSTILE_FILES["protocol4.bin"])), "--json")

    messages = [problem["message"] for problem in json.loads(result.stdout)["problems"]]
    assert any("extra.json would call" in message for message in messages)
    assert result.code == 1


def test_the_models_of_the_tests_are_taken() -> None:
    for name in ("hf-awq", "hf-fp16", "workspace-0.4.2-awq", "workspace-0.7.3-awq", "workspace-0.9.2-awq"):
        artifact = read_artifact(MODELS / name)

        assert [file.path for file in artifact.files if content_of(artifact.root / file.path).refusal] == []


def test_picklescan_is_asked_as_well_and_what_it_skips_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("picklescan")

    evil = _written(tmp_path / "a.bin", PROTOCOL_2 + calling("os", "system"))

    assert second_opinion(evil) == "is dangerous by picklescan: os.system"
    assert "skipped by picklescan" in second_opinion(_written(tmp_path / "b.bin", zipped(b"3", "archive/version")))
    assert "cannot be read by picklescan" in second_opinion(_written(tmp_path / "c.bin", b"PK\x03\x04"))


def test_an_old_picklescan_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.artifact.second_opinion.version", lambda _: "1.0.3")

    assert second_opinion(_written(tmp_path / "a.bin", PROTOCOL_2 + calling("os", "system"))) == ""
