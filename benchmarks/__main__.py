"""Runs the benchmarks one after another: python -m benchmarks [--short] [NAME ...]

What a machine lacks is said, and its benchmarks are left out. Ends with 1 when one failed or did not reach its goal.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import ROOT
from benchmarks.timing import IS_SHORT, words
from deploytk.quantize import tool_here

# Programs, modules and variables that each needs beyond the package itself.
NEEDS = {
    "help_start": ("hf",),
    "inspect_large": (),
    "inspect_header": (),
    "inspect_models": ("safetensors",),
    "package": (),
    "vram_terms": ("numpy",),
    "modernize": ("numpy", "yaml"),
    "quantize": ("torch", "transformers", "quantizers"),
    "secret_search": (),
    "gateway": ("gradio",),
    "client_overhead": ("httpx", "aiohttp"),
    "serve_start": ("torch", "transformers"),
    "publish": ("dulwich",),
    "small_files": ("dulwich",),
    "openxlab_push": ("git-lfs", "lighttpd"),
    "push": ("docker-registry",),
    "push_memory": (),
    "growth": ("fallocate", "matplotlib", "numpy"),
    "scale_faults": ("ip", "ray", "redis-server", "torch"),
    "scale_judge": ("numpy",),
    "scale_canary": ("ip", "ray", "redis-server"),
    "scale_throughput": ("ip", "ray", "redis-server"),
    "build": ("docker", "DOCKER_HOST", "DEPLOYTK_BENCHMARK_BASE"),
}


def lacking(name: str) -> list[str]:
    return [need for need in NEEDS[name] if not is_here(need)]


def is_here(need: str) -> bool:
    if need == "quantizers":  # their environments are here, or may be made
        return "DEPLOYTK_BENCHMARK_QUANTIZERS" in os.environ or all(map(tool_here, ("awq", "autoround")))
    if need.isupper():
        return need in os.environ
    beside = Path(sys.executable).with_name(need)
    return beside.is_file() or shutil.which(need) is not None or importlib.util.find_spec(need) is not None


def main() -> int:
    names = words() or list(NEEDS)
    ends: dict[str, int] = {}
    for name in names:
        missing = lacking(name)
        if missing:
            print(f"{name}: left out, there is no {' and no '.join(missing)} here", flush=True)
            continue
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--short"] if IS_SHORT else [])]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE if IS_SHORT else None)
        ends[name] = done.returncode
        print(f"{name}: ended with {done.returncode} after {time.monotonic() - started:.1f} s", flush=True)
    return 1 if any(ends.values()) or not ends else 0


if __name__ == "__main__":
    sys.exit(main())
