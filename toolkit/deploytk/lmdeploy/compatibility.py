"""support.json as tables for people: docs/models.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deploytk.lmdeploy.table import EngineTable, Row, engine_table
from deploytk.lmdeploy.versions import NEWEST, VERSIONS, release_index

_WORDS = {
    "heads_not_40": "other than 40 heads",
    "hidden_128": "hidden size / heads = 128",
    "hidden_64_128": "hidden size / heads = 64 or 128",
    "head_64_128": "heads of 64 or 128 values",
    "inner_llama_hidden_64_128": "a Llama or Qwen2 inside: hidden size / heads = 64 or 128",
    "inner_llama_head_64_128": "a Llama or Qwen2 inside: heads of 64 or 128 values",
    "inner_supported": "the language model inside is served itself, and named in config.json",
    "inner_known": "the language model inside is served itself",
    "layers_40": "40 layers",
    "no_vision": "no part that sees",
    "states_kv_heads": "num_key_value_heads in config.json",
    "version_2.5_2.6": "version 2.5 or 2.6",
    "is_stated": "quantization_config in config.json",
    "bits_4": "4 bits",
    "group_32": "groups of 32",
    "group_128": "groups of 128",
    "group_32_128": "groups of 32 or 128",
    "group_32_64_128": "groups of 32, 64 or 128",
    "stated_gemm": 'version "gemm"',
    "no_desc_act": "desc_act false",
    "symmetric": "symmetric",
    "zeros_v1": "zero points of v1",
    "group_0_packed": "format pack-quantized",
    "integers": "integers",
    "no_actorder": "actorder other than group",
    "block_128": "a scale per block of 128 x 128",
    "block_or_static": "a scale per block of 128 x 128, or static ones per tensor",
    "experts_alone": "of experts alone",
}

_HEAD = """# Which models LMDeploy serves

Read from LMDeploy's own sources at every release by `tools/read_lmdeploy` (see CONTRIBUTING.md); `deploytk inspect`
applies it to a model and says why. "A to B" holds for every release between; conditions hold for all of an engine's
versions unless they name theirs. TurboMind serves a model with a sliding window only where the last line says so.
"""


def compatibility() -> Iterator[tuple[str, str, str]]:
    """Architecture, what serves it with TurboMind, what with the PyTorch engine."""
    turbomind, pytorch = engine_table("turbomind").architectures, engine_table("pytorch").architectures
    for name in _names():
        yield name, _versions(turbomind.get(name)), _versions(pytorch.get(name))


def _names() -> list[str]:
    names = set(engine_table("turbomind").architectures) | set(engine_table("pytorch").architectures)
    return sorted(names, key=lambda one: (one.lower(), one))


_KEPT = (
    ("latent (DeepSeek-V2, V3, Kimi, GLM-4.7-Flash)", "the vector, from 0.12.2 on; its heads before", "the vector"),
    ("latent, an index (DeepSeek-V3.2)", "-", "656 + 132 until 0.16.0, 1152 + 132 from 0.17.0 on; GLM-5 1152 + 132"),
    ("compressed (DeepSeek-V4)", "-", "(584 + 132) / 4, or 584 / 128; in every layer 128 x 584 of a session beside"),
    ("linear (Qwen3-Next, Qwen3.5)", "nothing; a state of each session", "nothing; a state of each session"),
    ("a sliding window", "every token", "the window and one step; every token in gpt-oss and Gemma 3 with images"),
)
_CACHES = """\
## What a session keeps

Bytes of one token and layer, where they are not heads x values as in [vram.md](explanation/vram.md):
"""
_PADDING = """
With `--tp` TurboMind pads feed-forward layers to whole groups of weights on every GPU, from 0.14.0 on to 32 columns at
least. Experts spread over GPUs (expert or data parallelism) are not planned.
"""


def models_page() -> str:
    """docs/models.md."""
    turbomind, pytorch = engine_table("turbomind"), engine_table("pytorch")
    models = [
        _line(f"`{name}`", turbomind.architectures.get(name), pytorch.architectures.get(name)) for name in _names()
    ]
    methods = sorted(set(turbomind.weights) | set(pytorch.weights))
    weights = [_line(name, turbomind.weights.get(name), pytorch.weights.get(name)) for name in methods]
    heads = [(str(size), _spans(found)) for size, found in turbomind.head_dims.items()]
    return "\n".join(
        (
            _HEAD,
            *_rows(("architecture", "TurboMind", "PyTorch engine", "if"), models),
            "\n## Quantized weights\n",
            *_rows(("quant_method", "TurboMind", "PyTorch engine", "if"), weights),
            "\n## Heads that TurboMind has kernels for\n",
            *_rows(("values per head", "LMDeploy"), heads),
            f"\nSliding windows on TurboMind: {_windowed(turbomind)}.\n",
            _CACHES,
            *_rows(("attention", "TurboMind", "PyTorch engine"), _KEPT),
            _PADDING,
        )
    )


def _line(name: str, turbomind: Row | None, pytorch: Row | None) -> tuple[str, str, str, str]:
    asked = _asked((("TurboMind", turbomind), ("PyTorch", pytorch)))
    return name, _versions(turbomind), _versions(pytorch), asked


def _asked(rows: Sequence[tuple[str, Row | None]]) -> str:
    """What each engine asks for, in words."""
    texts = ((label, _conditions(row)) for label, row in rows if row)
    return "; ".join(f"{label}: {text}" for label, text in texts if text)


def _conditions(row: Row) -> str:
    return ", ".join(
        _WORDS[name] if versions >= row.served else f"{_WORDS[name]} ({_spans(versions)})"
        for name, versions in row.conditions.items()
    )


def _windowed(table: EngineTable) -> str:
    return ", ".join(f"`{name}` {_spans(versions)}" for name, versions in (table.windows or {}).items())


def _versions(row: Row | None) -> str:
    return _spans(row.served) if row else "-"


def _spans(versions: frozenset[str]) -> str:
    """Runs of releases in words, oldest first."""
    places = sorted(map(release_index, versions))
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return ", ".join(_run(VERSIONS[first], VERSIONS[last]) for first, last in runs)


def _run(first: str, last: str) -> str:
    if last == NEWEST:
        return f"from {first}"
    return first if first == last else f"{first} to {last}"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
