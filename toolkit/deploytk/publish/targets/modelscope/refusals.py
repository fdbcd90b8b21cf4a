"""The exceptions of ModelScope's client in words: what went wrong, and what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import requests
from modelscope_hub import errors

from deploytk.base.errors import DeployError, ReleaseError, TryAgainError
from deploytk.base.net import REDIRECTS, describe
from deploytk.publish.targets.modelscope.signin import TOKEN_HINT, CommitLost, HubBusy


@contextlib.contextmanager
def translated(repo: str) -> Iterator[None]:
    """Turn the client's exceptions into ours; none of them holds the token."""
    try:
        yield
    except HubBusy as busy:
        after = f" and asks to wait {busy.retry_after:.0f} s" if busy.retry_after else ""
        hint = "run again later: only the rest is sent"
        raise TryAgainError(f"ModelScope answers {busy.status}{after}", hint=hint) from busy
    except CommitLost as lost:
        raise TryAgainError(
            f"ModelScope {lost}", hint="look at it in some minutes, then run again: only the rest is sent"
        ) from lost
    except errors.HubError as error:
        raise _ours(error, repo) from error
    except requests.RequestException as error:
        raise _unanswered(error) from error


def _unanswered(error: Exception) -> DeployError:
    why = describe(error)
    if why == REDIRECTS:
        return ReleaseError(
            "ModelScope redirects in a circle", hint="check MODELSCOPE_ENDPOINT, and what answers there"
        )
    return TryAgainError(f"ModelScope does not answer: {why}", hint="run again later: only the rest is sent")


def _ours(error: errors.HubError, repo: str) -> DeployError:
    said = " ".join(str(error).split())[:300]
    if isinstance(error, errors.AuthenticationError):
        return ReleaseError("ModelScope does not take the token", hint=TOKEN_HINT)
    if isinstance(error, errors.PermissionDeniedError):
        return ReleaseError(f"the token may not write to {repo}", hint=TOKEN_HINT)
    if isinstance(error, errors.NotExistError):
        return ReleaseError(f"ModelScope has no {repo}, or the token may not see it", hint="check --repo OWNER/NAME")
    if isinstance(error, errors.NetworkError):
        return _unanswered(error)
    if isinstance(error, errors.RateLimitError):
        return TryAgainError(f"ModelScope answers 429: {said}", hint="run again later: only the rest is sent")
    if isinstance(error, errors.ServerError):
        return TryAgainError(f"ModelScope does not answer: {said}", hint="run again later: only the rest is sent")
    if isinstance(error, errors.QuotaExceededError):
        return ReleaseError(
            f"ModelScope has no room left for {repo}: {said}", hint="delete something there, or ask for more"
        )
    return ReleaseError(f"ModelScope refused {repo}: {said}", hint="see the message; then run again")
