"""Runs in the environment of openxlab 0.1.3: JSON jobs on stdin, a JSON answer to each. Imports nothing of deploytk.

It calls what the package's own commands call, below the part of them that prints "Error" and returns as if all were
well, and below the part that reports to a telemetry server. Its memory of interrupted uploads is emptied before
every file: to resume one writes wrong bytes (`OssClient.multipart_resume_upload` never seeks).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

_ANSWER_WITHIN_S = 60
_RESULT = "deploytk-result:"

_Origin = tuple[str, str, int]  # scheme, host, port


class AwayError(Exception):
    """What has credentials would go to a server that they are not for."""


def main() -> None:
    for line in sys.stdin:
        # What the package prints is for nobody; it would end up in our answer.
        with contextlib.redirect_stdout(sys.stderr):
            try:
                answer = {"value": _do(json.loads(line))}
            except Exception as error:  # noqa: BLE001 (whatever the package raises is told to the parent)
                answer = {"error": str(error)[:500] or type(error).__name__, "kind": type(error).__name__}
        sys.stdout.write(f"{_RESULT}{json.dumps(answer)}\n")
        sys.stdout.flush()
    os._exit(0)  # its threads would hold the process


def _do(job: dict[str, Any]) -> Any:
    import requests
    from openxlab.model.clients.openapi_client import OpenapiClient
    from openxlab.model.handler import upload_file
    from openxlab.utils.local_cache import cache
    from openxlab.xlab.handler import user_token

    if job["api"]:
        user_token.AUTH_CLIENT.endpoint = job["api"] + "/sso-be/api/v1/open/"
    if job["oss"]:
        upload_file.oss_endpoint = job["oss"]
    client = OpenapiClient(job["api"] or upload_file.endpoint, None)
    _guard(requests, [_origin(client.endpoint), _origin(user_token.AUTH_CLIENT.endpoint)], upload_file.oss_endpoint)
    user_token.get_jwt(os.environ["OPENXLAB_AK"], os.environ["OPENXLAB_SK"])  # a wrong pair is only a warning later
    verb, name = job["verb"], job["name"]
    if verb == "list":
        return [model["name"] for model in client.query_models(name)["models"]]
    if verb == "create":
        return bool(client.create_repository(name, job["private"], job["metafile"]))
    if verb == "visibility":
        return bool(client.update_repository(name, job["private"]))
    if verb == "upload":
        cache.cache.clear()
        cache.save_cache()
        model = {"Name": job["file"], "Weights": job["path"], "Results": job["results"]}
        remote = [one for one in client.query_models(name)["models"] if one["name"] == job["file"]]
        upload_file.upload_model_list(client, name, [model], remote, "bucket")
        return True
    if verb == "sizes":
        return _sizes(requests, client, job)
    chunks = _chunks(requests, client, job)
    if verb == "text":
        return b"".join(chunks).decode("utf-8", "surrogateescape")
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(requests: Any, client: Any, job: dict[str, Any]) -> Iterator[bytes]:
    """A file as it comes back, read now and whole."""
    models, _ = client.get_download_url(job["owner"], job["name"], [job["file"]], None, None)
    size = 0
    with requests.get(models[job["file"]]["url"], stream=True) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_content(2**20):
            yield chunk
            size += len(chunk)
        expected = int(answer.headers.get("Content-Length", size))
    if size != expected:  # the urllib3 that the package wants takes a cut answer for a whole one
        raise OSError(f"{job['file']}: {size} of {expected} bytes came back")


def _sizes(requests: Any, client: Any, job: dict[str, Any]) -> dict[str, int]:
    """The sizes that the answers to downloads name; no content is read."""
    models, _ = client.get_download_url(job["owner"], job["name"], job["files"], None, None)
    found = {}
    for name in job["files"]:
        if name in models:
            with requests.get(models[name]["url"], stream=True, headers={"Accept-Encoding": "identity"}) as answer:
                if answer.ok and "Content-Length" in answer.headers:
                    found[name] = int(answer.headers["Content-Length"])
    return found


def _guard(requests: Any, homes: list[_Origin], oss: str) -> None:
    """Keep what has credentials with its servers, and give every request a time limit: the package does neither.

    Whatever is not a plain GET has some: the signature for a login, a session, the signature of an upload.
    """
    if getattr(requests.Session.send, "is_guarded", False):
        return
    send = requests.Session.send
    is_local = all(_is_loopback(host) for _, host, _ in [*homes, _origin(oss)])

    def guarded(self: Any, request: Any, **more: Any) -> Any:
        more["timeout"] = more.get("timeout") or _ANSWER_WITHIN_S
        origin = _origin(request.url)
        if request.method in ("GET", "HEAD") and "Authorization" not in request.headers:
            # A signed address of a file: it may lead on, and every hop comes by here.
            if origin[0] != "https" and not (is_local and _is_loopback(origin[1])):
                raise AwayError(f"a file would come from {origin[1]} without encryption")
            return send(self, request, **more)
        if origin not in homes and not _is_bucket(origin, _origin(oss)):
            raise AwayError(f"{origin[1]} is none of the servers that the keys are for")
        answer = send(self, request, **{**more, "allow_redirects": False})
        if 300 <= answer.status_code < 400:
            raise AwayError(f"{origin[1]} sends the request elsewhere ({answer.status_code})")
        return answer

    guarded.is_guarded = True  # type: ignore[attr-defined]
    requests.Session.send = guarded


def _origin(url: str) -> _Origin:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)


def _is_bucket(origin: _Origin, oss: _Origin) -> bool:
    """Whether that is the storage server itself, or the name that a bucket has on it."""
    return (origin[0], origin[2]) == (oss[0], oss[2]) and f".{origin[1]}".endswith(f".{oss[1]}")


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


if __name__ == "__main__":
    main()
