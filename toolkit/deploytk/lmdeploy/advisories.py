"""Which security advisories a version of LMDeploy has, and whether the app shields from them: advisories.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from deploytk.base.yaml import load_yaml
from deploytk.lmdeploy.table import within
from deploytk.lmdeploy.versions import VERSIONS

Need = Literal["pickles", "code", "images"]
"""What must be there for an advisory to matter: weights that are unpickled, Python files of the model, pictures."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known weakness of a package, and what deploytk does about it."""

    id: str
    aliases: tuple[str, ...]
    package: str
    what: str  # what an attacker can do
    fixed: str | None  # the first version without it, None where there is none
    needs: Need | None
    shield: Literal["perimeter", "absent", "none"]
    why: str  # what the shield is, or what to do
    sources: tuple[str, ...]
    versions: frozenset[str]  # of lmdeploy
    below: str | None  # of other packages

    @property
    def is_shielded(self) -> bool:
        return self.shield != "none"

    def holds(self, version: str) -> bool:
        """Whether that version of its package has it; one that nobody knows yet has what is not fixed."""
        if self.package == "lmdeploy":
            return version in self.versions or (version not in VERSIONS and self.fixed is None)
        return self.below is not None and _numbers(version) < _numbers(self.below)


def advisories_of(version: str, present: Set[Need]) -> tuple[Advisory, ...]:
    """What LMDeploy `version` and the newest packages that it allows have, for a model with what is `present`."""
    newest = {
        name: most for name, by in _data()["brings"].items() for most, spans in by.items() if version in within(spans)
    }
    found = advisories_in([("lmdeploy", version), *newest.items()])
    return tuple(one for one, _ in found if one.needs is None or one.needs in present)


def advisories_in(packages: Iterable[tuple[str, str]]) -> Iterator[tuple[Advisory, str]]:
    """The advisories that installed packages have, each with the version that has it."""
    installed = {name.lower(): version for name, version in packages}
    for advisory in advisories():
        version = installed.get(advisory.package)
        if version is not None and advisory.holds(version):
            yield advisory, version


@cache
def advisories() -> tuple[Advisory, ...]:
    return tuple(map(_advisory, _data()["advisories"]))


def _advisory(row: dict[str, Any]) -> Advisory:
    return Advisory(
        id=row["id"],
        aliases=tuple(row.get("aliases", ())),
        package=row["package"],
        what=row["what"],
        fixed=row.get("fixed"),
        needs=row.get("needs"),
        shield=row["shield"],
        why=row["why"],
        sources=tuple(row["sources"]),
        versions=within(row.get("versions", "")),
        below=row.get("below"),
    )


@cache
def _data() -> dict[str, Any]:
    return load_yaml(Path(__file__).with_name("advisories.yaml"))


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, without local and pre-release parts: 2.4.0+cu121 is 2.4.0."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
