"""What the SDK and the daemon complain of, in one sentence and a way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from docker.errors import APIError, DockerException

from deploytk.base.errors import ImageError


@contextmanager
def said(what: str) -> Iterator[None]:
    """Turn the SDK's exceptions into one sentence and a way out."""
    try:
        yield
    except APIError as error:
        raise refused(str(error.explanation or error), what) from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise ImageError(f"{what}: {reason(error)}", hint="look at the daemon's own log, then run again") from error


def refused(reason: str, what: str = "the daemon refuses") -> ImageError:
    text = " ".join(reason.split())[:300]
    if "no space left on device" in text:
        return ImageError("the disk of the Docker daemon is full", hint="docker system prune, then run again")
    if "invalid reference format" in text or "invalid tag" in text:
        return ImageError(f"{what}: {text}", hint="a name is lower case: NAME:TAG or HOST/NAME:TAG")
    return ImageError(f"{what}: {text}", hint="look at the daemon's own log, then run again")


def failed_build(reason: str, log: list[str]) -> ImageError:
    if "no space left on device" in reason:
        return refused(reason)
    end = "\n".join(f"  {line[:300]}" for line in [line for line in log if line.strip()][-15:])
    text = " ".join(reason.split())[:300]
    hint = "the lines above are the end of the build; behind a proxy give --ca-cert, without a network --wheels"
    return ImageError(f"the image cannot be built: {text}\n{end}".rstrip(), hint=hint)


def reason(error: Exception) -> str:
    """The innermost cause, which the SDK wraps several times."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return said.strip("()'\"")[:200]
