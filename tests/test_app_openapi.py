"""The gateway answers as its OpenAPI says, whatever schemathesis thinks of; behind it is the engine stub."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from apps import make_app, running_app

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.services
@pytest.mark.timeout(300)
def test_schemathesis_finds_no_server_error(tmp_path: Path) -> None:
    if find_spec("schemathesis") is None:
        assert not os.environ.get("DEPLOYTK_REQUIRE_SERVICES"), "schemathesis is needed"
        pytest.skip("schemathesis is needed")
    with running_app(make_app(tmp_path), tmp_path / "app.log") as app:
        app.wait("ready")
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{app.url}/openapi.json"]
        options = ["--checks", CHECKS, "--max-examples", "60", "--seed", "1", "--no-color", "--request-timeout", "20"]

        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=280, cwd=tmp_path)

        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
