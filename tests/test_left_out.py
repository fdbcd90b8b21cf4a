"""What is left out of a bundle is said, by its name and size; next steps can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from bundles import Notes, make_bundle
from commands import run
from conftest import MODELS

from deploytk.artifact import read_artifact


def test_weights_that_no_index_names_are_told_of(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model, notes = model_copy("hf-awq"), Notes()
    (model / "extra.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    (model / "train.log").write_text("x")

    bundle = make_bundle(model, tmp_path / "b", progress=notes)

    size = (model / "extra.safetensors").stat().st_size / 2**20
    assert f"left out of the bundle: extra.safetensors ({size:.1f} MiB), train.log (1 bytes); " in notes.lines[0]
    assert not (bundle.path / "extra.safetensors").exists()
    warned = [problem.message for problem in read_artifact(model).problems if problem.level == "warning"]
    assert any("extra.safetensors holds weights that nothing in the model names" in message for message in warned)


def test_a_whole_model_leaves_nothing_out(tmp_path: Path) -> None:
    notes = Notes()

    make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "b", progress=notes)
    make_bundle(tmp_path / "b", tmp_path / "again", progress=notes)

    assert not [line for line in notes.lines if "left out" in line]


def test_the_next_steps_of_a_path_with_a_space_can_be_pasted(tmp_path: Path) -> None:
    place = tmp_path / "my bundle"

    done = run("package", str(MODELS / "hf-awq"), "-o", str(place))

    steps = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("deploytk ")]
    assert [step[:3] for step in steps] == [["deploytk", verb, str(place)] for verb in ("publish", "serve")]
