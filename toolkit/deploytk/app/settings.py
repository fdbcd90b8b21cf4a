"""What of a bundle the engine is started with, and whether all of it is there."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .features import CPU

MODEL_AT = 3  # where the model's path is in the command line
# Where engines run, and the bundle from there. Python imports from the working directory in every process that an
# engine starts with `-c` or `-m`: so it is one that holds no module. The way to the bundle is without names because
# legacy LMDeploy guesses the chat template from words in it.
WORK = Path(__file__).parent / "data"
FROM_WORK = "../.."


@dataclass(frozen=True)
class EngineSettings:
    name: str  # turbomind, pytorch or cpu
    argv: tuple[str, ...]
    bundle: Path
    files: dict[str, int]  # path -> bytes of the model's files
    log: Path | None  # None: stderr
    features: tuple[str, ...] = ()  # what it has beyond plain text: see features.py
    ready_within_s: float = 1800.0
    fetch: tuple[str, ...] = ()  # the command that brings files which are not here
    environment: tuple[tuple[str, str], ...] = ()  # for the engine, where ours says nothing else
    is_supervised: bool = False  # who started the app starts it anew: it ends with its engine

    @classmethod
    def of(cls, bundle: Path, manifest: dict[str, Any]) -> EngineSettings:
        plan = manifest["plan"]
        name = os.environ.get("DEPLOYTK_ENGINE") or plan["engine"]
        argv = list(plan["argv"])
        if name == "cpu":
            isolated = ["-I"] if sys.flags.isolated else []
            argv = [sys.executable, *isolated, "-m", "deploytk.cpu_engine", FROM_WORK]
            argv += ["--model-name", plan["model_name"], "--session-len", str(plan["session_len"])]
        elif plan["engine"] == "cpu":
            raise SystemExit(
                f"error: this bundle is planned for the CPU, not for {name}: package the model anew, deploytk package"
            )
        else:
            # The plan may be for the PyTorch engine, which a wish for TurboMind does not change.
            name = plan["engine"]
            argv[MODEL_AT] = FROM_WORK
        files = {path: file["size"] for path, file in manifest["files"].items() if file["kind"] in ("weights", "model")}
        log = os.environ.get("DEPLOYTK_ENGINE_LOG")
        ready_s = float(os.environ.get("DEPLOYTK_READY_S") or cls.ready_within_s)
        own = Path(__file__).with_name("fetch_model.py")
        brings = (sys.executable, "-I", str(own)) if own.is_file() else ()
        fetch = tuple(shlex.split(os.environ.get("DEPLOYTK_FETCH") or "")) or brings
        needed = tuple((name, value) for name, value in plan.get("environment", ()))
        log_path = Path(log).resolve() if log else None
        features = CPU if name == "cpu" else tuple(plan["features"])
        ends = os.environ.get("DEPLOYTK_ENDS_WITH_ENGINE") == "1"
        return cls(name, tuple(argv), bundle, files, log_path, features, ready_s, fetch, needed, ends)

    def find_problem(self) -> str:
        """Why the engine cannot run at all, '' when nothing speaks against it."""
        for path, size in self.files.items():
            try:
                found = os.stat(self.bundle / path).st_size  # noqa: PTH116
            except OSError:
                return f"{path} is missing"
            if found != size:
                with (self.bundle / path).open("rb") as opened:
                    is_pointer = opened.read(23) == b"version https://git-lfs"
                if is_pointer:
                    return f"{path} is a git-lfs pointer, not the file: run `git lfs pull`"
                return f"{path} has {found} bytes, deploytk.json says {size}"
        program = self.argv[0]
        return "" if shutil.which(program) else f"{program} is not installed here"
