"""Data files of the package, and YAML for others: read the same by every parser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# What no parser of YAML 1.1 or 1.2 takes for anything but text; all else is quoted. PyYAML alone writes 1e3 without
# quotes, which is a number for Kubernetes.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/.@-]*(?::[A-Za-z0-9_/.@-]+)*(?: [A-Za-z0-9_/.@-]+)*")
_LINES = re.compile(r"[!-~](?:[ -~]*\n)+")  # a file in a file
_WORDS = frozenset("y n yes no on off true false null nan inf".split())


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`, a file that ships with the package."""
    import yaml

    # The same in C where PyYAML was built with it: ten times faster.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 (a SafeLoader)
    return loaded


def dump_yaml(*documents: object) -> str:
    """The documents as YAML in which every text is text for any parser: `no`, `1e3` and `0x10` are quoted."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
            return True  # an anchor is a riddle to whoever edits the file

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
            super().increase_indent(flow, False)

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        style = "|" if _LINES.fullmatch(value) else None if is_plain else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    whole: str = yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return whole
