"""A quantizer that does no work: it writes the tiny model as the real one had, and prints what that prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MODELS

from deploytk import lmdeploy
from deploytk.quantize import Tool, child, write

# Two layers of the tiny model, seven linear layers each.
_STUB = """
import json, shutil, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
output = Path(job["output"])
calls = Path(CALLS)
calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
print("Move model.embed_tokens to GPU.")
windows = 0
if job["texts"]:
    windows = min(job["samples"], len(Path(job["texts"]).read_text()) // job["seqlen"])
    if (output / "calibrated").exists():
        print("calibration kept")
    else:
        for layer in (0, 1):
            print(f"model.layers.{layer}, samples: {windows}, max gpu memory: 0.00 GB")
        (output / "inputs_stats.pth").write_bytes(b"statistics")
        (output / "calibrated").touch()
    STOP
    for layer in (0, 1):
        print(f"model.layers.{layer} smooth weight done. max gpu memory: 0.00 GB")
for layer in (0, 1):
    for name in ("q_proj", "down_proj"):
        print(f"model.layers.{layer}.{name} weight packed.", end="\\n")
for path in Path(MODEL).iterdir():
    shutil.copyfile(path, output / path.name)
    (output / path.name).chmod(0o600)
AFTER
Path(job["result"]).write_text(json.dumps({"windows": windows, "tokens": windows * job["seqlen"], "peak_ram_bytes": 5}))
"""


def tool(python: Path | None = None, **changed: Any) -> Tool:
    """LMDeploy's quantizer, as it would be found here."""
    known = frozenset({"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3MoeForCausalLM"})
    values: dict[str, Any] = {
        "method": "awq",
        "package": "lmdeploy",
        "version": lmdeploy.NEWEST,
        "python": python or Path(sys.executable),
        "has_cuda": False,
        "architectures": known,
        "smoothed": known - {"Qwen3MoeForCausalLM"},
        "takes_no_texts": True,
    }
    return Tool(**{**values, **changed})


class Stub:
    """What stands in for the process, and how often it was started."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._place = place
        self._calls = place.with_suffix(".calls")
        monkeypatch.setattr(child, "_START", place)
        monkeypatch.setattr(write, "find_tool", lambda *_: tool())
        self.does()

    def does(self, *, after: str = "", stop: str = "", model: Path = MODELS / "hf-awq") -> None:
        """Write what the process is: `stop` is done after the calibration, `after` at the end."""
        text = _STUB.replace("CALLS", repr(str(self._calls))).replace("MODEL", repr(str(model)))
        text = text.replace("STOP", stop or "pass").replace("AFTER", after)
        self._place.write_text(text, encoding="utf-8")

    @property
    def calls(self) -> int:
        return len(self._calls.read_text()) if self._calls.exists() else 0


@pytest.fixture
def quantizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(tmp_path / "stub.py", monkeypatch)
