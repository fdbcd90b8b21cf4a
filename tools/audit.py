"""Known vulnerabilities and unsafe workflows: python tools/audit.py

pip-audit over every locked requirement and this environment, zizmor over all that GitHub runs. What is accepted, and
why, stands in .ci/audit.toml. Ends with 0 when all was audited and nothing is open, 1 when something is, 75 when
something could not be audited: no vulnerability service is reached, or a program is not installed. That is never
called good.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ACCEPTED = ROOT / ".ci" / "audit.toml"
LOCKS = (ROOT / "images" / "requirements", ROOT / ".ci" / "locks")
_TIMEOUT_S = 600
_OPEN, _NOT_AUDITED = 1, 75


@dataclass(frozen=True)
class Verdict:
    what: str
    exit_code: int
    text: str

    def __str__(self) -> str:
        word = {0: "good", _OPEN: "OPEN", _NOT_AUDITED: "NOT AUDITED"}[self.exit_code]
        return f"{self.what}: {word}: {self.text}"


def main() -> int:
    accepted = tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))
    locks = [path for place in LOCKS for path in sorted(place.glob("*.txt"))]
    codes = set()
    for verdict in _verdicts(locks, accepted):
        print(verdict, flush=True)  # noqa: T201
        codes.add(verdict.exit_code)
    return _OPEN if _OPEN in codes else max(codes)


def _verdicts(locks: list[Path], accepted: dict[str, object]) -> Iterator[Verdict]:
    yield workflows()
    first = requirements(locks[0], accepted)
    yield first
    if first.exit_code == _NOT_AUDITED:  # asking for 700 packages more would take minutes and say the same
        yield Verdict(f"{len(locks) - 1} more locks and this environment", _NOT_AUDITED, "for the same reason")
        return
    yield from (requirements(lock, accepted) for lock in locks[1:])
    yield environment(accepted)


def workflows() -> Verdict:
    strict = ["--offline", "--no-progress", "--strict-collection", "--persona", "auditor", "--format", "plain"]
    config = ["--config", str(ROOT / ".github" / "zizmor.yml")]
    places = [str(ROOT), *(str(path) for path in (ROOT / "examples").iterdir())]
    done = _run(["zizmor", *strict, *config, *places])
    if done is None:
        return Verdict("workflows", _NOT_AUDITED, "zizmor is not installed")
    return Verdict("workflows", _OPEN if done.returncode else 0, done.stdout.strip() or "no findings")


def requirements(lock: Path, accepted: dict[str, object]) -> Verdict:
    return _audited(lock.name, ["--disable-pip", "--requirement", str(lock)], accepted)


def environment(accepted: dict[str, object]) -> Verdict:
    return _audited("this environment", ["--local", "--skip-editable"], accepted)


def _audited(what: str, arguments: list[str], accepted: dict[str, object]) -> Verdict:
    done = _run(["pip-audit", "--progress-spinner", "off", "--format", "json", "--timeout", "30", *arguments])
    if done is None:
        return Verdict(what, _NOT_AUDITED, "pip-audit is not installed")
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Verdict(what, _NOT_AUDITED, f"no vulnerability service can be reached: {last[:200]}")
    return judged(what, dependencies, accepted)


def judged(what: str, dependencies: list[dict[str, object]], accepted: dict[str, object]) -> Verdict:
    """What pip-audit found. Without a service it skips all packages and ends with 0: that is no good end."""
    ids = {str(one["id"]) for one in _tables(accepted, "accepted")}
    shown = {str(one["lock"]): str(one["reason"]) for one in _tables(accepted, "only_shown")}
    own = {str(one["package"]) for one in _tables(accepted, "unknown_to_services")}
    skipped = [str(one["name"]) for one in dependencies if "skip_reason" in one and one["name"] not in own]
    found = [
        f"{one['name']} {one['version']} {vulnerability['id']}"
        for one in dependencies
        for vulnerability in one.get("vulns") or ()  # type: ignore[attr-defined]
        if not ids & {vulnerability["id"], *vulnerability.get("aliases", ())}
    ]
    if found and what not in shown:
        return Verdict(what, _OPEN, "; ".join(found))
    if skipped:
        names = ", ".join(skipped[:3]) + (" ..." if len(skipped) > 3 else "")
        return Verdict(what, _NOT_AUDITED, f"{len(skipped)} of {len(dependencies)} packages were skipped: {names}")
    if found:
        return Verdict(what, 0, f"{len(found)} findings, shown only ({shown[what]}): {'; '.join(found)}")
    return Verdict(what, 0, f"{len(dependencies)} packages, nothing open")


def _tables(accepted: dict[str, object], name: str) -> list[dict[str, object]]:
    return list(accepted.get(name) or ())  # type: ignore[call-overload]


def _run(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    beside = Path(sys.executable).with_name(command[0])
    program = str(beside) if beside.is_file() else shutil.which(command[0])
    if program is None:
        return None
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
