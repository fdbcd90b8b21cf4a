"""What a missed prediction of memory says, to the MiB, and that the client measures itself with whole answers."""

from __future__ import annotations

import re
import time

import pytest

from deploytk.base.event_loop import run
from deploytk.smoke import selfcheck
from deploytk.smoke.client import Connection
from deploytk.smoke.prediction import Parts, Predicted, check_prediction
from deploytk.smoke.record import Record

MIB = 2**20
TERMS = "context 300, warm up 200"


def _predicted(**changed: object) -> Predicted:
    """1000 MiB of weights, a pool of 2000 and 500 beside them, of which 300 are there before the pool: 3500 in all."""
    parts = {"weights_bytes": 1000, "kv_pool_bytes": 2000, "overhead_bytes": 500, "total_bytes": 3500}
    given = {name: mib * MIB for name, mib in parts.items()} | {"before_pool_bytes": 1300 * MIB, "terms": TERMS}
    return Predicted(error_pct=None, **(given | changed))  # type: ignore[arg-type]


def _parts(used: int, pool: int | None, before: int | None) -> Parts:
    return Parts(*(None if mib is None else mib * MIB for mib in (used, pool, before)))  # type: ignore[arg-type]


def test_a_prediction_that_holds_tells_both_sums() -> None:
    finding = check_prediction(_predicted(), _parts(3430, 2000, 1300), 2.0, 2.0)

    assert (finding.status, finding.detail) == ("pass", "3,500 MiB planned, 3,430 used (+2.0 %, 2 % allowed)")
    assert check_prediction(_predicted(), _parts(3570, 2000, 1300), -2.0, 2.0).status == "pass"


# What is furthest off is told. After the pool there are 3500 - 2000 - 1300 = 200 planned.
@pytest.mark.parametrize(
    ("used", "pool", "before", "off"),
    [
        (3900, 2400, 1300, "the KV pool: 2,000 MiB planned, 2,400 measured"),
        (3600, 2000, 1400, f"before the KV pool .*: 1,300 MiB planned, 1,400 measured .planned: {TERMS}"),
        (3700, 2010, 1310, f"after the KV pool .*: 200 MiB planned, 380 measured .planned: {TERMS}"),
        (3700, 2000, None, f"weights and overhead: 1,500 MiB planned, 1,700 measured .planned: {TERMS}"),
        (3700, None, 1300, "cannot be told, the engine's log does not say what its pool takes"),
    ],
)  # fmt: skip
def test_the_part_that_is_furthest_off_is_told_with_its_figures(
    used: int, pool: int | None, before: int | None, off: str
) -> None:
    finding = check_prediction(_predicted(), _parts(used, pool, before), -5.0, 2.0)

    assert finding.status == "fail"
    assert finding.detail.startswith(f"3,500 MiB planned, {used:,} used (-5.0 %, 2 % allowed): ")
    assert re.search(off, finding.detail)


def test_where_nothing_of_the_kind_was_measured_a_miss_is_a_warning_unless_a_tolerance_was_asked_for() -> None:
    unknown = _predicted(extrapolated="no such GPU was measured")
    parts = _parts(3900, 2400, 1300)

    assert check_prediction(_predicted(), parts, -10.0, None).status == "fail"
    assert check_prediction(unknown, parts, -10.0, None).status == "warn"
    assert check_prediction(unknown, parts, -10.0, None).detail.endswith("; no such GPU was measured")
    assert check_prediction(unknown, parts, -10.0, 2.0).status == "fail"


def test_the_client_measures_itself_with_answers_that_are_whole() -> None:
    """A usage of its own ends each, of as many tokens as events came."""

    async def ask(url: str) -> list[Record]:
        connection = Connection(url)
        await connection.open()
        records = [await selfcheck._ask(connection, prompt) for prompt in ("paced 0", "fast")]
        connection.close()
        return records

    with selfcheck._stub() as stub:
        records = run(ask(stub.url))

    assert [record.error for record in records] == ["", ""]
    assert [record.output_tokens for record in records] == [20, 10_000]
    assert [len(record.event_ns) for record in records] == [20, 10_000]
    assert [record.text for record in records] == ["word " * 20, "word " * 10_000]
    assert len(stub.sent_ns[0]) == 20


def test_the_client_sees_nothing_before_it_is_sent() -> None:
    started = time.thread_time()
    check = selfcheck.check_client(2)
    took = time.thread_time() - started

    assert check.ttft_error_ms > 0
    assert check.gap_error_p99_ms > 0
    assert check.capacity_events_s > 10_000 / took, "reading the fast answer is a part of the check"
    assert check.capacity_events_s < 10_000_000, "no Python reads an event in a tenth of a microsecond"
