"""What TurboMind of one release serves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from read_lmdeploy.facts import Facts, body_text, constants, function, strings
from read_lmdeploy.shapes import GATES, HELPERS, TURBOMIND_WEIGHTS
from read_lmdeploy.sources import Source, UnreadableError, parsed

_CONVERTERS = ("lmdeploy/turbomind/converter.py", "lmdeploy/turbomind/deploy/converter.py")
_MODELS = ("lmdeploy/turbomind/models/", "lmdeploy/turbomind/deploy/source_model/")
_KERNEL = re.compile(r"/(?:attention|decoding)_sm\d+_(\d+)[_.]")

# Before 0.2.5 no list of architectures was kept: the readers of source_model/ are named after families.
_FAMILIES = {
    "llama": ("LlamaForCausalLM", "InternLMForCausalLM"),
    "qwen": ("QWenLMHeadModel",),
    "baichuan": ("BaiChuanForCausalLM", "BaichuanForCausalLM"),
    "internlm2": ("InternLM2ForCausalLM",),
}


def read_turbomind(source: Source) -> Facts:
    facts = Facts()
    tree = parsed(source, "lmdeploy/turbomind/supported_models.py")
    registered = _registered(tree) if tree else _by_family(source)
    facts.architectures = set(registered)
    if tree:
        _read_gates(source, tree, facts)
    _read_models(source, registered, facts)
    _read_weights(source, facts)
    facts.head_dims = _head_dims(source)
    facts.takes_own_repositories = _takes_own_repositories(source)
    return facts


def _registered(tree: ast.Module) -> dict[str, str]:
    """Architecture -> the name of its reader, without those that are marked as not supported."""
    for node in tree.body:
        is_table = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in (
            "SUPPORTED_ARCHS",
            "_SUPPORTED_ARCHS",
        )
        if is_table and isinstance(node.value, ast.Call):  # type: ignore[attr-defined]
            pairs = {str(one.arg): ast.literal_eval(one.value) for one in node.value.keywords}  # type: ignore[attr-defined]
            return {name: str(reader) for name, reader in pairs.items() if reader}
    raise UnreadableError("turbomind/supported_models.py has no SUPPORTED_ARCHS")


def _by_family(source: Source) -> dict[str, str]:
    """Only directories are meant here: before 0.2.0 `lmdeploy convert` alone read them."""
    names = {path.rpartition("/")[2].removesuffix(".py") for folder in _MODELS for path in source.names(folder)}
    if not names:
        return {}
    return {one: family for family in names & _FAMILIES.keys() for one in _FAMILIES[family]}


def _read_gates(source: Source, tree: ast.Module, facts: Facts) -> None:
    supported = function(tree, "is_supported")
    helpers = {
        node.name: _known(HELPERS, body_text(node.body), source, f"{node.name} of is_supported")
        for node in supported.body
        if isinstance(node, ast.FunctionDef)
    }
    for node in ast.walk(supported):
        test = ast.unparse(node.test) if isinstance(node, ast.If) else ""
        if not test.startswith(("arch ==", "arch in (", "arch in [")):
            continue
        body = body_text(node.body)  # type: ignore[attr-defined]
        called = next((name for name in helpers if name in body), "HELPER")
        conditions = _known(GATES, body.replace(called, "HELPER"), source, f"`if {test}` of is_supported")
        for architecture in strings(node.test):  # type: ignore[attr-defined]
            facts.ask(architecture, *(one.replace("HELPER", str(helpers.get(called, ""))) for one in conditions))
    facts.refused_methods = set(_refused_methods(supported))


def _refused_methods(supported: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(supported):
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("quant_method and quant_method in"):
            yield from strings(node.test)


def _read_models(source: Source, registered: dict[str, str], facts: Facts) -> None:
    """What the readers of source models say by themselves: windows, and language models inside."""
    for folder in _MODELS:
        for path in source.names(folder):
            text = source.text(path) if path.endswith(".py") else None
            for name in _readers(ast.parse(text)) if text else ():
                architectures = {one for one, reader in registered.items() if reader == name}
                if "sliding_window" in str(text):
                    facts.windowed |= architectures
                if "import SUPPORTED_ARCHS" in str(text):
                    for architecture in architectures:
                        facts.ask(architecture, "inner_supported")


def _readers(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("INPUT_MODELS.register_module"):
            yield from strings(node)


def _read_weights(source: Source, facts: Facts) -> None:
    """From 0.6.0 on the converter looks at quantization_config; before, --model-format awq alone counted."""
    tree = parsed(source, *_CONVERTERS)
    if tree is None or "quant_method" not in ast.unparse(tree):
        if any("awq" in path for folder in _MODELS for path in source.names(folder)) or _has_word(tree, "awq"):
            facts.weights["awq"] = {"stated_gemm", "bits_4", "group_128"}
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("quant_method =="):
            what = f"`if {ast.unparse(node.test)}` of the converter"
            (method,) = strings(node.test)
            facts.weights[method] = set(_known(TURBOMIND_WEIGHTS, body_text(node.body), source, what))
    for method, sizes in _group_sizes(tree).items():
        if method in facts.weights and method not in ("fp8", "mxfp4"):
            facts.weights[method].add("group_" + "_".join(map(str, sorted(sizes))))


def _has_word(tree: ast.Module | None, word: str) -> bool:
    return tree is not None and any(word == value for value in constants(tree))


def _group_sizes(tree: ast.Module) -> dict[str, set[int]]:
    """From the table of 0.12.3 and later, or from `if model_format in [...]: assert group_size == 128` before."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_SUPPORTED_GROUP_SIZES":
            pairs = zip(node.value.keys, node.value.values, strict=True)  # type: ignore[attr-defined]
            return {ast.literal_eval(key): set(ast.literal_eval(value.args[0])) for key, value in pairs}
        if isinstance(node, ast.If) and "assert group_size == 128" in ast.unparse(node):
            return {method: {128} for method in strings(node.test)}
    raise UnreadableError("the converter says nothing about group sizes")


def _head_dims(source: Source) -> set[int] | None:
    """Values per head that attention has kernels for; None where the sources are not there."""
    if not source.has_kernels:
        return None
    found = {
        int(match[1]) for name in source.names("src/turbomind/kernels/attention/") if (match := _KERNEL.search(name))
    }
    return found or {128}  # up to 0.3.0 the kernels are not parted into files, and know 128 alone


def _takes_own_repositories(source: Source) -> bool:
    """Whether it loads the repositories that LMDeploy itself published, with `turbomind` in their config.json.

    0.1.0 reads that key. 0.2.0 and 0.2.1 stop at it, but without it they go by --model-name and never look at the
    architecture; later ones look it up, and do not find LMDeployForCausalLM.
    """
    text = source.text("lmdeploy/turbomind/turbomind.py") or ""
    return "if model_source == ModelSource.HF_LMDEPLOY:" in text or "get_model_format(engine_config.model_name" in text


def _known(table: dict[str, object], text: str, source: Source, what: str):  # type: ignore[no-untyped-def]
    if text not in table:
        raise UnreadableError(f"{source.version}: {what} is new; teach it to shapes.py:\n{text}")
    return table[text]
