"""Runs every hostile suite and counts: python tools/hostile.py

A case is a test with one of its inputs; what Hypothesis makes up is counted as well. A hang is a test that its time
limit ended. A traceback, a leaked token or a wrong word fails the test that looks for it: all are in `broken`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree  # of our own file
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SUITES = {
    "models": (
        "test_artifact_fuzz",
        "test_artifact_pickles",
        "test_artifact_bad_input",
        "test_chat_template_limits",
        "test_model_code",
    ),
    "bundles and manifests": ("test_bundle_trust", "test_manifest"),
    "clients of the app": ("test_hostile_clients", "test_app_door"),
    "servers that smoke and bench ask": ("test_hostile_servers", "test_bound"),
    "hubs and registries": (
        "test_lying_huggingface",
        "test_lying_local",
        "test_lying_modelscope",
        "test_lying_openxlab",
        "test_lying_registry",
        "test_registry_answers",
    ),
    "who asks for tokens": ("test_credentials", "test_openxlab_credentials", "test_registry_credentials"),
    "what a terminal would obey": ("test_terminal",),
    "bases that would not start": ("test_image_entry",),
}


@dataclass(frozen=True)
class Count:
    cases: int
    generated: int  # inputs that Hypothesis made up
    skipped: int
    broken: int
    hangs: int  # of the broken
    seconds: float

    def __add__(self, other: Count) -> Count:
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__)
        return Count(*(a + b for a, b in pairs))


def main() -> int:
    total = Count(0, 0, 0, 0, 0, 0)
    print("| against | cases | inputs made up | skipped | broken | hangs | seconds |", flush=True)  # noqa: T201
    print("|---|---|---|---|---|---|---|", flush=True)  # noqa: T201
    for name, files in SUITES.items():
        count = run(files)
        total += count
        _show(name, count)
    _show("all", total)
    return 1 if total.broken or not total.cases else 0


def run(files: tuple[str, ...]) -> Count:
    with tempfile.TemporaryDirectory() as place:
        report = Path(place, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-show-statistics"]
        command += [f"--junitxml={report}", *(f"tests/{file}.py" for file in files)]
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        seconds = time.monotonic() - started
        if not report.is_file():
            raise SystemExit(done.stdout + done.stderr)
        return counted(report.read_text(encoding="utf-8"), done.stdout, seconds)


def counted(report: str, output: str, seconds: float) -> Count:
    """What pytest's report in JUnit's form and Hypothesis' statistics say."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))  # noqa: S314 (our own)
    ends = [[(child.tag, child.get("message") or "") for child in case] for case in cases]
    broken = [end for end in ends if any(tag in ("failure", "error") for tag, _ in end)]
    hangs = [end for end in broken if any("Timeout" in message for _, message in end)]
    skipped = sum(any(tag == "skipped" for tag, _ in end) for end in ends)
    made = sum(int(number) for number in re.findall(r"- (\d+) passing", output))
    return Count(len(cases), made, skipped, len(broken), len(hangs), seconds)


def _show(name: str, count: Count) -> None:
    figures = (count.cases, count.generated, count.skipped, count.broken, count.hangs, f"{count.seconds:.0f}")
    print(f"| {name} | {' | '.join(map(str, figures))} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
