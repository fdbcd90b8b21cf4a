"""What the PyTorch engine of one release serves. Before 0.6.0 it patched transformers' own models: not read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from read_lmdeploy.facts import Facts, function, strings
from read_lmdeploy.shapes import PYTORCH_COMPRESSED, PYTORCH_WEIGHTS
from read_lmdeploy.sources import Source, UnreadableError, parsed

_MODELS = "lmdeploy/pytorch/models/"
_LINEARS = ("lmdeploy/pytorch/nn/linear/__init__.py", "lmdeploy/pytorch/nn/linear.py")
_LAYERS = (*_LINEARS, "lmdeploy/pytorch/nn/moe/__init__.py")
_OTHER_PARTS = ("MTP", "Eagle", "Draft", "Reward")  # helpers of other models and models without answers


def read_pytorch(source: Source) -> Facts:
    facts = Facts()
    tree = parsed(source, f"{_MODELS}module_map.py")
    if tree is None or "LlamaForCausalLM" not in ast.unparse(tree):
        return facts
    where = dict(_module_map(tree))
    if "LlamaForCausalLM" not in where:
        return facts
    facts.removed = set(_removed(tree))
    facts.architectures = {name for name in where if not any(part in name for part in _OTHER_PARTS)} - facts.removed
    for name in facts.architectures:
        module = where[name].rsplit(".", 1)[0]
        if "build_model_from_hf_config(" in (source.text(f"{_MODELS}{module}.py") or ""):
            facts.ask(name, "inner_known")
    _read_weights(source, facts)
    return facts


def _module_map(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Architecture -> module.Class below pytorch/models, of the map for NVIDIA GPUs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "MODULE_MAP.update":
            (table,) = node.args
            if not isinstance(table, ast.Dict):
                raise UnreadableError(f"module_map.py fills its map in a new way: {ast.unparse(node)}")
            for key, value in zip(table.keys, table.values, strict=True):
                yield ast.literal_eval(key), strings(value)[-1].lstrip(".")  # type: ignore[arg-type]


def _removed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "REMOVED_MODEL_MAP":
            return list(ast.literal_eval(node.value))
    return []


def _read_weights(source: Source, facts: Facts) -> None:
    for path in _LAYERS:
        tree = parsed(source, path)
        for method in _methods(tree) if tree else ():
            if method not in PYTORCH_WEIGHTS:
                raise UnreadableError(
                    f"{source.version}: {path} knows the quantization method {method!r}; teach it to shapes.py"
                )
            conditions = PYTORCH_WEIGHTS[method]
            if conditions is not None:
                facts.weights[method] = set(conditions)
    if "fp8" in facts.weights and not _has_static_fp8(source):
        facts.weights["fp8"] = {"is_stated", "block_128"}
    if "compressed-tensors" in facts.weights:
        _check_compressed(source)


def _methods(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("quant_method =="):
            yield from strings(node.test)


def _has_static_fp8(source: Source) -> bool:
    tree = parsed(source, *_LINEARS)
    if tree is None or "_is_static_per_tensor_fp8" not in ast.unparse(tree):
        return False
    text = ast.unparse(function(tree, "_is_static_per_tensor_fp8"))
    if "activation_scheme == 'static' and quant_config.weight_block_size is None" not in text:
        raise UnreadableError(f"{source.version}: _is_static_per_tensor_fp8 is new:\n{text}")
    return True


def _check_compressed(source: Source) -> None:
    tree = parsed(source, "lmdeploy/pytorch/config.py")
    for node in ast.walk(function(tree or ast.parse(""), "_parse_compressed_tensors_config")):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "expected_weights":
            if ast.literal_eval(node.value) != PYTORCH_COMPRESSED:
                raise UnreadableError(
                    f"{source.version}: the PyTorch engine expects other compressed-tensors: {ast.unparse(node)}"
                )
            return
    raise UnreadableError(f"{source.version}: the PyTorch engine reads compressed-tensors in a new way")
