"""A machine with GPUs and LMDeploy that are none: NVML's figures stand in files, one of them the server's.

The server takes, on each of its GPUs, `before` (weights and context), a share of what is then free as its pool, and
`after`; it logs the pool as LMDeploy 0.18 does, and answers as engine_stub.py does.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from nvml import MIB, Nvml

STUB = Path(__file__).parent / "engine_stub.py"


@dataclass
class FileNvml(Nvml):
    """What is in use is what the file says now."""

    state: Path = field(default_factory=Path)

    def nvmlDeviceGetMemoryInfo(self, handle: str, version: int | None = None) -> Any:  # noqa: N802
        self.used_by = json.loads(self.state.read_text())
        for server in self.state.parent.glob("server-*.json"):
            if Path(f"/proc/{server.stem.partition('-')[2]}").exists():  # what dies holds nothing
                for gpu, used in json.loads(server.read_text()).items():
                    self.used_by[gpu] += used
        return super().nvmlDeviceGetMemoryInfo(handle, version)


@dataclass
class Machine:
    nvml: FileNvml
    directory: Path

    @property
    def argv(self) -> list[str]:
        """With which the last server was started."""
        return list(json.loads((self.directory / "argv.json").read_text()))

    def takes(self, before_mib: float, after_mib: float) -> None:
        (self.directory / "takes.json").write_text(json.dumps([before_mib * MIB, after_mib * MIB]))


def make_machine(directory: Path, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> Machine:
    """`count` H100, 1000 MiB of each in use by others."""
    state = directory / "used.json"
    state.write_text(json.dumps({f"gpu {number}": 1000 * MIB for number in range(count)}))
    nvml = FileNvml(count=count, name="NVIDIA H100 80GB HBM3", total=81559 * MIB, reserved=500 * MIB, state=state)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("DEPLOYTK_DATA_DIR", str(directory / "data"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _program(directory / "bin" / "nvidia-smi", "")
    _program(directory / "bin" / "lmdeploy", _SERVER.format(stub=str(STUB), directory=str(directory)))
    monkeypatch.setenv("PATH", str(directory / "bin"), prepend=":")
    installed = directory / "site" / "lmdeploy-0.18.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: lmdeploy\nVersion: 0.18.0\n")
    monkeypatch.syspath_prepend(str(directory / "site"))
    return Machine(nvml, directory)


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{shutil.which('python3') or sys.executable}\n{dedent(text)}")
    path.chmod(0o755)


_SERVER = """
import json, os, sys
from pathlib import Path

MIB = 2**20
place = Path({directory!r})
(place / "argv.json").write_text(json.dumps(sys.argv))
flags = dict(zip(sys.argv, sys.argv[1:]))
visible = [int(one) for one in os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3").split(",")]
before, after = json.loads((place / "takes.json").read_text())
used = json.loads((place / "used.json").read_text())
takes = {{}}
for number in visible[: int(flags["--tp"])]:
    free = (81559 - 500) * MIB - used[f"gpu {{number}}"] - before
    pool = float(flags["--cache-max-entry-count"]) * free
    line = f"Object cache budget: {{pool / MIB:.2f}} MB from free {{free / MIB:.2f}} MB and ratio 0.1"
    print("[TM][INFO][1123.06:37:08.324336][turbomind.cc:338]", line, flush=True)
    takes[f"gpu {{number}}"] = int(before + pool + after)
new = place / "new.json"
new.write_text(json.dumps(takes))
new.replace(place / f"server-{{os.getpid()}}.json")
os.environ["STUB_MODEL"] = flags.get("--model-name", "tiny")
os.execv(sys.executable, [sys.executable, {stub!r}, *sys.argv[1:]])
"""
