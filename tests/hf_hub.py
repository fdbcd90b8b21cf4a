"""A stand-in for the Hugging Face Hub on loopback that the real huggingface_hub client accepts.

with hf_hub(directory) as hub:
    hub.url                                  # http://127.0.0.1:PORT
    hub.faults["PUT"] = [503, (429, 1), "cut", "lost"]   # what the next requests of that kind meet
    hub.requests                             # (kind, path) of everything that came in
    hub.stored                               # LFS object ids in the order in which they arrived whole
    hub.commits("me/tiny")                   # newest last

    python hf_hub.py DIRECTORY [PORT]        # serves on its own, and prints its address

Kinds: whoami create info tree preupload batch PUT verify commit yaml xet resolve runtime logs settings app.
A number is answered with that status, (number, seconds) with Retry-After as well; "cut" breaks the connection while
the body is read, "lost" does the work and breaks it instead of answering, "half" breaks it in the middle of the answer.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from quiet_server import QuietServer

WRITER, READER, NARROW = "w0rd-that-may-write", "w0rd-that-may-read", "w0rd-that-may-write-one"
_TOKENS: dict[str, dict[str, Any]] = {
    WRITER: {"role": "write"},
    READER: {"role": "read"},
    NARROW: {
        "role": "fineGrained",
        "fineGrained": {
            "global": [],
            "scoped": [{"entity": {"type": "model", "name": "me/tiny"}, "permissions": ["repo.write"]}],
        },
    },
}
_LARGE_BYTES = 64 * 1024  # and larger is LFS
_LARGE_NAMES = re.compile(r".*\.(safetensors|bin|model|weight)")

Fault = int | tuple[int, float] | str


class _AnswerLostError(Exception):
    pass


def is_large(path: str, size: int) -> bool:
    """Whether the hub keeps such a file by LFS."""
    return size >= _LARGE_BYTES or bool(_LARGE_NAMES.fullmatch(path))


@dataclass
class Hub:
    root: Path
    page: int = 1000  # files per page of a listing
    part_bytes: int | None = None  # LFS uploads in parts of this size
    xet: Path | None = None  # where xet puts what it stores; None: this hub has no xet
    is_compute_free: bool = True  # else a Space with hardware needs a paid plan: 402
    default_is_public: bool = False  # a hub that does not do as it is told
    runtimes: list[dict[str, Any]] = field(default_factory=list)  # what a Space says next; the last one stays
    app_answers: list[Any] = field(default_factory=list)  # what /ready of a Space says next; the last one stays
    logs: tuple[str, ...] = ()
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)  # where downloads of a part began
    received_bytes: int = 0
    shows: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)  # what it hands out of a path instead
    lists: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list  # what it says that a revision has
    heads: Callable[[str], str] = str  # which commit it says to be the newest
    has_ranges: bool = True
    from_xet: dict[str, Path] = field(default_factory=dict)  # files by SHA-256 that xet would put together
    objects_at: str | None = None  # where it says that uploads go
    verify_at: str | None = None
    next_page_at: str | None = None
    redirects: dict[str, str] = field(default_factory=dict)  # kinds of requests that are sent on, and to where
    on: dict[str, Callable[[], None]] = field(default_factory=dict)  # called once, when such a request comes
    port: int = 0
    pause_s: float = 0.0  # before each answer, as of a hub that is far away
    file_s: float = 0.0  # that a commit takes for each of its files
    _looked: dict[Path, tuple[object, dict[str, Any]]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def object(self, oid: str) -> Path:
        return self.root / "objects" / oid

    def keep(self, oid: str) -> None:
        self.stored.append(oid)
        with (self.root / "stored").open("a") as file:
            file.write(f"{oid}\n")

    def answered(self, oid: str) -> None:
        """Whoever sent it knows that it is here."""
        with (self.root / "answered").open("a") as file:
            file.write(f"{oid}\n")

    def state(self, kind: str, repo: str) -> Path:
        return self.root / kind / repo / "state.json"

    def load(self, kind: str, repo: str) -> dict[str, Any] | None:
        path = self.state(kind, repo)
        return json.loads(path.read_text()) if path.is_file() else None

    def look(self, kind: str, repo: str) -> dict[str, Any] | None:
        """As `load`, for those who change nothing of it: it is read once for thousands of requests."""
        path = self.state(kind, repo)
        if not path.is_file():
            return None
        status = path.stat()
        is_as = (status.st_ino, status.st_mtime_ns)
        if self._looked.get(path, (None, {}))[0] != is_as:
            self._looked[path] = is_as, json.loads(path.read_text())
        return self._looked[path][1]

    def save(self, kind: str, repo: str, state: dict[str, Any]) -> None:
        path = self.state(kind, repo)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(path)

    def create(self, repo: str, kind: str = "models", *, private: bool = True, **more: Any) -> None:
        blob = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
        files = {".gitattributes": {"content": base64.b64encode(blob).decode(), "size": len(blob), "oid": _git(blob)}}
        state = {"private": private, "secrets": {}, "variables": {}, **more, "commits": []}
        self.add_commit(state, "initial commit", files)
        self.save(kind, repo, state)

    @staticmethod
    def add_commit(state: dict[str, Any], summary: str, files: dict[str, Any]) -> str:
        parent = state["commits"][-1]["oid"] if state["commits"] else ""
        oid = hashlib.sha1(f"{parent} {summary} {json.dumps(files, sort_keys=True)}".encode()).hexdigest()
        state["commits"].append({"oid": oid, "summary": summary, "files": files})
        return oid

    def commits(self, repo: str, kind: str = "models") -> list[dict[str, Any]]:
        return list((self.load(kind, repo) or {"commits": []})["commits"])

    def tree(self, repo: str, kind: str = "models") -> dict[str, str]:
        """Path -> SHA-256 of what a reader gets from the newest commit."""
        files = self.commits(repo, kind)[-1]["files"]
        return {path: hashlib.sha256(self.content(file)).hexdigest() for path, file in files.items()}

    def content(self, file: dict[str, Any]) -> bytes:
        return base64.b64decode(file["content"]) if "content" in file else self._large(file["lfs"])

    def _large(self, oid: str) -> bytes:
        return self._place(oid).read_bytes()

    def _place(self, oid: str) -> Path:
        return self.from_xet.get(oid) or self.object(oid)

    def span(self, file: dict[str, Any], start: int, end: int) -> bytes:
        """Some of a file's bytes; of a large file no others are read, as real hubs do."""
        if "content" in file:
            return self.content(file)[start:end]
        with self._place(file["lfs"]).open("rb") as stored:
            stored.seek(start)
            return stored.read(end - start)


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # else every header is a packet of its own

    def log_message(self, *arguments: Any) -> None:
        pass

    def _serve(self) -> None:
        self.connection.settimeout(60)
        parts = urlsplit(self.path)
        self._query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self._left = int(self.headers.get("Content-Length") or 0)
        path = unquote(parts.path)
        found = [(k, re.fullmatch(pattern, path), a) for k, method, pattern, a in _ROUTES if method == self.command]
        kind, match, answer = next((route for route in found if route[1]), ("unknown", None, _Handler.unknown))
        with self.hub.lock:
            self.hub.requests.append((kind, path))
            fault = self.hub.faults.get(kind, [])[:1]
            del self.hub.faults.get(kind, [])[:1]
            call = self.hub.on.pop(kind, None)
        if call:
            call()
        time.sleep(self.hub.pause_s)
        if kind in self.hub.redirects:
            self._read()
            return self._answer(307, b"", {"Location": self.hub.redirects[kind] + self.path})
        try:
            self._meet(fault[0] if fault else None, answer, match)
        except (_AnswerLostError, ConnectionError, TimeoutError):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _meet(self, fault: Fault | None, answer: Callable[..., None], match: re.Match[str] | None) -> None:
        if fault == "cut":
            self.rfile.read(min(self._left, 1000))
            raise _AnswerLostError
        self._is_lost, self._is_half = fault == "lost", fault == "half"
        if isinstance(fault, (int, tuple)):
            self._read()
            status, wait = fault if isinstance(fault, tuple) else (fault, None)
            return self._json(status, {"error": "as asked for"}, {} if wait is None else {"Retry-After": str(wait)})
        return answer(self, *(match.groups() if match else ()))

    def unknown(self) -> None:
        self._read()
        self._json(404, {"error": f"no such address: {self.command} {self.path}"})

    def _read(self) -> bytes:
        body = self.rfile.read(self._left)
        self._left = 0
        return body

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if getattr(self, "_is_lost", False):
            raise _AnswerLostError
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if getattr(self, "_is_half", False) else body)
        self.wfile.flush()
        if getattr(self, "_is_half", False):
            raise _AnswerLostError

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _may_write(self, owner: str) -> bool:
        return self._token() in (WRITER, NARROW) and owner in ("me", "team")

    def _refused(self, owner: str) -> bool:
        if self._token() not in _TOKENS:
            self._json(
                401, {"error": "Invalid credentials"}, {"X-Error-Message": "Invalid credentials in Authorization"}
            )
        elif not self._may_write(owner):
            self._json(403, {"error": "You don't have the rights to do that"})
        else:
            return False
        return True

    def _repo(self, kind: str, repo: str) -> dict[str, Any] | None:
        state = self.hub.look(kind, repo)
        if state is None or (state["private"] and self._token() not in _TOKENS):
            status = 404 if self._token() in _TOKENS else 401
            self._json(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return state

    # --- what the client asks -----------------------------------------------------------------------------------

    def whoami(self) -> None:
        token = _TOKENS.get(self._token() or "")
        if token is None:
            return self._json(401, {"error": "Invalid credentials in Authorization header"})
        access: dict[str, Any] = {"displayName": "test", **token}
        orgs = [{"type": "org", "name": "team", "roleInOrg": "write"}]
        return self._json(
            200,
            {"type": "user", "name": "me", "orgs": orgs, "auth": {"type": "access_token", "accessToken": access}},
        )

    def create(self) -> None:
        asked = json.loads(self._read())
        kind = f"{asked.get('type') or 'model'}s"
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if self._refused(repo.split("/")[0]):
            return None
        place = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo}"
        with self.hub.lock:
            if self.hub.load(kind, repo):
                return self._json(409, {"error": "You already created this repo", "url": place})
            if kind == "spaces" and not self.hub.is_compute_free:
                return self._json(402, {"error": "creating a new Space that runs on compute requires a paid plan"})
            if asked["name"].startswith("forbidden"):
                return self._json(400, {"error": "Invalid name: it is reserved"})
            more = {name: asked[name] for name in ("sdk", "hardware") if name in asked}
            # huggingface_hub 1.x says "private", 2.x says "visibility"
            is_private = asked.get("private") is True or asked.get("visibility") == "private"
            private = is_private and not self.hub.default_is_public
            self.hub.create(repo, kind, private=private, **more)
            if asked.get("secrets"):
                state = self.hub.load(kind, repo) or {}
                state["secrets"] = {secret["key"]: secret["value"] for secret in asked["secrets"]}
                self.hub.save(kind, repo, state)
        return self._json(200, {"url": place, "id": repo})

    def info(self, kind: str, repo: str, _revision: str | None) -> None:
        state = self._repo(kind, repo)
        if state is None:
            return None
        head = state["commits"][-1]
        facts = {
            "id": repo,
            "sha": self.hub.heads(head["oid"]),
            "private": state["private"],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }
        facts["siblings"] = [{"rfilename": path} for path in head["files"]]
        if kind == "spaces":
            facts |= {"sdk": state.get("sdk"), "host": f"{self.hub.url}/apps/{repo}"}
        return self._json(200, facts)

    def tree(self, kind: str, repo: str, revision: str) -> None:
        state = self._repo(kind, repo)
        if state is None:
            return None
        commit = next((c for c in state["commits"] if c["oid"] == revision), state["commits"][-1])
        paths = sorted(commit["files"])
        start = int(self._query.get("cursor", 0))
        entries = []
        for path in paths[start : start + self.hub.page]:
            file = commit["files"][path]
            entry: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": file["size"],
                "oid": file.get("oid", "0" * 40),
            }
            if "lfs" in file:
                entry["lfs"] = {"oid": file["lfs"], "size": file["size"], "pointerSize": 130}
            entries.append(entry)
        more = {}
        if start + self.hub.page < len(paths):
            where = self.hub.next_page_at or self.hub.url
            at = f"{where}/api/{kind}/{repo}/tree/{revision}?recursive=true&cursor={start + self.hub.page}"
            more["Link"] = f'<{at}>; rel="next"'
        return self._json(200, self.hub.lists(entries), more)

    def preupload(self, kind: str, repo: str, _revision: str) -> None:
        asked = json.loads(self._read())
        state = self._repo(kind, repo)
        if state is None or self._refused(repo.split("/")[0]):
            return None
        there = state["commits"][-1]["files"]
        answer = []
        for file in asked["files"]:
            is_kept_large = is_large(file["path"], file["size"])
            known = there.get(file["path"], {})
            oid = known.get("lfs") or known.get("oid")
            mode = "lfs" if is_kept_large else "regular"
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self._json(200, {"files": answer})

    def batch(self, repo: str) -> None:
        asked = json.loads(self._read())
        if self._refused(repo.removeprefix("spaces/").split("/")[0]):
            return None
        objects = []
        for wanted in asked["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size}
            if not self.hub.object(oid).exists():
                upload: dict[str, Any] = {"href": f"{self.hub.objects_at or self.hub.url}/objects/{oid}"}
                if self.hub.part_bytes and size > self.hub.part_bytes:
                    count = -(-size // self.hub.part_bytes)
                    upload = {
                        "href": f"{self.hub.url}/complete/{oid}",
                        "header": {"chunk_size": str(self.hub.part_bytes)},
                    }
                    upload["header"] |= {f"{n:05}": f"{self.hub.url}/objects/{oid}/{n}" for n in range(1, count + 1)}
                answer["actions"] = {
                    "upload": upload,
                    "verify": {"href": f"{self.hub.verify_at or self.hub.url}/verify/{oid}"},
                }
            objects.append(answer)
        is_parted = bool(self.hub.part_bytes)
        return self._json(200, {"transfer": "multipart" if is_parted else "basic", "objects": objects})

    def put(self, oid: str, part: str | None) -> None:
        place = self.hub.object(oid + (f".part{int(part):05}" if part else ""))
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.{threading.get_ident()}")
        digest = hashlib.sha256()
        with partial.open("wb") as file:
            while self._left:
                block = self.rfile.read1(min(self._left, 2**20))
                if not block:
                    partial.unlink()
                    raise _AnswerLostError
                digest.update(block)
                file.write(block)
                self._left -= len(block)
                self.hub.received_bytes += len(block)
        if not part and digest.hexdigest() != oid:
            partial.unlink()
            self._json(400, {"error": "the content is not what its digest says"})
            return
        partial.replace(place)
        if not part:
            self.hub.keep(oid)
        self._json(200, {}, {"ETag": f'"{digest.hexdigest()}"'})
        if not part:
            self.hub.answered(oid)

    def complete(self, oid: str) -> None:
        self._read()
        parts = sorted(self.hub.root.glob(f"objects/{oid}.part*"))
        content = b"".join(path.read_bytes() for path in parts)
        if hashlib.sha256(content).hexdigest() != oid:
            return self._json(400, {"error": "the parts are not what the digest says"})
        self.hub.object(oid).write_bytes(content)
        self.hub.keep(oid)
        for path in parts:
            path.unlink()
        return self._json(200, {})

    def verify(self, oid: str) -> None:
        self._read()
        self._json(200 if self.hub.object(oid).exists() else 404, {})

    def commit(self, kind: str, repo: str, _revision: str) -> None:
        lines = [json.loads(line) for line in self._read().splitlines()]
        if self._refused(repo.split("/")[0]):
            return None
        time.sleep(self.hub.file_s * (len(lines) - 1))
        with self.hub.lock:
            if self._repo(kind, repo) is None:
                return None
            state = self.hub.load(kind, repo)
            assert state
            header = lines[0]["value"]
            head = state["commits"][-1]["oid"]
            if header.get("parentCommit") not in (None, head):
                return self._json(412, {"error": "A commit has happened since. Please refresh and try again."})
            files = dict(state["commits"][-1]["files"])
            for line in lines[1:]:
                value = line["value"]
                if line["key"] == "file":
                    content = base64.b64decode(value["content"])
                    files[value["path"]] = {"content": value["content"], "size": len(content), "oid": _git(content)}
                elif line["key"] == "lfsFile":
                    if not self.hub.xet and not self.hub.object(value["oid"]).exists():
                        return self._json(400, {"error": f"{value['path']}: its LFS object is not there"})
                    files[value["path"]] = {"lfs": value["oid"], "size": value["size"]}
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            oid = self.hub.add_commit(state, header["summary"], files)
            self.hub.save(kind, repo, state)
        return self._json(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def yaml(self) -> None:
        content = json.loads(self._read())["content"]
        match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        try:
            front = yaml.safe_load(match[1]) if match else {}
            errors = [] if isinstance(front.get("license", ""), str) else ['"license" must be a string']
        except yaml.YAMLError as error:
            errors = [f"invalid YAML: {error}"]
        self._json(400 if errors else 200, {"errors": [{"message": text} for text in errors], "warnings": []})

    def xet(self, kind: str, repo: str, _revision: str) -> None:
        if self.hub.xet is None:
            return self._json(404, {"error": "Not Found"})
        if self._repo(kind, repo) is None:
            return None
        address, expires = f"local://{self.hub.xet}", int(time.time()) + 3600
        facts = {"accessToken": "none", "exp": expires, "casUrl": address}
        headers = {
            "X-Xet-Cas-Url": address,
            "X-Xet-Access-Token": "none",
            "X-Xet-Token-Expiration": str(expires),
        }
        return self._json(200, facts, headers)

    def resolve(self, space: str | None, repo: str, _revision: str, path: str) -> None:
        state = self._repo("spaces" if space else "models", repo)
        if state is None:
            return None
        commit = next((c for c in state["commits"] if c["oid"] == _revision), state["commits"][-1])
        if path not in commit["files"]:
            return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        file = commit["files"][path]
        headers = {
            "X-Repo-Commit": commit["oid"],
            "ETag": f'"{file.get("lfs") or file["oid"]}"',
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.hub.has_ranges and path not in self.hub.shows and asked[2]:
            at, end = int(asked[1]), min(int(asked[2]) + 1, file["size"])
            headers["Content-Range"] = f"bytes {at}-{end - 1}/{file['size']}"
            return self._answer(206, self.hub.span(file, at, end), headers)
        content = self.hub.shows.get(path, bytes)(self.hub.content(file))
        if not asked or not self.hub.has_ranges:
            return self._answer(200, content, headers)
        at, end = int(asked[1]), int(asked[2]) + 1 if asked[2] else len(content)
        if not asked[2]:
            self.hub.ranges.append(at)
        headers["Content-Range"] = f"bytes {at}-{end - 1}/{len(content)}"
        return self._answer(206, content[at:end], headers)

    # --- Spaces -------------------------------------------------------------------------------------------------

    def runtime(self, repo: str) -> None:
        state = self._repo("spaces", repo)
        if state is None:
            return None
        hardware = state.get("hardware") or "cpu-basic"
        usual = {"stage": "RUNNING", "sha": state["commits"][-1]["oid"]}
        said = self.hub.runtimes.pop(0) if len(self.hub.runtimes) > 1 else (self.hub.runtimes or [{}])[0]
        return self._json(200, {**usual, "hardware": {"current": hardware, "requested": hardware}, **said})

    def setting(self, repo: str, name: str) -> None:
        asked = json.loads(self._read() or b"{}")
        state = self._repo("spaces", repo)
        if state is None or self._refused(repo.split("/")[0]):
            return None
        if name == "hardware":
            state["hardware"] = asked["flavor"]
        elif name in ("secrets", "variables"):
            state[name][asked["key"]] = asked["value"]
        self.hub.save("spaces", repo, state)
        hardware = state.get("hardware") or "cpu-basic"
        return self._json(200, {"stage": "BUILDING", "hardware": {"current": None, "requested": hardware}})

    def log(self, repo: str, which: str) -> None:
        events = [json.dumps({"data": f"{line}\n", "timestamp": which}) for line in self.hub.logs]
        text = "".join(f"data: {event}\n\n" for event in events)
        self._answer(200, text.encode(), {"Content-Type": "text/event-stream"})

    def app(self, repo: str) -> None:
        state = self.hub.load("spaces", repo)
        if state is None or (state["private"] and self._token() not in _TOKENS):
            return self._json(404, {})
        said = self.hub.app_answers
        answer = said.pop(0) if len(said) > 1 else (said or [{"state": "ready", "detail": ""}])[0]
        return self._json(answer, {}) if isinstance(answer, int) else self._json(200, answer)


_TYPED = r"/api/(models|spaces)/([^/]+/[^/]+)"
_SPACE = r"/api/spaces/([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, str, Callable[..., None]]] = [
    ("PUT", "PUT", r"/objects/([0-9a-f]{64})(?:/(\d+))?", _Handler.put),
    ("verify", "POST", r"/verify/([0-9a-f]{64})", _Handler.verify),
    ("verify", "POST", r"/complete/([0-9a-f]{64})", _Handler.complete),
    ("whoami", "GET", r"/api/whoami-v2", _Handler.whoami),
    ("create", "POST", r"/api/repos/create", _Handler.create),
    ("yaml", "POST", r"/api/validate-yaml", _Handler.yaml),
    ("tree", "GET", _TYPED + r"/tree/([^/]+)", _Handler.tree),
    ("preupload", "POST", _TYPED + r"/preupload/([^/]+)", _Handler.preupload),
    ("commit", "POST", _TYPED + r"/commit/([^/]+)", _Handler.commit),
    ("xet", "GET", _TYPED + r"/xet-write-token/([^/]+)", _Handler.xet),
    ("batch", "POST", r"/((?:spaces/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("runtime", "GET", _SPACE + r"/runtime", _Handler.runtime),
    ("settings", "POST", _SPACE + r"/(hardware|secrets|variables|restart)", _Handler.setting),
    ("logs", "GET", _SPACE + r"/logs/(build|run)", _Handler.log),
    ("info", "GET", _TYPED + r"(?:/revision/([^/]+))?", _Handler.info),
    ("app", "GET", r"/apps/([^/]+/[^/]+)/ready", _Handler.app),
    ("resolve", "GET", r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("resolve", "HEAD", r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]


@contextlib.contextmanager
def hf_hub(root: Path, port: int = 0) -> Iterator[Hub]:
    hub = Hub(root)
    server = QuietServer(("127.0.0.1", port), type("Handler", (_Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    (root / "objects").mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    with hf_hub(Path(sys.argv[1]), int((sys.argv[2:] or ["0"])[0])) as hub:
        print(hub.url, flush=True)  # noqa: T201
        for line in sys.stdin:  # asks for the figures so far, or how slow it is to be
            word, *numbers = line.split()
            if word == "end":
                break
            if word == "slow":
                hub.pause_s, hub.file_s = map(float, numbers)
                continue
            kinds = dict(collections.Counter(kind for kind, _ in hub.requests))
            said = {"requests": len(hub.requests), "bytes": hub.received_bytes, "kinds": kinds}
            print(json.dumps(said), flush=True)  # noqa: T201
    os._exit(0)


if __name__ == "__main__":
    main()
