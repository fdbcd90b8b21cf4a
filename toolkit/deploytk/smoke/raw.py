"""Keeps the raw data of a measurement as JSON lines, from which every figure can be computed again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

from deploytk.base.errors import UsageError
from deploytk.base.files import read_bounded, write_text
from deploytk.base.json import parse_plain, plain, to_json
from deploytk.base.terminal import one_line
from deploytk.base.typed import type_adapter
from deploytk.smoke.budget import Budget
from deploytk.smoke.judge import Evidence
from deploytk.smoke.record import Record

SCHEMA = "deploytk.requests/1"

_LARGEST_RAW_BYTES = 2**30


def write_raw(evidence: Evidence, budget: Budget, path: Path) -> None:
    """One line with everything but the requests, then one line per request."""
    facts = {name: value for name, value in _fields(evidence).items() if name != "records"}
    head = {"schema": SCHEMA, "evidence": plain(facts), "budget": plain(budget)}
    lines = [head, *(plain(record) for record in evidence.records)]
    write_text(path, "".join(to_json(line) + "\n" for line in lines))


def read_raw(path: Path) -> tuple[Evidence, Budget]:
    """What `write_raw` wrote; raises UsageError for anything else."""
    from pydantic import ValidationError

    try:
        content = read_bounded(path, _LARGEST_RAW_BYTES).split(b"\n")
        head, *lines = (cast(dict[str, Any], parse_plain(line)) for line in content if line.strip())
        if head["schema"] != SCHEMA:
            raise ValueError("its schema is another one")
        records = type_adapter(tuple[Record, ...]).validate_python(lines)
        evidence = type_adapter(Evidence).validate_python({**head["evidence"], "records": ()})
        budget = type_adapter(Budget).validate_python(head["budget"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        reason = one_line(str(error), 200)
        raise UsageError(
            f"{path} holds no raw data of a measurement: {reason}", hint=f"name a file that starts with {SCHEMA!r}"
        ) from error
    return dataclasses.replace(evidence, records=records), budget


def _fields(evidence: Evidence) -> dict[str, object]:
    return {field.name: getattr(evidence, field.name) for field in dataclasses.fields(evidence)}
