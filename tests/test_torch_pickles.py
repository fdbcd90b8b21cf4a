"""What PyTorch itself writes: weights are taken, a module is not, and nothing is called safe."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from deploytk.artifact import read_artifact
from deploytk.artifact.contents import content_of

ModelCopy = Callable[[str], Path]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "row of pickles"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_weights_that_torch_has_written_are_taken(tmp_path: Path, old: bool, protocol: int) -> None:
    torch = pytest.importorskip("torch")
    dtypes = (torch.float16, torch.bfloat16, torch.int32, torch.float8_e4m3fn, torch.bool)
    tensors = {str(dtype): torch.zeros(2, 3).to(dtype) for dtype in dtypes}
    inside = {"state_dict": tensors, "weight": torch.nn.Parameter(torch.zeros(2)), "size": torch.Size([1]), "epoch": 1}
    file = io.BytesIO()
    torch.save(inside, file, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)

    place = tmp_path / "pytorch_model.bin"
    place.write_bytes(file.getvalue())

    found = content_of(place)

    assert (found.is_pickle, found.refusal) == (True, "")


def test_a_module_saved_whole_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")

    assert "would call torch.nn.modules.linear.Linear" in content_of(tmp_path / "model.pt").refusal


def test_a_pickle_of_tensors_is_never_called_more_than_nothing_known(model_copy: ModelCopy) -> None:
    torch = pytest.importorskip("torch")
    root = model_copy("hf-fp16")
    (root / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": torch.zeros(2, 2)}, root / "pytorch_model.bin")

    [problem] = [problem for problem in read_artifact(root).problems if "is a pickle" in problem.message]

    assert problem.level == "warning"
    assert "nothing known to be dangerous is in it, which is no proof" in problem.message
