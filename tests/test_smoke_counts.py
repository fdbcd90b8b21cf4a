"""Where the counts of a server stop being possible, to the token; and figures by hand that reports are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_smoke_report import record

from deploytk.smoke.correctness import check_counts
from deploytk.smoke.counters import Counters, read_counters
from deploytk.smoke.record import Record
from deploytk.smoke.statistics import mean_interval


def _five(**changes: object) -> Record:
    """An answer of five events, and as many tokens asked for and counted."""
    return replace(record(0, [20, 30, 40, 50, 60]), **changes)  # type: ignore[arg-type]


def _status(*records: Record, counted: int | None = None) -> str:
    [finding] = check_counts(records, None if counted is None else Counters(50, counted))
    return finding.status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "pass"),
        ({"output_tokens": 4}, "fail"),  # five pieces of text came
        ({"output_tokens": 7}, "pass"),  # two to spare: some servers count the end token
        ({"output_tokens": 8}, "fail"),
        ({"is_exact": True}, "pass"),
        ({"is_exact": True, "output_tokens": 6}, "pass"),
        ({"is_exact": True, "asked_tokens": 6}, "fail"),  # five of six
        ({"is_exact": False, "asked_tokens": 6}, "pass"),  # it may end by itself
        ({"first_tokens": 1}, "pass"),
        ({"first_tokens": 2}, "fail"),  # 2 + 4 events are six, of five
        ({"first_tokens": 2, "output_tokens": 6}, "pass"),
        ({"first_tokens": 5}, "fail"),  # all in the first, and four more came
        ({"output_tokens": None}, "not run"),
    ],
)
def test_usage_is_believed_as_far_as_it_can_be_true(changes: dict[str, object], status: str) -> None:
    assert _status(_five(**changes)) == status


@pytest.mark.parametrize(
    ("counted", "status"),
    [(8, "fail"), (9, "pass"), (15, "pass"), (21, "pass"), (22, "warn")],  # 15 claimed, three answers: 6 to spare
)
def test_the_servers_own_counter_is_compared_with_a_slack_per_answer(counted: int, status: str) -> None:
    assert _status(_five(), _five(), _five(), counted=counted) == status


def test_an_interval_lies_around_the_mean() -> None:
    # Of 10 and 12: mean 11, standard deviation sqrt(2), over the root of two repetitions 1; t is 12.706.
    assert mean_interval((10.0, 12.0)) == pytest.approx((-1.706, 23.706), abs=0.01)
    # Student's t for two degrees of freedom is 4.303, of five 2.571; the deviations are 2 and 1.8708.
    assert mean_interval((10.0, 12.0, 14.0)) == pytest.approx(
        (12 - 4.303 * 2 / 3**0.5, 12 + 4.303 * 2 / 3**0.5), abs=0.01
    )
    assert mean_interval((1, 2, 3, 4, 5, 6)) == pytest.approx((3.5 - 1.963, 3.5 + 1.963), abs=0.01)
    assert mean_interval((10.0,)) is None


def _page(*pairs: tuple[str, object]) -> str:
    lines = [f'lmdeploy:{name}_tokens_total{{engine="0"}} {value}' for name, value in pairs]
    return "\n".join(["# TYPE lmdeploy:prompt_tokens_total counter", *lines, "lmdeploy:running 3", ""])


@pytest.mark.parametrize(
    ("page", "counted"),
    [
        (_page(("prompt", 3), ("generation", 4)), Counters(3, 4)),
        (_page(("prompt", 3), ("generation", 4), ("prompt", 10), ("generation", "1.5e2")), Counters(13, 154)),
        (_page(("prompt", 0), ("generation", 0)), Counters(0, 0)),
        (_page(("prompt", 2**53), ("generation", 1)), Counters(2**53, 1)),
        (_page(("prompt", 2**54), ("generation", 1)), None),
        (_page(("prompt", 3), ("generation", -1)), None),
        (_page(("prompt", 3), ("generation", "NaN")), None),
        (_page(("prompt", 3), ("generation", "many")), None),
        (_page(("prompt", 3)), None),
        ("", None),
    ],
)
def test_the_servers_counters_are_sums_over_its_engines_or_none(page: str, counted: Counters | None) -> None:
    assert read_counters(page) == counted


def test_what_was_counted_meanwhile_is_the_difference() -> None:
    assert Counters(10, 50).since(Counters(3, 20)) == Counters(7, 30)
