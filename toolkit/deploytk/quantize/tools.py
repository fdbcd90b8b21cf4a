"""The quantizers: which package each is, where it is found, and what the version that is there can do."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploytk import lmdeploy
from deploytk.base.environments import OwnEnvironment, own_python, python_of
from deploytk.base.errors import QuantizeError, UsageError
from deploytk.base.import_path import python_environment
from deploytk.base.progress import Progress
from deploytk.quantize.value import Method

AUTOROUND = "0.16.1"
_PROBE_WITHIN_S = 60.0

# Only looked at, never imported: LMDeploy takes seconds to import, and torch more.
_PROBE = """
import importlib.metadata as metadata, importlib.util, json, sys
found = {"python": list(sys.version_info[:2]), "versions": {}, "places": {}}
for package in sys.argv[1:]:
    try:
        found["versions"][package] = metadata.version(package)
        spec = importlib.util.find_spec(package.replace("-", "_"))
        found["places"][package] = spec.origin if spec else None
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """A quantizer that is installed."""

    method: Method
    package: str  # "lmdeploy", "auto-round"
    version: str
    python: Path
    has_cuda: bool  # its torch was built for it
    architectures: frozenset[str] | None  # that it quantizes; None: whatever transformers loads and has layers
    smoothed: frozenset[str]  # of them, those that it can calibrate; the others only without texts
    takes_no_texts: bool  # it quantizes without calibration, too
    runs_code: bool = False  # of the model, unasked: LMDeploy up to 0.12 has no switch for it


@dataclass(frozen=True, slots=True)
class _Needs:
    package: str
    environment: OwnEnvironment
    first_python: tuple[int, int]
    last_python: tuple[int, int] | None = None


_NO_INDEX = "install {} yourself, and name that Python with --python"

_NEEDS: dict[Method, _Needs] = {
    "awq": _Needs(
        "lmdeploy",
        OwnEnvironment(
            package="lmdeploy",
            version=lmdeploy.NEWEST,
            raises=QuantizeError,
            hint=_NO_INDEX.format("LMDeploy"),
            imports="lmdeploy.lite.apis.auto_awq",
            # All that its quantizer imports beside torch, transformers and what they need.
            beside=(
                "addict==2.4.0",
                "mmengine-lite==0.10.7",
                "pillow==12.3.0",
                "psutil==7.2.2",
                "pybase64==1.5.1",
                "termcolor==3.3.0",
                "yapf==0.43.0",
            ),
            with_dependencies=False,
            sees_ours=True,
        ),
        first_python=(3, 10),
        last_python=(3, 14),
    ),
    "autoround": _Needs(
        "auto-round",
        OwnEnvironment(
            package="auto-round",
            version=AUTOROUND,
            raises=QuantizeError,
            hint=_NO_INDEX.format("auto-round"),
            imports="auto_round",
            beside=("accelerate==1.15.0", "datasets==5.2.0"),
            sees_ours=True,
        ),
        first_python=(3, 11),
    ),
}


def tool_here(method: Method) -> Tool | None:
    """The quantizer where nothing has to be installed for it: here, or in an environment that was made before."""
    made = python_of(_NEEDS[method].environment)
    for place in (*_candidates(method), *([made] if made else [])):
        with contextlib.suppress(UsageError, QuantizeError):  # a broken environment that nobody named is passed over
            if tool := _tool_in(place, method):
                return tool
    return None


def find_tool(method: Method, python: Path | None, progress: Progress) -> Tool:
    """The quantizer of that method: in the environment of `python`, here, or in an environment of its own.

    Nothing of it is imported. Raises UsageError or QuantizeError, with what to do, where there is none.
    """
    needs = _NEEDS[method]
    tool = _tool_in(python, method) if python else tool_here(method)
    if tool:
        return tool
    if python:
        raise UsageError(f"{python} has no {needs.package}", hint=f"{python} -m pip install {needs.package}")
    _require_python(needs)
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        what = f"{needs.package} is not here, and for an environment of its own {' and '.join(missing)} are missing"
        raise UsageError(what, hint="pip install 'deploytk[cpu]', or --python with that of an environment that has it")
    tool = _tool_in(own_python(needs.environment, progress), method)
    if tool is None:
        raise QuantizeError(
            f"{needs.environment.place} has no {needs.package}", hint=f"remove {needs.environment.place}, and run again"
        )
    return tool


