"""Samples of a release are asked for where the hub sent us on to: it is asked once where a file is."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from lying_server import Asked, lying, plain

from deploytk.base.errors import ReleaseError
from deploytk.base.origin import Origin
from deploytk.base.readback import SPAN_BYTES
from deploytk.base.retry import Retry, RetryPolicy
from deploytk.publish.samples import Samples, Sent

CONTENT = random.Random(0).randbytes(2**20)  # four samples


class Hub:
    """Sends a reader on to an address that is good for so many requests."""

    def __init__(self, lasts: int = 100, elsewhere: bytes = CONTENT) -> None:
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self._lasts, self._elsewhere = lasts, elsewhere

    def answer(self, asked: Asked, send: Callable[[bytes], None]) -> None:
        self.asked.append(asked.path.partition("?")[0])
        self.heads.append(asked.head)
        if asked.path == "/file":
            send(plain(b"", "302 Found", f"Location: /store?{len(self.asked)}\r\n"))
            return
        since = int(asked.path.partition("?")[2])
        if len(self.asked) - since > self._lasts:
            send(plain(b"", "403 Expired"))
            return
        found = re.search(rb"bytes=(\d+)-(\d+)", asked.head)
        assert found
        send(plain(self._elsewhere[int(found[1]) : int(found[2]) + 1], "206 Partial Content"))


@pytest.fixture
def check(tmp_path: Path) -> Callable[[Hub], None]:
    (tmp_path / "file").write_bytes(CONTENT)

    def check(hub: Hub) -> None:
        with lying(hub.answer) as url:
            file = Sent("file", tmp_path / "file", len(CONTENT), "0" * 64, f"{url}/file")
            retry = RetryPolicy(attempts=1, first_s=0.01)
            Samples(Origin.of(url), lambda: Retry(retry, "hub", lambda _: None)).check(url, [file])

    return check


def test_a_hub_is_asked_once_where_a_file_is(check: Callable[[Hub], None]) -> None:
    hub = Hub()

    check(hub)

    assert hub.asked == ["/file", "/store", "/store", "/store", "/store"]


def test_an_address_that_has_run_out_is_asked_for_again(check: Callable[[Hub], None]) -> None:
    hub = Hub(lasts=2)

    check(hub)

    assert hub.asked == ["/file", "/store", "/store", "/store", "/file", "/store", "/store"]


def test_an_address_that_is_never_good_ends_in_words(check: Callable[[Hub], None]) -> None:
    hub = Hub(lasts=0)

    with pytest.raises(ReleaseError, match="says that it has file, and answers 403 for it"):
        check(hub)

    assert hub.asked == ["/file", "/store"]


def test_of_many_small_files_some_are_read_and_others_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.samples._MOST_READS", 5)
    asked: list[str] = []

    def answer(request: Asked, send: Callable[[bytes], None]) -> None:
        asked.append(request.path)
        send(plain(request.path.encode(), "206 Partial Content"))

    with lying(answer) as url:
        files = []
        for number in range(8):
            path = tmp_path / str(number)
            path.write_bytes(f"/{number}".encode())
            files.append(Sent(str(number), path, path.stat().st_size, f"{number:064}", f"{url}/{number}"))
        samples = Samples(Origin.of(url), lambda: Retry(RetryPolicy(attempts=1), "hub", lambda _: None))
        samples.check(url, files)
        first = set(asked)
        asked.clear()
        samples.check(url, files)
        second = set(asked)
        asked.clear()
        samples.check(url, files)

    assert (len(first), len(first | second), asked) == (5, 8, [])


def test_of_many_large_files_the_end_is_read_and_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploytk.publish.samples._MOST_READS", 5)
    asked: dict[str, list[tuple[int, int]]] = {}

    def answer(request: Asked, send: Callable[[bytes], None]) -> None:
        found = re.search(rb"bytes=(\d+)-(\d+)", request.head)
        assert found
        start, end = int(found[1]), int(found[2]) + 1
        asked.setdefault(request.path, []).append((start, end))
        send(plain(CONTENT[start:end], "206 Partial Content"))

    (tmp_path / "file").write_bytes(CONTENT)
    with lying(answer) as url:
        sources = [tmp_path / "file"] * 3
        files = [Sent(str(at), file, len(CONTENT), f"{at:064}", f"{url}/{at}") for at, file in enumerate(sources)]
        Samples(Origin.of(url), lambda: Retry(RetryPolicy(attempts=1), "hub", lambda _: None)).check(url, files)

    assert sorted(asked) == ["/0", "/1", "/2"]
    assert all(len(spans) == 2 for spans in asked.values())
    assert all(spans[1] == (len(CONTENT) - SPAN_BYTES, len(CONTENT)) for spans in asked.values())
    assert all(end - start == SPAN_BYTES for (start, end), _ in asked.values())


def test_other_bytes_at_that_address_are_found(check: Callable[[Hub], None]) -> None:
    other = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])

    with pytest.raises(ReleaseError, match="other bytes than were sent"):
        check(Hub(elsewhere=other))


def test_the_text_of_what_was_sent_shows_no_token() -> None:
    sent = Sent("a", Path("a"), 1, "0" * 64, "http://hub.example/a", {"Authorization": "Bearer hf_secret"})

    assert "hf_secret" not in repr(sent)
