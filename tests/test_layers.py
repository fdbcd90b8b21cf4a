"""The rules of the house that can be checked: import order, owners of SDKs, what a command may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import deploytk

PACKAGE = Path(deploytk.__file__).parent

# A module or sub-package imports only what stands before it.
ORDER = """
    __init__ errors shipped progress atomic values settings processes lmdeploy artifact gpus vram plan weights
    modernize digests bundle build_trace containers image secrets release credentials targets gpu cpu_engine preview
    smoke bench preflight doctor demo display cli __main__
""".split()

OWNERS = {
    "docker": {"containers"},
    "pynvml": {"gpu"},
    "huggingface_hub": {"targets", "bundle"},
    "jinja2": {"bundle"},
    "modelscope_hub": {"targets"},
    "typer": {"cli"},
    "rich": {"progress", "display"},
    "torch": {"cpu_engine"},
    "transformers": {"cpu_engine"},
    "matplotlib": {"bench"},
}


def _modules() -> list[tuple[str, ast.Module]]:
    paths = sorted(path for path in PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), ast.parse(path.read_text())) for path in paths]


def _imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module == "deploytk":
                names |= {f"deploytk.{alias.name}" for alias in node.names if f"{alias.name}" in ORDER}
    return names


def test_every_module_has_its_place_in_the_order() -> None:
    assert {module for module, _ in _modules()} <= set(ORDER)


def test_imports_point_one_way() -> None:
    breaches = [
        f"{module} imports {imported}"
        for module, tree in _modules()
        for name in _imports(tree)
        if name.startswith("deploytk.")
        for imported in [name.split(".")[1]]
        if imported != module and ORDER.index(imported) > ORDER.index(module)
    ]

    assert breaches == []


def test_one_module_owns_each_sdk() -> None:
    breaches = [
        f"{module} imports {sdk}"
        for module, tree in _modules()
        for sdk in {name.split(".")[0] for name in _imports(tree)} & OWNERS.keys()
        if module not in OWNERS[sdk]
    ]

    assert breaches == []


def test_help_loads_no_sdk() -> None:
    code = "import sys, deploytk.cli; print(*sorted(m for m in sys.modules if '.' not in m))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"docker", "huggingface_hub", "torch", "transformers", "numpy", "jinja2", "gradio"} & set(loaded)
