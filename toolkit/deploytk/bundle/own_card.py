"""Reads what the model's own card says about its licence and origin: the bundle's card takes the place of that one."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import yaml

from deploytk.artifact import Artifact
from deploytk.base.progress import Progress
from deploytk.bundle.value import BundleOptions

LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")

_LARGEST_FRONT_MATTER = 2**14  # characters


def with_own_facts(artifact: Artifact, options: BundleOptions, progress: Progress) -> BundleOptions:
    """`options` with licence and base model from the model's README.md where none were given, which is said."""
    own = _own_front_matter(artifact)
    license_, base_model = own.get("license"), own.get("base_model")
    if options.license is None and isinstance(license_, str) and LICENSE.fullmatch(license_) and license_ != "other":
        progress.note(f"licence {license_}, from the model's own README.md")
        options = replace(options, license=license_)
    if options.base_model is None and isinstance(base_model, str) and REPOSITORY.fullmatch(base_model):
        progress.note(f"base model {base_model}, from the model's own README.md")
        options = replace(options, base_model=base_model)
    return options


def _own_front_matter(artifact: Artifact) -> dict[str, Any]:
    """The YAML at the head of README.md; empty when there is none or it is not plain."""
    if not any(file.path == "README.md" for file in artifact.files):
        return {}
    try:
        with (artifact.root / "README.md").open(encoding="utf-8-sig") as file:
            text = file.read(_LARGEST_FRONT_MATTER)
        match = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
        if not match or any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) for token in yaml.scan(match[1])):
            return {}
        front = yaml.safe_load(match[1])
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return front if isinstance(front, dict) else {}
