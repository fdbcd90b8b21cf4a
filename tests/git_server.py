"""A git server with LFS on loopback, made of dulwich's two: one address, accounts, faults on demand, a record.

with git_server(directory) as server:
    server.create("me/tiny")
    server.url            # http://127.0.0.1:PORT
    server.faults["PUT"] = [503, "cut", (429, 1)]     # what the next requests of that kind meet; with Retry-After
    server.stored         # LFS object ids in the order in which they arrived whole

    python git_server.py DIRECTORY    # serves every DIRECTORY/OWNER/NAME.git until stdin ends, and prints its address
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.handlers import SimpleHandler

from dulwich.lfs import LFSStore
from dulwich.lfs_server import LFSRequestHandler
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import HTTPGitApplication
from quiet_server import QuietServer

WRITER, READER = ("me", "w0rd-that-may-write"), ("me", "w0rd-that-may-read")


class GitServer(QuietServer):
    log_requests = False

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root
        store = root / "lfs"
        root.mkdir(parents=True, exist_ok=True)
        self.lfs_store = LFSStore(str(store)) if store.exists() else LFSStore.create(str(store))
        self.repositories: dict[str, Repo] = {}
        self.git = HTTPGitApplication(DictBackend(self.repositories))
        self.public: set[str] = set()
        self.faults: dict[str, list[int | str | tuple[int, int]]] = {}  # an address: sent on to there
        self.objects_at: str | None = None  # where LFS objects are said to be, by an address without a path
        self.echoes_login = True  # whether the addresses of objects come with the login that was given
        self.shows: Callable[[bytes], bytes] | None = None  # what it hands out of an LFS object instead
        self.lies_of_downloads: Callable[[dict[str, Any]], dict[str, Any]] = dict
        self.batch_answers: bytes | None = None
        self.after: dict[str, Callable[[], None]] = {}  # called once, when such a request has been answered
        self.requests: list[str] = []
        self.stored: list[str] = []
        self.put_bytes = 0
        self.lock = threading.Lock()
        for place in root.glob("*/*.git"):
            self._open(place)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def create(self, repo: str, *, public: bool = False) -> Path:
        place = self.root / f"{repo}.git"
        place.mkdir(parents=True)
        made = Repo.init_bare(str(place), default_branch=b"main")
        made.close()
        self._open(place)
        if public:
            self.public.add(f"/{repo}.git")
        return place

    def has(self, repo: str) -> bool:
        """Whether /OWNER/NAME.git is there; one that somebody else made is opened when it is first asked for."""
        place = self.root / repo.removeprefix("/")
        if repo not in self.repositories and repo.endswith(".git") and place.is_dir():
            self._open(place)
        return repo in self.repositories

    def keep(self, oid: str) -> None:
        self.stored.append(oid)
        with (self.root / "stored").open("a") as file:
            file.write(f"{oid}\n")

    def _open(self, place: Path) -> None:
        self.repositories[f"/{place.relative_to(self.root)}"] = Repo(str(place))


class _Handler(LFSRequestHandler):
    """Sends /OWNER/NAME.git/info/lfs/... to the LFS handler above, all else to git."""

    server: GitServer
    timeout = 20

    @property
    def lfs_server(self) -> Any:
        return self.server

    def send_json_response(self, status_code: int, data: Any) -> None:
        if self.server.batch_answers is not None:
            return self._send_lfs(200, self.server.batch_answers)
        is_download = any("download" in item.get("actions", {}) for item in data.get("objects", []))
        if is_download:
            data = data | {"objects": [self.server.lies_of_downloads(item) for item in data["objects"]]}
        for item in data.get("objects", []):
            for action in item.get("actions", {}).values():
                where = self.server.objects_at or self.server.url
                action["href"] = f"{where}{self._repo}/info/lfs{urlsplit(action['href']).path}"
                if self.server.echoes_login:
                    action.setdefault("header", {})["Authorization"] = self.headers["Authorization"]
        super().send_json_response(status_code, data)
        return None

    def _send_lfs(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:  # noqa: N802
        self._answer("GET")

    def do_POST(self) -> None:  # noqa: N802
        self._answer("POST")

    def do_PUT(self) -> None:  # noqa: N802
        self._answer("PUT")

    def _wait_until_looked_at(self) -> None:
        """Until somebody has asked, and asks again, where the branch is: a look is one request, or two with a login."""
        before, end = len(self.server.requests), time.monotonic() + 60
        while sum("/info/refs" in one for one in self.server.requests[before:]) < 3 and time.monotonic() < end:
            time.sleep(0.05)

    def _answer(self, method: str) -> None:
        path = urlsplit(self.path).path
        self._repo = path[: path.find(".git") + 4]
        body = self._body()
        kind = "batch" if path.endswith("/objects/batch") else "push" if path.endswith("/git-receive-pack") else method
        with self.server.lock:
            self.server.requests.append(f"{method} {self.path}")
            waiting = self.server.faults.get(kind, [])
            fault = waiting.pop(0) if waiting else None
        if fault == "slow":
            self._wait_until_looked_at()
        if fault == "cut":
            self.close_connection = True
        elif fault == "hang":
            time.sleep(15)
            self.close_connection = True
        elif isinstance(fault, tuple):
            self._refuse(*fault)
        elif isinstance(fault, int):
            self._refuse(fault)
        elif fault and "://" in fault:
            self.send_response(307)
            self.send_header("Location", fault + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif (status := self._refusal(kind)) or not self.server.has(self._repo):
            self._refuse(status or 404)
        elif "/info/lfs/" in path:
            connection, self.rfile = self.rfile, io.BytesIO(body)  # type: ignore[assignment]  # read alike
            self.path = path.partition("/info/lfs")[2]
            if method == "GET" and self.server.shows:
                self._send_lfs(200, self.server.shows(self._stored()))
            elif method == "PUT" and fault == "lose":
                answer, self.wfile = self.wfile, io.BytesIO()  # type: ignore[assignment]  # written to alike
                self._lfs(method, len(body))
                self.wfile, self.close_connection = answer, True
            else:
                self._lfs(method, len(body))
            self.rfile = connection
        else:
            self._git(method, path, body, lose_answer=fault == "lose")
        if call := self.server.after.pop(kind, None):
            call()

    def _stored(self) -> bytes:
        with self.server.lfs_store.open_object(self.path.rpartition("/")[2]) as file:
            return bytes(file.read())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _refusal(self, kind: str) -> int | None:
        scheme, _, given = (self.headers.get("Authorization") or "").partition(" ")
        account = tuple(base64.b64decode(given).decode().split(":", 1)) if scheme == "Basic" else None
        if account in (WRITER, READER):
            is_writing = kind == "PUT" or "receive-pack" in self.path
            return 403 if account == READER and is_writing else None
        return None if kind == "GET" and self._repo in self.server.public and "upload-pack" in self.path else 401

    def _refuse(self, status: int, wait_s: int | None = None) -> None:
        self.send_response(status)
        if wait_s is not None:
            self.send_header("Retry-After", str(wait_s))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _lfs(self, method: str, size: int) -> None:
        # Two threads at once may make the same directory of dulwich's store, and one fails.
        with self.server.lock:
            getattr(super(), f"do_{method}")()
            if method == "PUT":
                self.server.keep(self.path.rpartition("/")[2])
                self.server.put_bytes += size

    def _git(self, method: str, path: str, body: bytes, *, lose_answer: bool) -> None:
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": urlsplit(self.path).query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_address[1]),
            "SERVER_PROTOCOL": "HTTP/1.1",
            **({"HTTP_CONTENT_ENCODING": found} if (found := self.headers.get("Content-Encoding")) else {}),
            **({"HTTP_GIT_PROTOCOL": found} if (found := self.headers.get("Git-Protocol")) else {}),
        }
        out = io.BytesIO() if lose_answer else self.wfile
        handler = SimpleHandler(io.BytesIO(body), out, io.StringIO(), environ)
        handler.http_version = "1.1"
        handler.origin_server = True
        handler.run(_gunzipping(self.server.git))
        self.close_connection = True


def _gunzipping(application: Any) -> Any:
    from dulwich.web import GunzipFilter, LimitedInputFilter

    return LimitedInputFilter(GunzipFilter(application))


@contextlib.contextmanager
def git_server(root: Path, port: int = 0) -> Iterator[GitServer]:
    server = GitServer(root, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        for repository in server.repositories.values():
            repository.close()


def main() -> None:
    with git_server(Path(sys.argv[1])) as server:
        print(server.url, flush=True)  # noqa: T201
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
