"""LoRA adapters: beside a model, or in a model's place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from deploytk.artifact.text_formats import read_json
from deploytk.artifact.tree import FileEntry
from deploytk.artifact.value import Problem
from deploytk.base.errors import ArtifactError

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def refuse_adapter(root: Path) -> None:
    """Raises ArtifactError where `root` holds an adapter and no model."""
    if (root / CONFIG).is_file() or any((root / name).is_file() for name in _WEIGHTS):
        raise ArtifactError(f"{root} holds a LoRA adapter{_base(root)}, not a model", hint=_MERGE)


def adapter_problems(root: Path, entries: Sequence[FileEntry]) -> Iterator[Problem]:
    """An adapter that was left in a model's directory, or that is all the weights there are."""
    names = {entry.path for entry in entries}
    if CONFIG not in names and not names & set(_WEIGHTS):
        return
    others = (".safetensors", ".bin", ".pth", ".pt")
    is_all = not any(name.endswith(others) and not name.startswith("adapter_") for name in names)
    if is_all:
        yield Problem("error", f"the weights here are a LoRA adapter{_base(root)}, not a model", _MERGE)
    else:
        message = f"a LoRA adapter{_base(root)} is left in the directory of the model: it is not served"
        yield Problem("warning", message, "if it is merged into the weights, remove adapter_*; else merge it first")


_MERGE = "merge it into its base model first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(DIR)"


def _base(root: Path) -> str:
    """ " of NAME", where the adapter names its base model."""
    try:
        name = read_json(root / CONFIG).get("base_model_name_or_path")
    except ArtifactError:
        return ""
    return f" of {name[:120]}" if isinstance(name, str) and name else ""
