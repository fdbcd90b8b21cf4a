"""Texts that look like numbers, in headers, logs and files of others: a number or none, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from deploytk.app.refused import RefusedError
from deploytk.app.relay import parse_head
from deploytk.base.digits import whole_number
from deploytk.base.json import parse_json
from deploytk.image.registry.authorization import _token
from deploytk.image.registry.upload import _end_of_range, _number
from deploytk.modernize.tokens import token_ids
from deploytk.smoke.engine_log import parse_engine_log
from deploytk.workflow.read import _mib

ODD = ("\u00b2", "\u0661", "9" * 5000, "-1", "+1", "1_0", "1.5", "0x10", "", " 1")


def test_only_digits_of_ascii_and_as_many_as_a_count_has_are_a_number() -> None:
    assert [whole_number(text) for text in ODD] == [None] * len(ODD)
    assert [whole_number(text) for text in ("0", "007", "9" * 18, "9" * 19)] == [0, 7, 10**18 - 1, None]
    assert [whole_number(value) for value in (1, True, None, b"1", ["1"])] == [None] * 5


@pytest.mark.parametrize("text", ODD)
def test_a_header_of_a_registry_that_is_no_number_says_nothing(text: str) -> None:
    answer = httpx.Response(202, headers={"OCI-Chunk-Min-Length": text.encode(), "Range": f"0-{text}".encode()})

    assert _number(answer, "OCI-Chunk-Min-Length") is None
    assert _end_of_range(answer, 7) == 7


def test_a_token_for_longer_than_time_lasts_is_none() -> None:
    content = {"token": "t", "expires_in": 10**400}

    assert _token(httpx.Response(200, content=json.dumps(content))) is None


@pytest.mark.parametrize("text", [b"-5", b"1_0", b"x", "\u00b2".encode()])
def test_an_engine_whose_answer_has_no_length_that_can_be_is_refused(text: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: " + text + b"\r\n\r\n"

    with pytest.raises(RefusedError, match="answers no HTTP"):
        parse_head(head)


@pytest.mark.parametrize("text", ["1" + "0" * 400, "[" + "9" * 301 + "]", "-" + "9" * 300])
def test_json_of_others_holds_no_number_that_a_float_does_not(text: str) -> None:
    with pytest.raises(ValueError, match="hundreds of digits"):
        parse_json(text)


def test_the_numbers_of_tokens_are_numbers(tmp_path: Path) -> None:
    decoder = {number: {"content": f"<{at}>"} for at, number in enumerate(("9" * 5000, "\u0661", "12"))}
    place = tmp_path / "tokenizer_config.json"
    place.write_text(json.dumps({"added_tokens_decoder": decoder}))

    assert token_ids([place], ["<0>", "<1>", "<2>"]) == {"<2>": 12}


@pytest.mark.parametrize("text", ["1.2.3", "9" * 400, ".", "\u0661"])
def test_a_log_of_an_engine_with_odd_numbers_says_nothing(text: str) -> None:
    log = f"""
    Object cache budget: {text} MB from free {text} MB and ratio {text}
    slab_size {text}, object_size {text}, object_count {text}
    [TM][INFO] [BlockManager] block_size = {text} MB
    [BlockManager] max_block_count = {text}
    Warm-up for {text} tokens failed
    updated backend_config=TurbomindEngineConfig(session_len={text})
    """

    found = parse_engine_log(log)

    assert (found.session_len, found.problems) == (None, ())
    assert found.parser in (None, "object_cache", "block_manager")


def test_a_size_in_a_file_of_a_workflow_that_is_none_is_left_out() -> None:
    assert [_mib({"weights_bytes": value}, "weights_bytes") for value in ("\u00b2", "9" * 400, [], 2**20)] == [
        "", "", "", "1 MiB"
    ]  # fmt: skip
