"""What an image without weights needs to fetch them itself, when it starts."""

from __future__ import annotations

import json
from dataclasses import asdict

from deploytk.base.errors import UsageError
from deploytk.base.shipped import shipped
from deploytk.bundle import ROOM, Bundle
from deploytk.image.layers import ROOT
from deploytk.image.tar import Content, Link, OwnDirectory
from deploytk.image.value import USER, WEIGHTS_PLACE, WeightsSource


def fetching_files(bundle: Bundle, source: WeightsSource | None) -> dict[str, Content]:
    """Path in the image -> what fetches the weights, and links from where they belong to the volume they come to."""
    if source is None:
        hint = "publish it to a hub that gives out single files (deploytk publish), then build again"
        raise UsageError(f"the weights of {bundle.path} cannot be fetched from anywhere yet", hint=hint)
    weights = [file.path for file in bundle.files if file.kind == "weights"]
    return {
        f"{ROOT}/{ROOM}/fetch_model.py": (shipped("templates") / "fetch" / "fetch_model.py").read_bytes(),
        f"{ROOT}/model_source.json": (json.dumps(asdict(source), indent=1) + "\n").encode(),
        **{f"{ROOT}/{path}": Link(f"{WEIGHTS_PLACE}/{path}") for path in weights},
        WEIGHTS_PLACE.lstrip("/"): OwnDirectory(USER),
    }
