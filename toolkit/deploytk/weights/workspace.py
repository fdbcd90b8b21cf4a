"""The tensors of a workspace that `lmdeploy convert` wrote (0.0.x to 0.9.2), under their Hugging Face names.

What convert does, and what is undone here, is the same from 0.0.10 to 0.9.2 but for the order of 4-bit weights
(nibbles.py). Sources: turbomind/deploy/target_model/{base,fp,w4}.py up to 0.5.3, then turbomind/deploy/exporter.py
(0.6.0-0.6.3) and module.py.

- every matrix is transposed; q and k of each head are zipped (`permute`), so that rotated pairs are neighbours;
- q, k and v of a rank are merged into w_qkv; what makes outputs (w_qkv, w1, w3) is parted over the ranks by columns,
  what takes them (wo, w2) by rows; biases of wo are there once per rank;
- the vocabulary is padded to a multiple of the ranks; from 0.6.0 on the embedding is parted by columns, the output
  by rows, and from 0.8.0 on the output is transposed as well;
- from 0.6.0 on, inner columns are padded to whole groups per rank and key/value heads repeated when there are more
  ranks than heads: both are taken out again where the copied config.json says how many there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deploytk.artifact import Artifact
from deploytk.base.errors import WeightsError
from deploytk.weights import internlm2, matrices
from deploytk.weights.config import Original, build_config, read_original
from deploytk.weights.linears import GROUP, Files, Linear, copied, resized, shared
from deploytk.weights.mapped import MappedFiles
from deploytk.weights.names import INTERNLM2, LLAMA, Family
from deploytk.weights.value import Array, Dtype, ModelWeights, Source, Tensor

_COMPARED_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class _Workspace:
    """The weight files of a workspace and the shape of the model in them."""

    artifact: Artifact
    family: Family
    original: Original
    files: Files

    def tensors(self, *, dequantize: bool) -> Iterator[Tensor]:
        yield from self._embeddings()
        for layer in range(self.artifact.layers):
            yield from self._layer(layer, dequantize=dequantize)
        yield self._vector("model.norm.weight", "norm.weight", self.artifact.hidden_size)
        if not self.original.is_tied:
            yield from self._output()

    def _vector(self, name: str, stored: str, length: int, zipped: int = 0) -> Tensor:
        def source() -> Array:
            return matrices.unzip(self.files.open(stored, np.uint16, length), zipped)

        return copied(name, self.files.dtype, (length,), source)

    def _embeddings(self) -> Iterator[Tensor]:
        hidden, vocab = self.artifact.hidden_size, self.artifact.vocab_size
        name = f"{self.family.embeddings}.weight"
        stored = "tok_embeddings.weight" if self.files.is_ini else "tok_embeddings.0.weight"
        source = Source(self.files.directory / stored, 0) if self.files.is_ini or self.files.ranks == 1 else None

        def fill(out: Array, first: int) -> None:
            _fill_embeddings(self.artifact, self.files, out.view(np.uint16), first)

        yield Tensor(name, self.files.dtype, (vocab, hidden), fill, source, step=1)

    def _output(self) -> Iterator[Tensor]:
        hidden, vocab = self.artifact.hidden_size, self.artifact.vocab_size
        name = f"{self.family.head}.weight"
        stored = "output.weight" if self.files.is_ini else "output.0.weight"
        is_whole = self.files.is_ini or (self.files.ranks == 1 and not _is_output_transposed(self.artifact))
        source = Source(self.files.directory / stored, 0) if is_whole else None

        def fill(out: Array, first: int) -> None:
            _fill_output(self.artifact, self.files, out.view(np.uint16), first)

        yield Tensor(name, self.files.dtype, (vocab, hidden), fill, source, step=matrices.STRIPE)

    def _layer(self, index: int, *, dequantize: bool) -> Iterator[Tensor]:
        artifact, family = self.artifact, self.family
        here, stem, hidden = family.layer(index), f"layers.{index}", artifact.hidden_size
        how = {"is_int4": artifact.is_quantized, "dequantize": dequantize}
        yield self._vector(
            f"{here}{family.attention_norm}.weight", f"{stem}.attention_norm.weight", artifact.hidden_size
        )
        for linear, name in zip(self._attention(index), family.attention, strict=True):
            is_output = linear.split == "rows"
            has_bias = artifact.attention_bias and (family.has_output_bias or not is_output)
            found = linear.tensors(f"{here}{name}", has_bias=has_bias, **how)
            is_repeated = self.original.repeats > 1 and name in family.attention[1:3]
            yield from (self._once(tensor) for tensor in found) if is_repeated else found
        for own, stored in zip(family.head_norms, ("q_norm", "k_norm"), strict=False):
            path = f"{stem}.attention.{stored}"
            yield self._vector(f"{here}{own}.weight", path, artifact.head_dim, artifact.head_dim)
        yield self._vector(f"{here}{family.ffn_norm}.weight", f"{stem}.ffn_norm.weight", hidden)
        for linear, name in zip(self._feed_forward(index), family.ffn, strict=True):
            found = linear.tensors(
                f"{here}{name}", is_int4=artifact.is_quantized, dequantize=dequantize, has_bias=False
            )
            yield from (self._unpadded(tensor, linear.split) for tensor in found) if self.original.padding else found

    def _attention(self, index: int) -> Iterator[Linear]:
        artifact, files = self.artifact, self.files
        stem, head = f"layers.{index}.attention", artifact.head_dim
        query, keys = artifact.heads * head, artifact.kv_heads * head
        offset = 0
        for columns, zipped in ((query, head), (keys, head), (keys, 0)):
            beside = query + 2 * keys - columns
            yield Linear(
                files, f"{stem}.w_qkv", artifact.hidden_size, columns, "columns", beside, offset, zipped=zipped
            )
            offset += columns
        yield Linear(files, f"{stem}.wo", query, artifact.hidden_size, "rows")

    def _feed_forward(self, index: int) -> Iterator[Linear]:
        artifact, files = self.artifact, self.files
        stem, inner = f"layers.{index}.feed_forward", artifact.intermediate_size
        if files.is_ini and artifact.is_quantized:
            for half in (0, 1):
                yield Linear(files, f"{stem}.w13", artifact.hidden_size, inner, "columns", half=half)
        else:
            for name in ("w1", "w3"):
                yield Linear(files, f"{stem}.{name}", artifact.hidden_size, inner, "columns")
        yield Linear(files, f"{stem}.w2", inner, artifact.hidden_size, "rows")

    def _once(self, tensor: Tensor) -> Tensor:
        """A tensor of keys or values without the repetition of its heads."""
        axis = 1 if tensor.name.endswith((".qweight", ".qzeros", ".scales")) else 0
        repeats, heads = self.original.repeats, self.artifact.kv_heads
        shape = list(tensor.shape)
        shape[axis] //= repeats

        def take(values: Array) -> Array:
            apart = values.reshape(*tensor.shape[:axis], heads, -1, *tensor.shape[axis + 1 :])
            kept = apart[:, ::repeats] if axis else apart[::repeats]
            return kept.reshape(shape)

        return resized(tensor, tuple(shape), take)

    def _unpadded(self, tensor: Tensor, split: Literal["rows", "columns"]) -> Tensor:
        """A tensor of the feed-forward part without the inner columns that were added at the end."""
        is_weight = tensor.name.endswith(".weight")
        axis = 1 if is_weight == (split == "rows") else 0
        per_step = 1
        if tensor.name.endswith((".qweight", ".qzeros")) and axis == 1:
            per_step = 8
        elif tensor.name.endswith((".qzeros", ".scales")) and axis == 0:
            per_step = GROUP
        shape = list(tensor.shape)
        shape[axis] -= self.original.padding // per_step
        kept = tuple(slice(size) for size in shape)
        return resized(tensor, tuple(shape), lambda values: values[kept])


def open_workspace(artifact: Artifact, family: Family, names: Literal["own", "llama"]) -> ModelWeights:
    """The weights of the workspace behind `artifact`, checked as far as that is possible without reading them."""
    _refuse_unreadable(artifact)
    dtype: Dtype = "BF16" if artifact.weight_dtype == "bfloat16" else "F16"
    directory = artifact.root / "triton_models" / "weights"
    mapped = MappedFiles(most=2 * artifact.tensor_parallel)
    files = Files(directory, artifact.tensor_parallel, artifact.config_format == "ini", dtype, mapped)
    original = read_original(artifact, lambda: _is_output_embedding(artifact, files))
    # InternLM2 is read as the Llama model that it equals, and merged as its own code wants it.
    is_internlm2 = family is INTERNLM2
    workspace = _Workspace(artifact, LLAMA if is_internlm2 else family, original, files)
    stored, dense = tuple(workspace.tensors(dequantize=False)), tuple(workspace.tensors(dequantize=True))
    if artifact.attention_bias and not family.has_output_bias:
        _refuse_output_bias(artifact, files)
    if is_internlm2 and names == "own":
        heads = artifact.heads, artifact.kv_heads // original.repeats
        stored, dense = tuple(internlm2.from_llama(stored, *heads)), tuple(internlm2.from_llama(dense, *heads))
        config = build_config(artifact, INTERNLM2, original)
    else:
        config = build_config(artifact, workspace.family, original)
    return ModelWeights(config, artifact.is_quantized, stored, dense)


def _refuse_unreadable(artifact: Artifact) -> None:
    """Refuse what has the layout of a workspace, but tensors that deploytk does not know."""
    if artifact.weight_format not in ("none", "awq", "gptq"):
        raise WeightsError(
            f"{artifact.root}: weights in {artifact.weight_format} cannot be read back",
            hint="fp16, bf16 and 4-bit (AWQ, GPTQ) can; start from the original model",
        )
    if artifact.is_quantized and artifact.group_size != GROUP:
        raise WeightsError(
            f"{artifact.root}: group size {artifact.group_size}, {GROUP} expected",
            hint="no LMDeploy converts or serves another one; take config.ini or config.yaml from the original",
        )
    ranks, others = artifact.tensor_parallel, artifact.config.get("mlp_tp_size", artifact.tensor_parallel)
    if others != ranks:
        raise WeightsError(
            f"{artifact.root}: attn_tp_size is {ranks}, mlp_tp_size is {others}",
            hint="convert the original model again with one --tp",
        )
    rows = {"wo": artifact.heads * artifact.head_dim // ranks, "w2": artifact.intermediate_size // ranks}
    for name, found in rows.items():
        if artifact.is_quantized and found % GROUP:
            raise WeightsError(
                f"{artifact.root}: {name} has {found} rows on each rank, a multiple of {GROUP} expected",
                hint="take config.ini or config.yaml from the original workspace",
            )


def _refuse_output_bias(artifact: Artifact, files: Files) -> None:
    """Qwen2 has no bias on its output; the converter writes one of zeros (`dummy_oproj_bias`)."""
    for layer in range(artifact.layers):
        name = f"layers.{layer}.attention.wo.0.bias"
        if files.open(name, np.uint16, artifact.hidden_size).any():
            raise WeightsError(
                f"{files.directory / name} is not zero, but {artifact.architecture} has no such bias",
                hint="take the workspace from one conversion, config.json and weights",
            )


def _fill_embeddings(artifact: Artifact, files: Files, out: Array, first: int) -> None:
    """Put rows of the embedding, [vocabulary, hidden], into `out`, 16 bits each."""
    hidden, ranks, rows = artifact.hidden_size, files.ranks, slice(first, first + len(out))
    padded = -(-artifact.vocab_size // ranks) * ranks
    if files.is_ini:
        out[...] = files.open("tok_embeddings.weight", np.uint16, padded, hidden)[rows]
        return
    width = hidden // ranks
    for rank in range(ranks):
        part = files.open(f"tok_embeddings.{rank}.weight", np.uint16, padded, width)
        out[:, rank * width : (rank + 1) * width] = part[rows]


def _output_part(artifact: Artifact, files: Files, rank: int) -> Array:
    """A rank's part of the output, [rows, hidden], as 16 bits each, mapped; the last one ends with padding."""
    hidden, ranks = artifact.hidden_size, files.ranks
    rows = -(-artifact.vocab_size // ranks)
    if files.is_ini:
        return files.open("output.weight", np.uint16, rows * ranks, hidden)[rank * rows : (rank + 1) * rows]
    if _is_output_transposed(artifact):
        transposed: Array = files.open(f"output.{rank}.weight", np.uint16, hidden, rows).T
        return transposed
    return files.open(f"output.{rank}.weight", np.uint16, rows, hidden)


def _fill_output(artifact: Artifact, files: Files, out: Array, first: int) -> None:
    """Put rows of the output, [vocabulary, hidden], into `out`, 16 bits each."""
    rows = -(-artifact.vocab_size // files.ranks)
    for rank in range(files.ranks):
        wanted = shared(slice(rank * rows, (rank + 1) * rows), first, len(out))
        if wanted.is_empty:
            continue
        part = _output_part(artifact, files, rank)[wanted.theirs]
        if _is_output_transposed(artifact):
            matrices.transpose(part.T, out[wanted.ours])
        else:
            out[wanted.ours] = part


def _is_output_transposed(artifact: Artifact) -> bool:
    """Whether it was made by 0.8.0 or later, the first versions with a rank count of its own for attention."""
    return artifact.config_format == "yaml" and "attn_tp_size" in artifact.config


def _is_output_embedding(artifact: Artifact, files: Files) -> bool:
    """Whether output and embedding are the same; where they are not, the first rows tell, and little is read."""
    hidden, vocab = artifact.hidden_size, artifact.vocab_size
    step = max(1, _COMPARED_BYTES // (2 * hidden) // matrices.STRIPE) * matrices.STRIPE
    for first, count in ((0, 1), *((first, min(step, vocab - first)) for first in range(0, vocab, step))):
        embedding, output = np.empty((count, hidden), np.uint16), np.empty((count, hidden), np.uint16)
        _fill_embeddings(artifact, files, embedding, first)
        _fill_output(artifact, files, output, first)
        if not np.array_equal(embedding, output):
            return False
    return True
