"""Starts the serving engines themselves: no gateway in front of what is measured."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploytk.base.errors import EndpointError
from deploytk.base.import_path import python_environment
from deploytk.base.processes import free_port, running, wait_until
from deploytk.bench.matrix import Deployment
from deploytk.bundle import require_ending_template
from deploytk.plan import MODEL_AT
from deploytk.serve import Endpoint, attach, completes
from deploytk.smoke.run import LOG_LEVEL


@contextmanager
def running_engine(deployment: Deployment, batch: int, log: Path, limit_s: float) -> Iterator[Endpoint]:
    """A server of `deployment`, ready when the context begins; raises EndpointError when it is not within `limit_s`.

    Hugging Face is `generate` of transformers with static batches of up to `batch` requests.
    """
    require_ending_template(deployment.artifact.root)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [*_command(deployment, batch), "--server-name", "127.0.0.1", "--server-port", str(port)]
    # Not where the user is: Python before 3.11 would import what lies there.
    with (
        tempfile.TemporaryDirectory(prefix="deploytk-") as empty,
        running(argv, cwd=Path(empty), environment=_environment(deployment), log=log) as process,
    ):
        wait_until(lambda: _is_ready(url), process, log, limit_s, deployment.name)
        found = attach(url)
        yield Endpoint(url, found.model, deployment.engine, log, process.pid, None)


def _environment(deployment: Deployment) -> dict[str, str]:
    """Ours, and what the plan needs where ours says nothing else."""
    needed = dict(deployment.plan.environment) if deployment.plan else {}
    return {**needed, **python_environment(**dict(LOG_LEVEL))}


def _command(deployment: Deployment, batch: int) -> list[str]:
    root = str(deployment.artifact.root.resolve())
    if deployment.plan is None:
        return [sys.executable, "-m", "deploytk.cpu_engine", root, "--device", "cuda", "--max-batch-size", str(batch)]
    argv = list(deployment.plan.argv)
    argv[MODEL_AT] = root
    if deployment.engine == "cpu":
        return [sys.executable, *argv[1:], "--max-batch-size", str(batch)]
    return argv


def _is_ready(url: str) -> bool:
    try:
        return completes(attach(url))
    except EndpointError:
        return False
