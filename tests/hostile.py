"""Runs every hostile suite and counts: python tests/hostile.py

A case is a test with one of its inputs. A test that sends many says how many (`record_property("inputs", ...)`), and
what Hypothesis makes up is counted as well. Whatever is wrong fails the test that looks for it and is `broken`; of
those a hang is what a time limit ended, a traceback what has one, a leak what is about tokens and keys.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree  # of our own file
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SUITES = {
    "models": (
        "test_artifact_fuzz",
        "test_artifact_pickles",
        "test_artifact_bad_input",
        "test_odd_numbers",
        "test_chat_template_limits",
        "test_model_code",
        "test_remote_code",
        "test_model_contents",
    ),
    "bundles and manifests": ("test_bundle_trust", "test_manifest"),
    "clients of the app": ("test_hostile_clients", "test_app_door", "test_app_places"),
    "servers that smoke and bench ask": ("test_hostile_servers", "test_bound"),
    "hubs and registries": (
        "test_lying_huggingface",
        "test_lying_local",
        "test_lying_modelscope",
        "test_lying_openxlab",
        "test_lying_registry",
        "test_foreign_files",
        "test_foreign_tags",
        "test_signed_images",
        "test_signing",
    ),
    "who asks for tokens": ("test_credentials", "test_openxlab_credentials", "test_registry_credentials"),
    "what a terminal would obey": ("test_terminal",),
    "bases that would not start": ("test_image_entry", "test_odd_bases"),
}

_SLOWEST_FIRST = (
    "model_code",
    "foreign_files",
    "hostile_clients",
    "hostile_servers",
    "lying_openxlab",
    "remote_code",
    "lying_huggingface",
    "signing",
    "foreign_tags",
    "signed_images",
    "openxlab_credentials",
    "registry",
)
_LEAKS = "token|key|login|secret|credential|password|nowhere"


@dataclass(frozen=True)
class Count:
    cases: int = 0  # tests, each with one of its inputs
    inputs: int = 0  # what was tried: those that a case says it sends, what Hypothesis made up, else one a case
    skipped: int = 0
    broken: int = 0
    tracebacks: int = 0  # of the broken
    hangs: int = 0
    leaks: int = 0
    seconds: float = 0.0  # of the cases, side by side

    def __add__(self, other: Count) -> Count:
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Count(*(a + b for a, b in pairs))


def main() -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place, "report.xml")
        # Most of what is started lives for less than to compile it again takes.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            _command(report), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            print(done.stdout, flush=True)  # noqa: T201
        if not report.is_file():
            return 1
        counts = counted(report.read_text(encoding="utf-8"), done.stdout)
    total = sum(counts.values(), Count())
    print(table({**counts, "all": total}))  # noqa: T201
    print(f"\n{time.monotonic() - started:.0f} s on {os.cpu_count()} cores")  # noqa: T201
    return 1 if done.returncode or total.broken or not all(count.cases for count in counts.values()) else 0


def _command(report: Path) -> list[str]:
    """One run for all: two workers for each core, as many wait; a file stays whole, with what it starts."""
    workers = min(2 * (os.cpu_count() or 1), 8)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-show-statistics"]
    files = [f"tests/{file}.py" for suite in SUITES.values() for file in suite]
    slow_first = sorted(files, key=_place)
    return [*command, f"--junitxml={report}", "-n", str(workers), "--dist", "loadfile", *slow_first]


def _place(file: str) -> int:
    return next((place for place, name in enumerate(_SLOWEST_FIRST) if name in file), len(_SLOWEST_FIRST))


def counted(report: str, output: str) -> dict[str, Count]:
    """What pytest's report in JUnit's form and Hypothesis' statistics say of every suite."""
    suites = {file: name for name, files in SUITES.items() for file in files}
    counts = dict.fromkeys(SUITES, Count())
    for case in ElementTree.fromstring(report).iter("testcase"):
        counts[suites[_file(case)]] += _of(case)
    for file, made in _made_up(output).items():
        counts[suites[file]] += Count(inputs=made)
    return counts


def _file(case: ElementTree.Element) -> str:
    # A file that is skipped as a whole has its name where others have that of a test.
    return (case.get("classname") or case.get("name", "")).split(".")[-1]


def _of(case: ElementTree.Element) -> Count:
    ends = {child.tag: f"{child.get('message') or ''}\n{child.text or ''}" for child in case}
    said = ends.get("failure", "") + ends.get("error", "")
    is_broken, name = bool({"failure", "error"} & ends.keys()), case.get("name", "")
    inputs = [int(one.get("value", "1")) for one in case.iter("property") if one.get("name") == "inputs"]
    return Count(
        cases=1,
        inputs=0 if "skipped" in ends else sum(inputs) or 1,
        skipped=int("skipped" in ends),
        broken=int(is_broken),
        tracebacks=int(is_broken and "Traceback (most recent call last)" in said),
        hangs=int(is_broken and "Timeout" in said),
        leaks=int(is_broken and bool(re.search(_LEAKS, name))),
        seconds=float(case.get("time", "0")),
    )


def _made_up(output: str) -> dict[str, int]:
    """File -> what Hypothesis made up beyond the case itself."""
    found: dict[str, int] = {}
    file = ""
    for line in output.splitlines():
        named = re.match(r"tests/(\w+)\.py::", line)
        file = named[1] if named else file
        passing = re.search(r"- (\d+) passing", line)
        if passing and file:
            found[file] = found.get(file, 0) + int(passing[1]) - 1
    return found


def table(counts: Mapping[str, Count]) -> str:
    names = [field.name for field in fields(Count)]
    rows = [f"| against | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for suite, count in counts.items():
        figures = [getattr(count, name) for name in names]
        rows.append(f"| {suite} | {' | '.join(f'{figure:.0f}' for figure in figures)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
