"""The audit says what it found, and what it could not look at; the threat model names tests that exist."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import audit
import hostile
import pytest

ROOT = Path(__file__).parents[1]
ACCEPTED: dict[str, object] = {
    "accepted": [{"id": "CVE-1", "reason": "not reached"}],
    "only_shown": [{"lock": "old.txt", "reason": "old"}],
    "unknown_to_services": [{"package": "deploytk", "reason": "ours"}],
}


def _found(*ids: str, aliases: tuple[str, ...] = ()) -> dict[str, object]:
    vulnerabilities = [{"id": one, "aliases": list(aliases)} for one in ids]
    return {"name": "torch", "version": "2.5.0", "vulns": vulnerabilities}


@pytest.mark.parametrize(
    ("what", "dependencies", "exit_code", "text"),
    [
        ("app.txt", [_found()], 0, "nothing open"),
        ("app.txt", [_found("CVE-2")], 1, "torch 2.5.0 CVE-2"),
        ("app.txt", [_found("CVE-1")], 0, "nothing open"),
        ("app.txt", [_found("PYSEC-9", aliases=("CVE-1",))], 0, "nothing open"),
        ("app.txt", [_found("CVE-1", "CVE-2")], 1, "CVE-2"),
        ("old.txt", [_found("CVE-2")], 0, "1 findings, shown only (old)"),
        ("app.txt", [_found(), {"name": "x", "skip_reason": "not found"}], 75, "1 of 2 packages were skipped: x"),
        ("app.txt", [_found("CVE-2"), {"name": "x", "skip_reason": "not found"}], 1, "CVE-2"),
        ("app.txt", [{"name": "deploytk", "skip_reason": "not found"}], 0, "nothing open"),
    ],
)
def test_what_was_skipped_is_never_called_good(
    what: str, dependencies: list[dict[str, object]], exit_code: int, text: str
) -> None:
    verdict = audit.judged(what, dependencies, ACCEPTED)

    assert (verdict.exit_code, text in str(verdict)) == (exit_code, True)


def _program(place: Path, name: str, script: str) -> None:
    program = place / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("workflows", "packages", "exit_code", "said"),
    [
        ("exit 0", "echo '{\"dependencies\": []}'", 0, "app.txt: good"),
        ("echo unpinned-uses; exit 14", "echo '{\"dependencies\": []}'", 1, "workflows: OPEN: unpinned-uses"),
        ("exit 0", "echo 'no such host' >&2; exit 1", 75, "app.txt: NOT AUDITED: no vulnerability service"),
        ("exit 14", "exit 1", 1, "app.txt: NOT AUDITED"),
    ],
)
def test_the_exit_code_is_that_of_the_worst(
    workflows: str,
    packages: str,
    exit_code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _program(tmp_path, "zizmor", workflows)
    _program(tmp_path, "pip-audit", packages)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    assert audit.main() == exit_code
    assert said in capsys.readouterr().out


def test_a_program_that_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert audit.main() == 75
    assert "zizmor is not installed" in capsys.readouterr().out


def test_whatever_is_accepted_has_a_reason_and_a_file() -> None:
    accepted = audit.tomllib.loads(audit.ACCEPTED.read_text())
    locks = {path.name for path in (ROOT / "images" / "requirements").glob("*.txt")}

    assert all(len(one["reason"]) > 5 for kind in accepted.values() for one in kind)
    assert {one["lock"] for one in accepted["only_shown"]} <= locks


def test_every_action_is_pinned_by_its_commit() -> None:
    files = [ROOT / "action.yml", *(ROOT / ".github").rglob("*.yml")]
    used = [line.strip() for path in files for line in path.read_text().splitlines() if " uses: " in line]
    ours = r"\./deploytk|\$/\.github/workflows/[\w-]+\.yml"

    assert used
    for line in used:
        assert re.fullmatch(rf"(- )?uses: ({ours}|[\w./-]+@[0-9a-f]{{40}} # v\d+\.\d+\.\d+)", line), line


def test_the_threat_model_names_tests_that_exist() -> None:
    rows = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(), f"{file}::{test}"


def test_every_hostile_suite_is_there_and_counted() -> None:
    files = [file for suite in hostile.SUITES.values() for file in suite]
    report = """<testsuites><testsuite>
        <testcase classname="tests.test_artifact_fuzz" time="1.5"/>
        <testcase classname="tests.test_hostile_clients" name="test_a"><properties><property name="inputs" value="60"/>
        </properties></testcase>
        <testcase classname="" name="tests.test_hostile_clients"><skipped/></testcase>
        <testcase classname="tests.test_hostile_clients" name="test_c"><failure message="Failed: Timeout (&gt;120.0s)"/>
        </testcase>
        <testcase classname="tests.test_credentials" name="test_no_token_leaves"><failure message="x"/></testcase>
        <testcase classname="tests.test_bound"><error message="x">Traceback (most recent call last)</error></testcase>
        </testsuite></testsuites>"""
    output = "tests/test_artifact_fuzz.py::test_x:\n    - 60 passing, 0 failing, and 3 invalid test cases\n"

    counts = hostile.counted(report, output)

    assert [file for file in files if not (ROOT / "tests" / f"{file}.py").is_file()] == []
    assert len(files) == len(set(files))
    assert {path.stem for path in (ROOT / "tests").glob("test_*.py") if re.search("hostile|lying", path.stem)} <= {
        *files
    }
    # One case that Hypothesis ran 60 times; 60 + 1 inputs in three cases, one skipped, one that hangs.
    assert counts["models"] == hostile.Count(cases=1, inputs=60, seconds=1.5)
    assert counts["clients of the app"] == hostile.Count(cases=3, inputs=61, skipped=1, broken=1, hangs=1)
    assert counts["who asks for tokens"] == hostile.Count(cases=1, inputs=1, broken=1, leaks=1)
    assert counts["servers that smoke and bench ask"] == hostile.Count(cases=1, inputs=1, broken=1, tracebacks=1)
    assert "| models | 1 | 60 | 0 | 0 | 0 | 0 | 0 | 2 |" in hostile.table(counts)
