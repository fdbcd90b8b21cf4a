"""Facts of every release -> one table with spans of versions."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from read_lmdeploy.facts import Facts, strings
from read_lmdeploy.pytorch import read_pytorch
from read_lmdeploy.sources import Source, parsed
from read_lmdeploy.turbomind import read_turbomind

_DIRECT = "0.2.0"  # the first version that serves a Hugging Face directory without converting it


def make_table(sources: Sequence[Source]) -> dict[str, object]:
    versions = [source.version for source in sources]
    turbomind = _with_head_dims([read_turbomind(source) for source in sources])
    pytorch = [read_pytorch(source) for source in sources]
    _ask_about_model_version(sources, turbomind)
    _ask_about_model_version(sources, pytorch)
    direct = versions.index(_DIRECT)
    table: dict[str, object] = {"versions": versions}
    table["own_repositories"] = _spans(versions, [facts.takes_own_repositories for facts in turbomind])
    table["turbomind"] = _engine(versions, [Facts()] * direct + turbomind[direct:])
    table["pytorch"] = _engine(versions, pytorch)
    return table


def _engine(versions: list[str], all_facts: list[Facts]) -> dict[str, object]:
    def rows(sets: Sequence[Collection[str | int]]) -> dict[str, str]:
        """Every name in `sets` (one per version) with its versions."""
        names = sorted({name for found in sets for name in found})
        return {str(name): _spans(versions, [name in found for found in sets]) for name in names}

    weights = rows([set(facts.weights) - facts.refused_methods for facts in all_facts])
    served = rows([facts.architectures for facts in all_facts])
    return {
        "architectures": {
            name: {"served": spans, "if": _from_the_start(versions, all_facts, name)} for name, spans in served.items()
        },
        "removed": rows([facts.removed for facts in all_facts]),
        "windows": rows([facts.windowed for facts in all_facts]),
        "weights": {
            "none": {"served": _spans(versions, [bool(facts.architectures) for facts in all_facts]), "if": {}},
            **{
                name: {"served": spans, "if": rows([facts.weights.get(name, set()) for facts in all_facts])}
                for name, spans in weights.items()
            },
        },
        "head_dims": rows([facts.head_dims or set() for facts in all_facts]),
    }


def _from_the_start(versions: list[str], all_facts: list[Facts], name: str) -> dict[str, str]:
    """The conditions of an architecture, each from its first served version on.

    LMDeploy began to refuse what had never worked: the versions before did not look.
    """
    found = {}
    for condition in sorted({one for facts in all_facts for one in facts.conditions.get(name, ())}):
        last = max(i for i, facts in enumerate(all_facts) if condition in facts.conditions.get(name, ()))
        holds = [i <= last and name in facts.architectures for i, facts in enumerate(all_facts)]
        found[condition] = _spans(versions, holds)
    return found


def _with_head_dims(all_facts: list[Facts]) -> list[Facts]:
    """A wheel has no C++ sources: its kernels are taken to be those of the release before it."""
    known: set[int] | None = None
    for facts in all_facts:
        known = facts.head_dims = known if facts.head_dims is None else facts.head_dims
    return all_facts


def _ask_about_model_version(sources: Sequence[Source], all_facts: list[Facts]) -> None:
    """MiniCPM-V: the part that sees takes 2.5 and 2.6 alone (vl/model/minicpmv.py)."""
    for source, facts in zip(sources, all_facts, strict=True):
        tree = parsed(source, "lmdeploy/vl/model/minicpmv.py")
        if tree and "MiniCPMV" in facts.architectures and {"2.5", "2.6"} <= set(strings(tree)):
            facts.ask("MiniCPMV", "version_2.5_2.6")


def _spans(versions: list[str], holds: Sequence[bool]) -> str:
    """Runs of versions for which it holds: "0.2.0-0.13.0 0.16.0-"; no end: the newest there is."""
    runs: list[list[str]] = []
    for index, (version, is_so) in enumerate(zip(versions, holds, strict=True)):
        if is_so and index and holds[index - 1]:
            runs[-1][1] = version
        elif is_so:
            runs.append([version, version])
    return " ".join(f"{first}-{'' if last == versions[-1] else last}" for first, last in runs)


def to_text(table: dict[str, object]) -> str:
    """JSON with a line per row, so that a new release is a diff that can be read."""

    def shown(value: object, indent: str) -> str:
        if not isinstance(value, dict) or not value or "served" in value:
            return json.dumps(value)
        lines = (f"{indent} {json.dumps(key)}: {shown(item, indent + ' ')}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"

    return shown(table, "") + "\n"
