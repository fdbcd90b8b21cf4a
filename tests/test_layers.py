"""The rules of the house that can be checked: import order, owners of SDKs, what a command may load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import deploytk
from deploytk.publish.target import installed_targets

PACKAGE = Path(deploytk.__file__).parent

# A room imports only those before it, and itself.
ORDER = """
    __init__ app base lmdeploy artifact hardware plan weights modernize bundle image signing publish cpu_engine
    quantize serve chat smoke bench preflight scale workflow doctor demo display cli __main__
""".split()

OWNERS = {
    "docker": {"image/docker"},
    "pynvml": {"hardware"},
    "picklescan": {"artifact"},
    "model_signing": {"signing"},
    "sigstore": {"signing"},
    "cryptography": {"signing"},
    "huggingface_hub": {"publish/targets/huggingface", "bundle"},
    "jinja2": {"bundle"},
    "modelscope_hub": {"publish/targets/modelscope"},
    "typer": {"cli"},
    "rich": {"base", "display"},
    "torch": {"cpu_engine", "quantize/engines", "quantize/measuring"},
    "transformers": {"cpu_engine", "quantize/engines"},
    "lmdeploy": {"quantize/engines"},
    "auto_round": {"quantize/engines"},
    "matplotlib": {"bench"},
    "ray": {"scale/ray"},
    "kubernetes": {"scale/kubernetes"},
    "uvloop": {"base"},
}


@cache
def _modules() -> list[tuple[Path, ast.Module]]:
    """Every module by its path in the package, without the suffix."""
    paths = sorted(path for path in PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).with_suffix(""), ast.parse(path.read_text())) for path in paths]


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
    assert {module.parts[0] for module, _ in _modules()} == set(ORDER)


def test_imports_point_one_way() -> None:
    breaches = [
        f"{module} imports {imported}"
        for module, tree in _modules()
        for name in _imports(tree)
        if name.startswith("deploytk.")
        for imported in [name.split(".")[1]]
        if ORDER.index(imported) > ORDER.index(module.parts[0])
    ]

    assert breaches == []


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not when something is loaded, nor later, nor for types alone."""
    modules = {".".join(("deploytk", *path.parts)).removesuffix(".__init__"): tree for path, tree in _modules()}
    imports = {
        name: {
            next((one for one in (f"{node.module}.{alias.name}", str(node.module)) if one in modules), name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        - {name}
        for name, tree in modules.items()
    }

    order = [*TopologicalSorter(imports).static_order()]  # raises CycleError, which names the files

    assert len(order) == len(modules)


def test_one_module_owns_each_sdk() -> None:
    breaches = [
        f"{module} imports {sdk}"
        for module, tree in _modules()
        for sdk in {name.split(".")[0] for name in _imports(tree)} & OWNERS.keys()
        if not any(module.is_relative_to(owner) for owner in OWNERS[sdk])
    ]

    assert breaches == []


def test_siblings_never_import_each_other() -> None:
    targets = PACKAGE / "publish" / "targets"
    breaches = [
        f"{module} imports {name}"
        for module, tree in _modules()
        if (PACKAGE / module).is_relative_to(targets)
        for name in _imports(tree)
        if name.startswith("deploytk.publish.targets.")
        if name.split(".")[3] not in (module.parts[2], "common")
    ]

    assert breaches == []


def test_a_target_is_imported_by_its_own_folder_alone() -> None:
    """What others want to know of it, it says itself: see About in publish/target.py."""
    breaches = [
        f"{module} imports {name}"
        for module, tree in _modules()
        if not module.is_relative_to("publish/targets")
        for name in _imports(tree)
        if name.startswith("deploytk.publish.targets.") and name.split(".")[3] != "common"
    ]

    assert breaches == ["demo imports deploytk.publish.targets.local"]  # it publishes into a directory


# Where the word is none for a target: a layout of model directories, an engine of the bench, a mirror, a program.
NO_TARGETS = {
    "huggingface": set("artifact base bench bundle cpu_engine demo doctor modernize plan quantize weights".split()),
    "modelscope": {"preflight"},
    "openxlab": {"preflight"},
}


def test_a_targets_name_appears_in_its_own_folder_alone() -> None:
    names = installed_targets()
    breaches = [
        f"{module} says {text[:60]!r}"
        for module, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(text := node.value, str)
        for name in names
        if module.parts[:3] != ("publish", "targets", name)
        if text == name or f"--target {name}" in text or (text.startswith(f"{name}: ") and len(text) < 200)
        if module.parts[0] not in NO_TARGETS.get(name, ())
    ]

    assert breaches == []


def test_lmdeploys_versions_are_compared_in_its_own_room() -> None:
    """A version elsewhere is a text to print; what follows from it is a named feature of deploytk.lmdeploy."""
    other_software = {
        "__init__",
        "publish/targets/openxlab/sdk",
        "quantize/tools",
    }  # deploytk's own, openxlab's, AutoRound's
    breaches = [
        f"{module}:{node.lineno}"
        for module, tree in _modules()
        if module.parts[0] != "lmdeploy" and str(module) not in other_software
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "release_index")
        or (isinstance(node, ast.Constant) and re.fullmatch(r"0\.\d+\.\d+(\.post\d+)?", str(node.value)))
    ]

    assert breaches == []


SECRETS = {"access", "api_key", "headers", "key", "password", "secret", "token"}
NO_SECRETS = {"cli/options:Signed.key"}  # the path of a public one


def _shows(annotated: ast.AnnAssign) -> bool:
    """Whether a field of a dataclass is in the text of its values; a `Key` leaves its own token out."""
    return "Key" not in ast.unparse(annotated.annotation) and "repr=False" not in ast.unparse(annotated)


def test_no_value_shows_a_secret_in_its_text() -> None:
    """A message or a traceback that shows the value would show it too."""
    breaches = [
        name
        for module, tree in _modules()
        for holder in ast.walk(tree)
        if isinstance(holder, ast.ClassDef) and any(map(_is_dataclass_with_text, holder.decorator_list))
        for one in holder.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if one.target.id in SECRETS and _shows(one)
        for name in [f"{module}:{holder.name}.{one.target.id}"]
        if name not in NO_SECRETS
    ]

    assert breaches == []


def _is_dataclass_with_text(decorator: ast.expr) -> bool:
    text = ast.unparse(decorator)
    return "dataclass" in text and "repr=False" not in text


def test_httpx_brings_no_command_line_of_its_own_into_a_command() -> None:
    """Half of its import: rich, pygments and click are loaded for it where they are installed, as they are here."""
    code = "import sys, deploytk.__main__, httpx; print(*sorted(sys.modules)); httpx.Client().close()"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "httpx._client" in loaded
    assert not {"pygments", "rich.console"} & set(loaded)


def test_help_loads_no_sdk() -> None:
    code = "import sys, deploytk.cli; print(*sorted(m for m in sys.modules if '.' not in m))"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert not {"docker", "huggingface_hub", "torch", "transformers", "numpy", "jinja2", "gradio"} & set(loaded)


def test_what_sends_layers_loads_no_model_and_no_bundle() -> None:
    """It is started for every push of large layers, which wait until it is there."""
    code = "import sys, deploytk.image.tar_digests, deploytk.image.registry.push_job; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    rooms = {name.split(".")[1] for name in loaded if name.startswith("deploytk.")}
    assert rooms == {"app", "base", "image"}
