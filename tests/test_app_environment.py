"""What an engine is started with is what its plan needs, unless who runs the app says otherwise."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deploytk.app.engine import Engine
from deploytk.app.settings import EngineSettings


async def _started_with(settings: EngineSettings, name: str) -> str:
    process = await Engine(settings)._spawn(("printenv", name), settings.bundle)
    printed, _ = await process.communicate()
    return printed.decode().strip()


@pytest.mark.parametrize(("users", "expected"), [(None, "0"), ("1", "1")])
def test_the_engine_gets_what_its_plan_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: str | None, expected: str
) -> None:
    plan = {"engine": "turbomind", "argv": ["lmdeploy", "serve", "api_server", "."], "model_name": "m", "features": []}
    plan |= {"environment": [["NCCL_WIN_ENABLE", "0"]]}
    settings = EngineSettings.of(tmp_path, {"plan": plan, "files": {}})
    monkeypatch.delenv("NCCL_WIN_ENABLE", raising=False)
    if users is not None:
        monkeypatch.setenv("NCCL_WIN_ENABLE", users)

    assert asyncio.run(_started_with(settings, "NCCL_WIN_ENABLE")) == expected
