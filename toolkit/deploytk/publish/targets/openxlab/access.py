"""Who may read and write the repository, by what git would ask first."""

from __future__ import annotations

from contextlib import suppress

import httpx

from deploytk.base.net import describe, trusted
from deploytk.publish.targets.openxlab.git import Finished, Git

_ANSWER_WITHIN_S = 30.0


def is_public(git: Git) -> bool:
    """Whether somebody without an account may read it; asked until the server says so or not."""
    statuses: list[int] = []

    def attempt() -> Finished:
        try:
            answer = _info_refs(git, "git-upload-pack", None)
        except httpx.TransportError as error:
            return Finished(1, b"", f"failed to connect: {describe(error)}")
        statuses.append(answer.status_code)
        return git.finished(answer, (*range(200, 300), 400, 401, 403, 404))

    git.retry(attempt)
    return statuses[-1] == 200


def require_writer(git: Git) -> None:
    """Raises ReleaseError for a token that may not write; an LFS server might take every byte before the push fails."""
    status = _write_status(git)
    if status in (401, 403):
        raise git.error(Finished(1, b"", f"error: {status}, before anything was sent"))


def permissions(git: Git) -> str:
    """What the token may do, in words."""
    may = {200: "may write", 401: "is not accepted", 403: "may only read"}
    return f"the token of {git.login[0]} {may.get(_write_status(git) or 0, 'could not be tried')}"


def _write_status(git: Git) -> int | None:
    with suppress(httpx.TransportError):
        return _info_refs(git, "git-receive-pack", git.login).status_code
    return None


def _info_refs(git: Git, service: str, auth: tuple[str, str] | None) -> httpx.Response:
    """The answer; raises ReleaseError for a redirect."""
    trust = not git.origin.is_loopback
    with httpx.Client(
        timeout=_ANSWER_WITHIN_S, verify=trusted(), trust_env=trust, auth=auth, follow_redirects=False
    ) as client:
        answer = client.get(f"{git.url}/info/refs", params={"service": service})
    git.refuse_redirect(answer)
    return answer
