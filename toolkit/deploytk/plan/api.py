"""What the API of a planned server has beyond plain text."""

from __future__ import annotations

from typing import Literal

from deploytk import lmdeploy
from deploytk.app.features import CPU
from deploytk.artifact import Artifact

ServingEngine = Literal["turbomind", "pytorch", "cpu"]


def api_features(artifact: Artifact, version: str | None, engine: ServingEngine) -> tuple[str, ...]:
    """The features of deploytk.app.features that the app lets through to the engine, sorted."""
    if version is None or engine == "cpu":
        return CPU
    own = (*_tools(artifact, version), *(["images"] if _sees(artifact) else []))
    return tuple(sorted((*lmdeploy.api_features(version, engine), *own)))


def _tools(artifact: Artifact, version: str) -> list[str]:
    parser = tool_call_parser(artifact, version)
    if not (parser or lmdeploy.brings_tool_parser(version, artifact.architecture)):
        return []
    return ["required_tools", "tools"] if lmdeploy.forces_tool_calls(version, parser) else ["tools"]


def tool_call_parser(artifact: Artifact, version: str) -> str | None:
    """What the server needs to be told in order to read the model's calls of tools; None when it cannot."""
    return lmdeploy.tool_call_parser(version, artifact.tool_format, artifact.architecture)


def _sees(artifact: Artifact) -> bool:
    """Whether it is a model of images, sounds or videos beside text; which of them, its engine says."""
    names = ("vision_config", "audio_config", "thinker_config", "mm_vision_tower", "visual")
    return artifact.tensors.tower_bytes > 0 or any(name in artifact.config for name in names)
