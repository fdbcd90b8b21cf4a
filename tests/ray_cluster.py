"""A cluster of Ray as its dashboard shows it: in memory, asynchronous, and as forgiving as the real one."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

from quiet_server import QuietServer


class FakeCluster:
    """Deploys in `delay` looks; `fails` names import paths or bundles that do not come up."""

    def __init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}
        self.deployed: list[Mapping[str, Any]] = []
        self.fails: set[str] = set()
        self.drops: set[str] = set()  # keys of deployments that it does not know
        self.delay = 1
        self.autoscaled = 1  # replicas of an application whose number comes and goes
        self.message = ""  # about what is not there yet

    def details(self) -> dict[str, Any]:
        for one in self.applications.values():
            one["looks"] += 1
        shown = {name: self._shown(one) for name, one in self.applications.items()}
        return {"applications": shown, "proxies": {"a": {"node_ip": "10.0.0.1"}}, "proxy_location": "EveryNode"}

    def deploy(self, config: Mapping[str, Any]) -> None:
        config = json.loads(json.dumps(config))
        self.deployed.append(config)
        wanted = {one["name"]: one for one in config["applications"]}
        self.applications = {
            name: self.applications[name]
            if name in self.applications and self.applications[name]["config"] == self._taken(one)
            else {"config": self._taken(one), "looks": 0}
            for name, one in wanted.items()
        }

    def _taken(self, application: dict[str, Any]) -> dict[str, Any]:
        deployments = [
            {key: value for key, value in one.items() if key not in self.drops} for one in application["deployments"]
        ]
        return {**application, "deployments": deployments}

    def _shown(self, one: dict[str, Any]) -> dict[str, Any]:
        config = one["config"]
        is_bad = config["args"].get("bundle") in self.fails
        status = "DEPLOYING" if one["looks"] <= self.delay else "DEPLOY_FAILED" if is_bad else "RUNNING"
        number = config["deployments"][0].get("num_replicas", self.autoscaled)
        healthy = {"status": "HEALTHY", "message": "", "replicas": [{"state": "RUNNING"}] * number}
        return {
            "status": status,
            "message": "the engine ended with code 1" if status == "DEPLOY_FAILED" else "",
            "deployed_app_config": config,
            "deployments": {
                "Replica": healthy if status == "RUNNING" else {"status": "UPDATING", "message": self.message}
            },
        }


@contextlib.contextmanager
def dashboard(cluster: FakeCluster, token: str | None = None, busy: int = 0) -> Iterator[str]:
    """The same behind HTTP; `busy` is how many requests fail first."""
    left = [busy]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            pass

        def _answer(self, status: int, body: object = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _is_stopped(self) -> bool:
            if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
                self._answer(401, "no token")
                return True
            if self.command == "PUT" and left[0]:
                left[0] -= 1
                self._answer(500, "the controller did not start in time")
                return True
            return False

        def do_GET(self) -> None:
            if not self._is_stopped():
                self._answer(200, cluster.details())

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._is_stopped():
                cluster.deploy(json.loads(body))
                self._answer(200)

    server = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
