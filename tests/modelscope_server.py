"""A stand-in for ModelScope that the real client accepts, on loopback, with faults on demand and a record.

with modelscope_server() as hub:
    hub.url                       # for MODELSCOPE_ENDPOINT
    hub.faults["PUT"] = [500, (429, 1)]     # what the next requests of that kind are answered, and Retry-After
    hub.repositories["me/tiny"]   # visibility and files
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from quiet_server import QuietServer

WRITER, READER = "ms-writer", "ms-reader"


@dataclass
class Repository:
    visibility: int
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.bin filter=lfs\n"})
    commits: list[str] = field(default_factory=list)


@dataclass
class Studio(Repository):
    statuses: list[str] = field(default_factory=lambda: ["Creating", "Building", "Running"])  # the last one stays
    secrets: dict[str, str] = field(default_factory=dict)
    deployed: int = 0


class ModelScopeServer(QuietServer):
    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.is_gone = False
        self.repositories: dict[str, Repository] = {}
        self.studios: dict[str, Studio] = {}
        self.statuses: list[str] | None = None  # of Studios to come
        self.blobs: dict[str, bytes] = {}
        self.faults: dict[str, list[int | tuple[int, float]]] = {}
        self.requests: list[str] = []
        self.puts = 0
        self.loses: set[str] = set()  # paths that a commit drops although it says that all went well
        self.shows: dict[str, Callable[[bytes], bytes]] = {}  # what it hands out of a path instead
        self.before: dict[str, Callable[[], None]] = {}  # called once, before such a request is done
        self.loses_answer: set[str] = set()  # kinds of which one is done without an answer
        self.lists: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list  # what it says that it has
        self.blobs_at: str | None = None  # where it says that uploads go
        self.redirects: dict[str, str] = {}  # kinds of requests that are sent on, and to where
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def go_away(self) -> None:
        """No connection is taken any more, and those that are open break."""
        self.is_gone = True
        self.shutdown()
        self.server_close()

    def come_back(self) -> ModelScopeServer:
        """The same hub again, at the same address."""
        back = ModelScopeServer(self.server_address[1])
        kept = (
            "repositories",
            "studios",
            "statuses",
            "blobs",
            "faults",
            "requests",
            "puts",
            "loses",
            "shows",
            "before",
            "loses_answer",
            "lists",
            "lock",
        )
        vars(back).update({name: vars(self)[name] for name in kept})
        threading.Thread(target=back.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return back


class _Handler(BaseHTTPRequestHandler):
    server: ModelScopeServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        kind = "commit" if "/commit/" in path else "batch" if path.endswith("/batch") else method
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.server.is_gone:
            self.close_connection = True
            return
        if call := self.server.before.pop(kind, None):
            call()
        with self.server.lock:
            self.server.requests.append(f"{method} {self.path}")
            waiting = self.server.faults.get(kind, [])
            if kind in self.server.redirects:
                self.send_response(307)
                self.send_header("Location", self.server.redirects[kind] + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif "FilePath=" in self.path and not waiting and token in (WRITER, READER):
                self._download(path)
            elif waiting:
                fault = waiting.pop(0)
                status, wait_s = fault if isinstance(fault, tuple) else (fault, None)
                self._send(status, {"Message": "as the test wants it"}, wait_s)
            elif token not in (WRITER, READER):
                self._send(401, {"Message": "not signed in"})
            elif token == READER and method != "GET":
                self._send(403, {"Message": "may only read"})
            elif kind in self.server.loses_answer:
                self.server.loses_answer.remove(kind)
                self._do(method, path, body)
                self.close_connection = True
            else:
                self._send(*self._do(method, path, body))

    def _download(self, path: str) -> None:
        """One file, or the range of it that was asked for."""
        name = parse_qs(urlsplit(self.path).query)["FilePath"][0]
        parts = path.strip("/").split("/")
        content = self.server.repositories["/".join(parts[3:5])].files.get(name)
        if content is None:
            return self._send(404, {"Message": "no such file"})
        content = self.server.shows.get(name, bytes)(content)
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        body = content[int(first) : int(last) + 1 if last else None]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def _do(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        hub = self.server
        parts = path.strip("/").split("/")
        if path == "/openapi/v1/users/me":
            return 200, {"success": True, "data": {"username": "me"}}
        if method == "PUT" and path.startswith("/blobs/"):
            hub.blobs[hashlib.sha256(body).hexdigest()] = body
            hub.puts += 1
            return 200, {}
        if method == "POST" and path == "/api/v1/models":
            asked = json.loads(body)
            repo = f"{asked['Path']}/{asked['Name']}"
            if asked["Path"] != "me":
                return 403, {"Message": f"no right to create anything under {asked['Path']}"}
            if asked["Name"] == "admin":
                return 400, {"Message": "the name is reserved"}
            if repo in hub.repositories:
                return 400, {"Message": "the repository already exists"}
            hub.repositories[repo] = Repository(asked["Visibility"])
            return 200, {"Code": 200, "Data": {"Name": asked["Name"]}, "Success": True}
        if method == "POST" and path == "/openapi/v1/studios":
            asked = json.loads(body)
            made = Studio(1 if asked["private"] else 5)
            made.statuses = hub.statuses or made.statuses
            hub.studios[f"{asked['owner']}/{asked['repo_name']}"] = made
            return 200, {"success": True, "data": asked}
        repo = "/".join(parts[4:6] if "repos" in parts else parts[3:5])
        if "studios" in parts:
            studio = hub.studios.get(repo)
            if studio is None:
                return 404, {"Message": "no such Studio"}
            if path.startswith("/openapi/"):
                return self._studio(studio, method, path, body)
        found = hub.studios[repo] if "studios" in parts else hub.repositories.get(repo)
        if found is None:
            return 404, {"Message": "no such repository"}
        if path.endswith("/objects/batch"):
            where = hub.blobs_at or hub.url
            objects = [
                {"oid": one["oid"], "size": one["size"],
                 "actions": {} if one["oid"] in hub.blobs else {"upload": {"href": f"{where}/blobs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            return 200, {"Code": 200, "Data": {"objects": objects}, "Success": True}
        if "/commit/" in path:
            return self._commit(found, json.loads(body))
        if path.endswith("/repo/files"):
            return 200, {"Code": 200, "Data": {"Files": hub.lists(self._listing(found))}, "Success": True}
        data = {"Visibility": found.visibility, "visibility": found.visibility, "Name": parts[-1], "Path": parts[-2]}
        return 200, {"Code": 200, "success": True, "data": data, "Data": data, "Success": True}

    def _studio(self, studio: Studio, method: str, path: str, body: bytes) -> tuple[int, Any]:
        data: Any = {}
        if path.endswith("/deploy"):
            studio.deployed += 1
        elif path.endswith("/secrets") and method == "GET":
            data = {"secrets": [{"key": key} for key in studio.secrets]}
        elif path.endswith("/secrets"):
            asked = json.loads(body)
            studio.secrets[asked["key"]] = asked["value"]
        elif "/logs/" in path:
            data = {"logs": [{"content": "out of memory"}], "total_count": 1}
        else:
            is_waiting = studio.deployed and len(studio.statuses) > 1
            data = {"runtime": {"status": studio.statuses.pop(0) if is_waiting else studio.statuses[0]}}
        return 200, {"success": True, "data": data}

    def _commit(self, repository: Repository, asked: dict[str, Any]) -> tuple[int, Any]:
        for action in asked["actions"]:
            path = action["path"]
            if action["action"] == "delete":
                repository.files.pop(path, None)
            elif path in self.server.loses:
                continue
            elif action["type"] == "lfs":
                repository.files[path] = self.server.blobs[action["sha256"]]
            else:
                repository.files[path] = base64.b64decode(action["content"])
        repository.commits.append(asked["commit_message"])
        return 200, {"Code": 200, "Data": {"oid": f"{len(repository.commits):040x}"}, "Success": True}

    def _listing(self, repository: Repository) -> list[dict[str, Any]]:
        root = parse_qs(urlsplit(self.path).query).get("Root", [""])[0]
        files = [
            {"Path": path, "Name": path.rpartition("/")[2], "Size": len(content), "Type": "blob",
             "Sha256": hashlib.sha256(content).hexdigest()}
            for path, content in sorted(repository.files.items())
            if path.startswith(root)
        ]  # fmt: skip
        folders = {path.rpartition("/")[0] for path in repository.files if "/" in path}
        return [*files, *({"Path": folder, "Name": folder, "Type": "tree"} for folder in sorted(folders))]

    def _send(self, status: int, body: Any, wait_s: float | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if wait_s is not None:
            self.send_header("Retry-After", str(wait_s))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def modelscope_server() -> Iterator[ModelScopeServer]:
    with ModelScopeServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()
