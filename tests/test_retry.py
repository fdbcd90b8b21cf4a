"""The one retry policy: bounded in all, as long as the server asks for, and in words."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from deploytk.base.errors import TryAgainError
from deploytk.base.retry import Retry, RetryPolicy, retry_after_s

QUICK = RetryPolicy(attempts=3, total_s=60.0, first_s=0.001, longest_s=0.002)


def test_attempts_are_counted() -> None:
    retry = Retry(QUICK, "h")
    retry.wait("answers 503")
    retry.wait("answers 503")

    with pytest.raises(TryAgainError, match=r"^h answers 503, 3 times in 0 s$"):
        retry.wait("answers 503")


def test_patience_ends_though_attempts_are_left() -> None:
    retry = Retry(RetryPolicy(attempts=99, total_s=0.05, first_s=0.06, longest_s=0.06), "h")

    # The first pause, 0.03 to 0.06 s, and a second one are more than 0.05 s.
    with pytest.raises(TryAgainError, match="h is away"):
        _fail(retry, times=3)


def _fail(retry: Retry, times: int) -> None:
    for _ in range(times):
        retry.wait("is away")


def test_progress_begins_patience_anew() -> None:
    retry = Retry(QUICK, "h")
    for _ in range(9):
        retry.wait("broke off")
        retry.progressed()

    assert retry.failures == 0


def test_what_a_server_asks_for_is_waited_and_said() -> None:
    said: list[str] = []
    started = time.monotonic()

    Retry(QUICK, "h", said.append).wait("answers 429", 0.2)

    assert time.monotonic() - started >= 0.2
    assert said[0].startswith("h answers 429: again in 0.2 s, until ")


def test_a_server_that_asks_for_too_much_is_not_waited_for() -> None:
    with pytest.raises(TryAgainError, match=r"h answers 429 and asks to wait 3600 s") as caught:
        Retry(QUICK, "h").wait("answers 429", 3600.0)

    assert caught.value.hint.startswith("run again after ")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("", None), ("7", 7.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None), ("soon", None)],
)
def test_a_header_that_asks_to_wait_is_read(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value) == seconds


def test_a_date_to_wait_for_is_read() -> None:
    then = datetime.now(timezone.utc) + timedelta(seconds=100)

    assert 90 < (retry_after_s(format_datetime(then, usegmt=True)) or 0) <= 100
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_pauses_grow_up_to_the_longest() -> None:
    policy = RetryPolicy(first_s=1.0, longest_s=8.0)

    for failures, longest_s in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (500, 8.0)):
        assert longest_s / 2 <= policy.backoff_s(failures) <= longest_s