def _candidates(method: Method) -> Iterator[Path]:
    yield Path(sys.executable)
    program = shutil.which("lmdeploy") if method == "awq" else None
    if program:
        with Path(program).open("rb") as file:
            first = file.readline(1000).decode(errors="replace").strip()
        if first.startswith("#!") and "python" in first:
            yield Path(first[2:].split()[0])


def _require_python(needs: _Needs) -> None:
    """Raises UsageError when this Python cannot have the package."""
    here, last = sys.version_info[:2], needs.last_python
    if here < needs.first_python or (last is not None and here > last):
        first = ".".join(map(str, needs.first_python))
        wanted = f"from {first} to {'.'.join(map(str, last))}" if last else f"from {first}"
        what = f"{needs.package} {needs.environment.version} is for Python {wanted}, this is {here[0]}.{here[1]}"
        raise UsageError(what, hint="--python with that of an environment that has it")


def _tool_in(python: Path, method: Method) -> Tool | None:
    package = _NEEDS[method].package
    found = _probed(python, package, "torch")
    version = found["versions"].get(package)
    if version is None:
        return None
    place, torch = found["places"].get(package), found["places"].get("torch")
    if torch is None:
        raise QuantizeError(f"{package} of {python} has no torch", hint="name a Python that has both with --python")
    tool = Tool(method, package, version, python, _has_cuda(Path(torch)), None, frozenset(), takes_no_texts=False)
    return _with_lite(tool, Path(place).parent / "lite") if method == "awq" and place else tool


def _probed(python: Path, *packages: str) -> dict[str, dict[str, str]]:
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE, *packages], capture_output=True, text=True, timeout=_PROBE_WITHIN_S,
            check=True, stdin=subprocess.DEVNULL, env=python_environment(), cwd="/",
        )  # fmt: skip
        found: dict[str, dict[str, str]] = json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise UsageError(
            f"{python} is no Python that starts", hint="name the program python of an environment"
        ) from error
    return found


def _with_lite(tool: Tool, directory: Path) -> Tool:
    """With what this LMDeploy's quantizer knows and does, as its own sources say."""
    layers = _mapping(directory / "apis" / "calibrate.py", "LAYER_TYPE_MAP")
    norms = _mapping(directory / "apis" / "calibrate.py", "NORM_TYPE_MAP")
    smoothing = _mapping(directory / "quantization" / "awq.py", "NORM_FCS_MAP")
    behind = _mapping(directory / "quantization" / "awq.py", "FC_FCS_MAP")
    known = frozenset(layers.keys() & norms.keys())
    smoothed = frozenset(name for name in known if layers[name] in smoothing and layers[name] in behind)
    text = (directory / "apis" / "auto_awq.py").read_text(encoding="utf-8")
    return dataclasses.replace(
        tool,
        architectures=known,
        smoothed=smoothed,
        takes_no_texts="calib_samples == 0" in text,
        runs_code="trust_remote_code: bool" not in text,
    )


def _mapping(path: Path, name: str) -> dict[str, object]:
    """The dictionary that a module gives that name; {} where it has none."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            found = ast.literal_eval(node.value)
            return found if isinstance(found, dict) else {}
    return {}


def _has_cuda(torch: Path) -> bool:
    """Whether that torch was built for CUDA, as its version.py says."""
    try:
        text = (torch.parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    return "cuda" in text and not any(
        line.startswith("cuda") and line.rstrip().endswith("None") for line in text.splitlines()
    )
