"""Names, dtypes and shapes of the tensors in a PyTorch pickle, read from its opcodes. Nothing is imported or called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploytk.artifact.pickle_files import pickles_in
from deploytk.artifact.pickle_machine import Followed, Tensor, UnreadableError
from deploytk.base.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class PickledTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]


def read_pickled(path: Path) -> tuple[PickledTensor, ...]:
    """The tensors that `path` names, in its order; ArtifactError where it cannot be told."""
    try:
        with path.open("rb") as file:
            found = _tensors(pickles_in(file).tensors)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", hint="check the file and its rights") from error
    except UnreadableError as error:
        hint = "save the model again as safetensors, so that its tensors can be read"
        raise ArtifactError(f"{path} does not show its tensors: {error}", hint=hint) from error
    return tuple(PickledTensor(name, tensor.dtype, tensor.shape) for name, tensor in found.items())


def _tensors(pickle: Followed) -> dict[str, Tensor]:
    """Those of a state dictionary, also of one inside a checkpoint."""
    if pickle.trouble:
        raise UnreadableError(pickle.trouble)
    value = pickle.value
    for key in ("state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict):
        raise UnreadableError("it holds no dictionary of tensors")
    found = {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    if not found:
        raise UnreadableError("it holds no tensors")
    return found
