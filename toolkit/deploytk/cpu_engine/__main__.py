"""Starts the CPU engine: `python -m deploytk.cpu_engine MODEL --server-port PORT`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from deploytk.base.errors import DeployError
from deploytk.base.terminal import printable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploytk.cpu_engine", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--server-name", default="127.0.0.1")
    parser.add_argument("--server-port", type=int, default=23333)
    parser.add_argument("--model-name")
    parser.add_argument("--session-len", type=int)
    parser.add_argument("--max-batch-size", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of torch; others than cpu are for comparisons")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    try:
        import uvicorn

        from deploytk.artifact import read_artifact
        from deploytk.cpu_engine.load import load_model
        from deploytk.cpu_engine.server import make_app
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed\n hint: pip install 'deploytk[cpu]'", file=sys.stderr)  # noqa: T201
        return 1
    try:
        artifact = read_artifact(options.model)
        loaded = load_model(artifact, options.device)
    except DeployError as error:
        print(printable(f"error: {error}\n hint: {error.hint}"), file=sys.stderr)  # noqa: T201
        return error.exit_code
    session_len = min(options.session_len or artifact.session_len, artifact.session_len)
    name = options.model_name or artifact.root.resolve().name
    app = make_app(loaded, name, session_len, options.max_batch_size)
    uvicorn.run(
        app, host=options.server_name, port=options.server_port, log_level="warning", timeout_graceful_shutdown=5
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
