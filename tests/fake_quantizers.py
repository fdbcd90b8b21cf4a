"""An environment with quantizers that do no work: whole processes of `quantize`, without torch, on the tiny model."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

from conftest import MODELS

# The parts of a run at which a test can hold it.
STAGES = {"awq": ("calibrating", "smoothing", "saving"), "autoround": ("tuning", "saving")}

_TORCH = """
def tensor(values):
    return values

class cuda:
    is_available = staticmethod(lambda: False)
"""

_TRANSFORMERS = """
class AutoTokenizer:
    chat_template = None

    @classmethod
    def from_pretrained(cls, model, local_files_only, trust_remote_code):
        return cls()

    def __call__(self, text, add_special_tokens):
        return {"input_ids": list(text.encode())}
"""

# Where it is held it writes its process down and waits; what it is told to raise it raises there.
_STAGE = """
import json, os, shutil, sys, time
from pathlib import Path

CONTROL = Path(CONTROL_PATH)

def at(stage):
    told = json.loads(CONTROL.read_text())
    if told.get("raise", {}).get(stage):
        raise OSError(told["raise"][stage])
    if told.get("hold") == stage:
        CONTROL.with_name("held.tmp").write_text(str(os.getpid()))
        CONTROL.with_name("held.tmp").rename(CONTROL.with_name("held"))
        time.sleep(60)

def save(output):
    output.mkdir(parents=True, exist_ok=True)
    (output / "model.safetensors").write_bytes(b"half of it")
    at("saving")
    for path in Path(MODEL).iterdir():
        shutil.copyfile(path, output / path.name)
        (output / path.name).chmod(0o600)
"""

_MAPS = """
LAYER_TYPE_MAP = {"LlamaForCausalLM": "LlamaDecoderLayer"}
NORM_TYPE_MAP = {"LlamaForCausalLM": "LlamaRMSNorm"}

def calibrate(model, *more, work_dir, **options):
    from deploytk_stage import at
    for layer in (0, 1):
        print(f"model.layers.{layer}, samples: 1, max gpu memory: 0.00 GB", flush=True)
    at("calibrating")
    (Path(work_dir) / "inputs_stats.pth").write_bytes(b"statistics")

from pathlib import Path
"""

_AWQ = """
from pathlib import Path
from lmdeploy.lite.apis.calibrate import calibrate
from deploytk_stage import at, save

def load_model_and_tokenizer(model, work_dir, **kept):
    return "", None, None, None, "LlamaForCausalLM", work_dir

def auto_awq(model, work_dir, calib_samples, calib_seqlen, search_scale, device, trust_remote_code: bool = False):
    # calib_samples == 0 is known
    calibrate(model, work_dir=work_dir)
    at("smoothing")
    save(Path(work_dir))
"""

_AUTO_ROUND = """
from pathlib import Path
from deploytk_stage import at, save

class AutoRound:
    def __init__(self, model, **options):
        pass

    def quantize_and_save(self, output, format):
        at("tuning")
        save(Path(output) / "model-w4g128")
"""


class Quantizers:
    """`python` has LMDeploy and AutoRound by what their metadata say."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.python, self._control, self.held = place / "python", place / "control.json", place / "held"
        packages = place / "packages"
        stage = _STAGE.replace("CONTROL_PATH", repr(str(self._control)))
        files = {
            "torch/__init__.py": _TORCH,
            "torch/version.py": "cuda = None\n",
            "transformers/__init__.py": _TRANSFORMERS,
            "deploytk_stage.py": stage.replace("MODEL", repr(str(MODELS / "hf-awq"))),
            "lmdeploy/__init__.py": "",
            "lmdeploy/lite/__init__.py": "",
            "lmdeploy/lite/apis/__init__.py": "",
            "lmdeploy/lite/apis/calibrate.py": _MAPS,
            "lmdeploy/lite/apis/auto_awq.py": _AWQ,
            "lmdeploy/lite/quantization/awq.py": 'NORM_FCS_MAP = FC_FCS_MAP = {"LlamaDecoderLayer": {}}\n',
            "auto_round/__init__.py": _AUTO_ROUND,
        }
        for name, version in (("lmdeploy", "0.18.0"), ("auto-round", "0.16.1"), ("torch", "2"), ("transformers", "5")):
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            files[f"{name.replace('-', '_')}-{version}.dist-info/METADATA"] = metadata
        for name, text in files.items():
            (packages / name).parent.mkdir(parents=True, exist_ok=True)
            (packages / name).write_text(text)
        self.python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.told()

    def told(self, *, hold: str = "", **raised: str) -> None:
        """Be held at a stage, or raise an OSError of those words at one."""
        self.held.unlink(missing_ok=True)
        self._control.write_text(json.dumps({"hold": hold, "raise": raised}))

    def is_running(self) -> bool:
        """Whether the process that was held is still there."""
        try:
            os.kill(int(self.held.read_text()), 0)
        except ProcessLookupError:
            return False
        return True
