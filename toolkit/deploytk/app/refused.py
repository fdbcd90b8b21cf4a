"""The error that answers a request."""

from __future__ import annotations

from typing import Sequence  # noqa: UP035 (Python 3.8 in old images)


class RefusedError(Exception):
    """A request that gets an error for an answer."""

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None, *, closes: bool = False,
        param: str | None = None, allowed: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s
        self.closes = closes  # the connection, whose next bytes cannot be trusted to begin a request
        self.param = param  # the field of the request that is refused
        self.allowed = allowed  # the methods that there are at that path
