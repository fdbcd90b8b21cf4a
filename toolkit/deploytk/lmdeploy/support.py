"""ModelFacts -> the LMDeploy versions that serve them, and why."""

from __future__ import annotations

from collections.abc import Iterator

from deploytk.lmdeploy.conditions import CONDITIONS
from deploytk.lmdeploy.facts import ModelFacts
from deploytk.lmdeploy.table import EngineTable, Row, engine_table, own_repositories
from deploytk.lmdeploy.versions import NEWEST, VERSIONS, LmdeployEngine, VersionRange, newest_run, span

_ENGINE_NAMES = {"turbomind": "TurboMind", "pytorch": "the PyTorch engine"}
OWN_ARCHITECTURE = "LMDeployForCausalLM"
"""What LMDeploy 0.1.0-0.2.1 called the models in its own repositories."""

_INNER = ("inner_supported", "inner_known")


def support(facts: ModelFacts, engines: tuple[LmdeployEngine, ...] = ("turbomind", "pytorch")) -> VersionRange:
    """What serves a Hugging Face directory: the newest run of versions of the first of `engines` that does.

    Every version between its borders serves it. All None, with the reason, where none does.
    """
    if facts.has_turbomind:
        return _own_repository(facts)
    refusals: list[tuple[LmdeployEngine, str]] = []
    for engine in engines:
        table = engine_table(engine)
        borders = newest_run(version for version in VERSIONS if _refusal(table, version, facts) is None)
        if borders:
            served = f"{_ENGINE_NAMES[engine]} serves {_what(facts)} {span(*borders)}"
            reason = "; ".join((served, *(_why_not(*refusal) for refusal in refusals)))
            return VersionRange(*borders, borders[1], engine, reason, _needs(facts, engine))
        refusals.append((engine, _last_refusal(table, facts)))
    reason = "; ".join(_why_not(*refusal) for refusal in refusals)
    return VersionRange(None, None, None, None, reason)


def knows(architecture: str) -> bool:
    """Whether some version serves models of that architecture."""
    return architecture == OWN_ARCHITECTURE or any(
        architecture in engine_table(one).architectures for one in _ENGINE_NAMES
    )


def _refusal(table: EngineTable, version: str, facts: ModelFacts) -> str | None:
    """Why that version does not serve the model, None where it does."""
    return next(_refusals(table, version, facts), None)


def _refusals(table: EngineTable, version: str, facts: ModelFacts) -> Iterator[str]:
    architecture = _architecture(table, facts)
    row, weights = table.architectures.get(architecture), table.weights.get(facts.quantization.method)
    if row is None or version not in row.served:
        is_gone = version in table.removed.get(architecture, ())
        yield f"{architecture} was removed" if is_gone else f"it does not know {architecture}"
        return
    yield from _broken(row, version, facts)
    if any(name in row.conditions and version in row.conditions[name] for name in _INNER):
        yield from _inside(table, row, version, facts)
    if table.windows is not None and facts.sliding_window and version not in table.windows.get(architecture, ()):
        yield f"it has no attention with a sliding window ({facts.sliding_window} tokens here)"
    if table.head_dims and not facts.has_latent_attention and version not in table.head_dims.get(facts.head_dim, ()):
        yield f"it has no kernels for heads of {facts.head_dim} values"
    if weights is None or version not in weights.served:
        yield f"it does not know {_weights_name(facts)}"
    else:
        yield from _broken(weights, version, facts)


def _broken(row: Row, version: str, facts: ModelFacts) -> Iterator[str]:
    for name, versions in row.conditions.items():
        if version in versions and name not in _INNER and not CONDITIONS[name].holds(facts):
            yield CONDITIONS[name].says(facts)


def _inside(table: EngineTable, row: Row, version: str, facts: ModelFacts) -> Iterator[str]:
    """The language model inside must be known too. TurboMind wants it named, the PyTorch engine fills in some names."""
    inner = facts.text_architecture
    if inner is None:
        if version in row.conditions.get("inner_supported", ()):
            yield "config.json does not name the architecture of the language model inside"
    elif inner not in table.architectures or version not in table.architectures[inner].served:
        yield f"it does not know {inner}, the language model inside"


def _architecture(table: EngineTable, facts: ModelFacts) -> str:
    """The PyTorch engine goes by auto_map first: `_get_model_class`, pytorch/models/patch.py."""
    is_pytorch = table.windows is None
    return (facts.auto_map_architecture if is_pytorch else None) or facts.architecture


def _last_refusal(table: EngineTable, facts: ModelFacts) -> str:
    """Of the newest version that serves the architecture, or of the newest at all."""
    row = table.architectures.get(_architecture(table, facts))
    known = newest_run(row.served) if row else None
    version = known[1] if known else VERSIONS[-1]
    reason = _refusal(table, version, facts) or ""
    return reason if known is None or version == VERSIONS[-1] else f"{reason} (LMDeploy {version})"


def _why_not(engine: LmdeployEngine, reason: str) -> str:
    return f"{_ENGINE_NAMES[engine]} does not serve it: {reason}"


def _what(facts: ModelFacts) -> str:
    return f"{facts.architecture} with {_weights_name(facts)}"


def _weights_name(facts: ModelFacts) -> str:
    method = facts.quantization.method
    return "unquantized weights" if method == "none" else f"{method} weights"


def _needs(facts: ModelFacts, engine: LmdeployEngine) -> tuple[str, ...]:
    is_packed = facts.quantization.method == "compressed-tensors" and engine == "turbomind"
    if is_packed and facts.quantization.group_0_format is None:
        missing = 'config_groups.group_0 of quantization_config has no "format", and LMDeploy stops with a KeyError'
        return (f'{missing}: add "format": "{facts.quantization.format}" to it in config.json',)
    return ()


def _own_repository(facts: ModelFacts) -> VersionRange:
    """What LMDeploy 0.1.0-0.2.1 published: the newest that takes it without the key goes by --model-name."""
    first, last = newest_run(own_repositories()) or (NEWEST, NEWEST)
    what = f"it is a repository of LMDeploy's own first format ({facts.architecture})"
    reason = f"{what}, which TurboMind serves {span(first, last)}; later ones look for an architecture that they know"
    needs = (
        f"config.json has the key turbomind, at which LMDeploy {last} stops: remove it there ({first} alone reads it)"
    )
    return VersionRange(first, last, last, "turbomind", reason, (needs,))
