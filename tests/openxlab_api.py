"""What the real openxlab 0.1.3 talks to, on loopback: its control calls, and moto's S3 behind a shim as its OSS.

with openxlab_api() as api:
    api.url, api.oss_url       # for OPENXLAB_API_ENDPOINT and OPENXLAB_OSS_ENDPOINT
    api.fail_put = 4           # the fourth part of an upload is refused, once
    api.content("tiny", "a")   # the bytes that were stored
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from quiet_server import QuietServer

os.environ["S3_UPLOAD_PART_MIN_SIZE"] = str(100 * 1024)  # OSS's; moto reads it when it is imported

AK, SK = "access-of-me", "secret-of-me"
BUCKET = "models"


@dataclass
class Api:
    url: str = ""
    oss_url: str = ""
    repositories: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fail_put: int | None = None
    puts: int = 0
    spoil: str | None = None  # a file whose downloads have other bytes
    leads: dict[str, tuple[str, str]] = field(default_factory=dict)  # verb, "part" or "file" -> status and address

    def content(self, repo: str, name: str) -> bytes:
        import boto3

        s3 = boto3.client("s3", endpoint_url=self.oss_url, aws_access_key_id="x", aws_secret_access_key="x",
                          region_name="us-east-1")  # fmt: skip
        return bytes(s3.get_object(Bucket=BUCKET, Key=f"{repo}/{name}")["Body"].read())

    def put(self, repo: str, name: str, content: bytes) -> None:
        """As by hand on the page."""
        import boto3

        s3 = boto3.client("s3", endpoint_url=self.oss_url, aws_access_key_id="x", aws_secret_access_key="x",
                          region_name="us-east-1")  # fmt: skip
        s3.put_object(Bucket=BUCKET, Key=f"{repo}/{name}", Body=content)

    def control(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        path, data = environ["PATH_INFO"], environ["wsgi.input"].read(size)
        lead = self.leads.get("file" if environ["REQUEST_METHOD"] == "GET" else path.rpartition("/")[2])
        if lead:
            start(lead[0], [("Location", lead[1]), ("Content-Length", "0")])
            return [b""]
        if environ["REQUEST_METHOD"] == "GET":
            repo, name = path.removeprefix("/files/").split("/", 1)
            content = self.content(repo, name)
            start("200 OK", [("Content-Length", str(len(content)))])
            return [content[::-1] if name == self.spoil else content]
        verb = path.rpartition("/")[2]
        self.calls.append(verb)
        answer = self._answer(verb, json.loads(data or b"{}"), environ.get("HTTP_AUTHORIZATION"))
        is_good = not isinstance(answer, str)
        inner = {"msgCode": "10000" if is_good else "40000", "msg": "" if is_good else answer, "traceId": "t"}
        body = {"traceId": "t", "msgCode": "10000", "msg": "", "data": {**inner, "data": answer}, "success": True}
        text = json.dumps(body).encode()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
        return [text]

    def _answer(self, verb: str, asked: dict[str, Any], token: str | None) -> Any:
        if verb == "auth":
            return {"nonce": "once", "algorithm": "HmacSHA1"}
        if verb == "getJwt":
            right = base64.b64encode(hmac.new(SK.encode(), b"once", hashlib.sha1).digest()).decode()
            if (asked["ak"], asked["d"]) != (AK, right):
                return "the key is not known"
            late = "2099-01-01 00:00:00"
            return {
                "jwt": "Bearer x",
                "expiration": late,
                "sso_uid": "1",
                "refresh_token": "r",
                "refresh_expiration": late,
            }
        if verb == "getUploadSignature":
            keys = {"accessKeyId": "x", "accessKeySecret": "x", "stsToken": "x", "bucket": BUCKET}
            return {**keys, "object": asked["fileName"], "callback": "", "callbackVar": ""}
        if token != "Bearer x":
            return "not logged in"
        name = asked.get("repoName") or asked.get("repositoryName") or asked["name"]
        if verb == "createModelRepository":
            self.repositories[name] = {"public": asked["publicStatus"], "models": {}}
            return {}
        if name not in self.repositories:
            return "the repository does not exist"
        models = self.repositories[name]["models"]
        if verb == "updateRepositoryBaseInfo":
            self.repositories[name]["public"] = asked["publicStatus"]
            return {}
        if verb == "getRepositoryModelList":
            return {"models": [{"name": model, "weightName": weight} for model, weight in models.items()]}
        if verb == "getFileDownloadUrl":
            urls = {model: {"url": f"{self.url}/files/{name}/{model}", "fileName": model, "hash": "unknown"}
                    for model in asked["modelNames"] if model in models}  # fmt: skip
            return {"modelNames": urls, "filePaths": {}}
        if verb == "updateFileUploadStatus":
            models |= {model["name"]: model["weightName"] for model in asked["models"] or []}
            objects = [{"objectName": f"{name}/{model}", "modelId": 1, "modelName": model, "weightName": weight}
                       for model, weight in models.items()]  # fmt: skip
            return {"repositoryId": 1, "uid": 1, "objects": objects}
        return f"unknown: {verb}"

    def shim(self, s3: Any) -> Any:
        """Makes moto's S3 speak OSS: no XML namespace, no empty markers, its own host; refuses a part on demand."""

        def application(environ: dict[str, Any], start: Any) -> list[bytes]:
            query = environ.get("QUERY_STRING", "")
            if environ["REQUEST_METHOD"] == "PUT" and "partNumber" in query:
                self.puts += 1
                if "part" in self.leads:
                    start(self.leads["part"][0], [("Location", self.leads["part"][1]), ("Content-Length", "0")])
                    return [b""]
                if self.puts == self.fail_put:
                    start("500 Broken", [("Content-Length", "0")])
                    return [b""]
            environ["QUERY_STRING"] = re.sub(r"(part-number-marker|max-parts)=(&|$)", "", query).rstrip("&")
            environ["HTTP_HOST"] = self.oss_url.removeprefix("http://")
            environ["HTTP_AUTHORIZATION"] = "AWS x:y"
            kept: list[Any] = []
            body = b"".join(s3(environ, lambda status, headers, *_: kept.extend([status, headers])))
            body = re.sub(rb' xmlns="[^"]*"', b"", body)
            headers = [(key, value) for key, value in kept[1] if key.lower() != "content-length"]
            start(kept[0], [*headers, ("Content-Length", str(len(body)))])
            return [body]

        return application


class _Server(QuietServer, WSGIServer):
    pass


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def openxlab_api() -> Iterator[Api]:
    import boto3
    from moto.server import create_backend_app

    api = Api()
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(make_server("127.0.0.1", 0, application, _Server, _Quiet))
            for application in (api.control, api.shim(create_backend_app("s3")))
        ]
        for server in servers:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            stack.callback(server.shutdown)
        api.url, api.oss_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
        s3 = boto3.client("s3", endpoint_url=api.oss_url, aws_access_key_id="x", aws_secret_access_key="x",
                          region_name="us-east-1")  # fmt: skip
        s3.create_bucket(Bucket=BUCKET)
        yield api
