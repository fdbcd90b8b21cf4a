"""What the parts of a dense model take, from its shape: for weights whose tensors cannot be read."""

from __future__ import annotations

from deploytk.artifact.shape import Shape
from deploytk.artifact.tensor_sums import TensorSums


def dense_sums(
    shape: Shape,
    *,
    group_size: int | None = None,
    has_bias: bool = False,
    has_output_bias: bool = False,
    is_tied: bool = False,
) -> TensorSums:
    """The bytes of a model with three feed-forward matrices; `group_size` is None unless it has 4-bit AWQ weights."""
    rows = _matrix_parameters(shape)
    keys_and_values = 2 * shape.kv_heads * shape.head_dim
    biases = shape.heads * shape.head_dim + keys_and_values if has_bias else 0
    biases += shape.hidden_size if has_output_bias else 0
    vectors = shape.layers * (biases + 2 * shape.hidden_size) + shape.hidden_size
    vocabulary = shape.vocab_size * shape.hidden_size
    scales = rows // group_size if group_size else 0
    return TensorSums(
        linear_bytes=rows // 2 if group_size else 2 * rows,
        scale_bytes=scales * 5 // 2,  # 16 bits of scale, 4 of zero point
        scales=scales,
        vector_bytes=2 * vectors,
        embedding_bytes=2 * vocabulary,
        head_bytes=0 if is_tied else 2 * vocabulary,
    )


def dense_parameters(shape: Shape, sums: TensorSums) -> int:
    """Parameters of that model, as if nothing were quantized."""
    rest = sums.vector_bytes + sums.embedding_bytes + sums.head_bytes
    return _matrix_parameters(shape) + rest // 2


def _matrix_parameters(shape: Shape) -> int:
    width = shape.heads * shape.head_dim
    attention = shape.hidden_size * (2 * width + 2 * shape.kv_heads * shape.head_dim)
    return shape.layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)
