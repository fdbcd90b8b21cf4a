"""What GitHub reads of this repository, held offline: schemas, zizmor, shellcheck, pins, rights, the example."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from steps import ROOT, blocks, load

from deploytk import __version__

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
EXAMPLE = ROOT / "examples" / "model-repository"
EXAMPLE_WORKFLOW = EXAMPLE / ".github" / "workflows" / "publish.yml"
ALL = ["action.yml", *(str(path.relative_to(ROOT)) for path in [*WORKFLOWS, EXAMPLE_WORKFLOW])]


def _program(name: str) -> str:
    """A program of the group `test` in pyproject.toml."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        if os.environ.get("CI") and sys.version_info >= (3, 11):  # zizmor has no wheels for 3.10
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"needs {name}")
    return found


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", [one for one in ALL if "workflows" in one]),
        ("github-actions", ["action.yml"]),
        ("dependabot", [".github/dependabot.yml"]),
        ("github-issue-forms", [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/feature.yml"]),
        ("github-issue-config", [".github/ISSUE_TEMPLATE/config.yml"]),
        ("citation-file-format", ["CITATION.cff"]),
        ("compose-spec", [".devcontainer/compose.yaml"]),
    ],
)
def test_every_file_has_the_shape_that_its_reader_wants(schema: str, files: list[str]) -> None:
    check = pytest.importorskip("check_jsonschema").main  # in this process: it takes a second to load

    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        check(["--builtin-schema", f"vendor.{schema}", *(str(ROOT / file) for file in files)])

    assert ended.value.code == 0, said.getvalue()


def _zizmor(*paths: str) -> subprocess.CompletedProcess[str]:
    config = ["--config", str(ROOT / ".github" / "zizmor.yml")]
    strict = ["--offline", "--no-progress", "--strict-collection", "--persona", "auditor", *config]
    return subprocess.run([_program("zizmor"), *strict, *paths], cwd=ROOT, capture_output=True, text=True)


def test_zizmor_at_its_strictest_finds_nothing() -> None:
    done = _zizmor(*ALL, ".github/dependabot.yml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "No findings to report" in done.stdout


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        (
            '"$DEPLOYTK" inspect --json -- "$MODEL"',
            '"$DEPLOYTK" inspect -- "${{ inputs.model }}"',
            "template-injection",
        ),
        ("@5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0", "@v7", "unpinned-uses"),
    ],
)
def test_zizmor_would_find_it(tmp_path: Path, before: str, after: str, finding: str) -> None:
    text = (ROOT / "action.yml").read_text()
    assert before in text
    (tmp_path / "action.yml").write_text(text.replace(before, after))

    done = _zizmor(str(tmp_path / "action.yml"))

    assert (done.returncode == 0, finding in done.stdout) == (False, True)


def test_shellcheck_has_no_word_on_any_script(tmp_path: Path) -> None:
    """GitHub runs them by bash -eo pipefail."""
    scripts = dict(blocks())
    for number, (name, script) in enumerate(scripts.items()):
        head = f"#!/usr/bin/env bash\n# {name}\nset -eo pipefail\n"
        (tmp_path / f"{number}.bash").write_text(head + re.sub(r"\$\{\{.*?\}\}", "expression", script) + "\n")

    files = sorted(str(path) for path in tmp_path.glob("*.bash"))
    own = [str(path) for path in (*ROOT.glob(".ci/*.sh"), ROOT / ".ci/run", *ROOT.glob("tests/clients/*.sh"))]
    done = subprocess.run([_program("shellcheck"), "--severity=style", *files, *own], capture_output=True, text=True)

    assert len(scripts) > 12
    assert done.returncode == 0, done.stdout


def _steps(content: Any) -> Iterator[dict[str, Any]]:
    jobs = content["jobs"].values() if "jobs" in content else [content["runs"]]
    for job in jobs:
        yield from job.get("steps", ())


@pytest.mark.parametrize("file", ALL)
def test_no_script_holds_an_expression_and_every_checkout_forgets_its_token(file: str) -> None:
    for step in _steps(load(file)):
        assert "${{" not in step.get("run", ""), step
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] == "false"


@pytest.mark.parametrize("file", [one for one in ALL if one != "action.yml"])
def test_every_job_has_only_the_rights_that_it_names_and_an_end(file: str) -> None:
    content = load(file)

    assert not content["permissions"], file
    for name, job in content["jobs"].items():
        assert job["permissions"], name
        assert "uses" in job or "timeout-minutes" in job, name


def test_an_identity_is_given_to_few_jobs() -> None:
    """What may sign or write is worth stealing: each such job is named here, and runs no code of a pull request."""
    allowed = {
        ("release.yml", "attest"): {"id-token", "attestations"},
        ("release.yml", "pypi"): {"id-token"},
        ("release.yml", "image"): {"packages", "id-token", "attestations"},
        ("release.yml", "release"): {"contents"},
        ("publish-model.yml", "release"): {"contents"},
        ("codeql.yml", "analyse"): {"security-events"},
    }
    found = {
        (path.name, name): writing
        for path in WORKFLOWS
        for name, job in load(str(path.relative_to(ROOT)))["jobs"].items()
        if (writing := {right for right, level in job["permissions"].items() if level == "write"})
    }

    assert found == allowed


def test_pypi_is_published_to_from_the_top_level_and_what_was_checked() -> None:
    """Trusted publishing knows no reusable workflow; nothing is built again behind the checks."""
    jobs = load(".github/workflows/release.yml")["jobs"]

    assert jobs["pypi"]["environment"]["name"] == "pypi"
    assert [step["uses"].split("@")[0] for step in jobs["pypi"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert (jobs["pypi"]["needs"], {*jobs["attest"]["needs"]}) == ("attest", {"build", "check"})


def test_what_becomes_known_as_vulnerable_is_asked_for_every_week_too() -> None:
    weekly, pushed = load(".github/workflows/audit.yml"), load(".github/workflows/check.yml")

    assert [entry["cron"].split()[4] for entry in weekly["on"]["schedule"]] == ["3"]
    assert weekly["jobs"]["audit"] == pushed["jobs"]["audit"]
    assert weekly["jobs"]["audit"]["steps"][-1]["run"] == "make audit"


def test_every_python_that_the_package_claims_is_tested() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    jobs = load(".github/workflows/check.yml")["jobs"]
    tested = {*jobs["python"]["strategy"]["matrix"]["python"], "3.11"}  # the job `check` runs on 3.11

    assert {*claimed} == tested == {"3.10", "3.11", "3.12", "3.13", "3.14"}


def test_the_workflow_for_models_hands_on_what_it_is_given() -> None:
    workflow, action = load(".github/workflows/publish-model.yml"), load("action.yml")
    called = workflow["on"]["workflow_call"]
    [step] = [step for step in workflow["jobs"]["publish"]["steps"] if step.get("uses") == "./deploytk"]

    own = {"runner", "timeout-minutes"}
    assert {*step["with"]} == {*called["inputs"]} - own
    assert {*step["with"]} <= {*action["inputs"]}
    assert {*step["env"]} == {*called["secrets"]}
    assert {*called["outputs"]} == {*workflow["jobs"]["publish"]["outputs"]} <= {*action["outputs"]}


def test_the_example_is_one_file_of_twenty_lines_that_calls_this_version() -> None:
    content = load(str(EXAMPLE_WORKFLOW.relative_to(ROOT)))
    [job] = content["jobs"].values()
    called = load(".github/workflows/publish-model.yml")["on"]["workflow_call"]

    assert len(EXAMPLE_WORKFLOW.read_text().splitlines()) <= 20
    assert [path for path in (EXAMPLE / ".github").rglob("*") if path.is_file()] == [EXAMPLE_WORKFLOW]
    assert job["uses"] == f"deploytk/deploytk/.github/workflows/publish-model.yml@v{__version__}"
    assert {name for name, one in called["inputs"].items() if one.get("required") == "true"} <= {*job["with"]}
    assert {*job["with"]} <= {*called["inputs"]}
    assert {*job["secrets"]} <= {*called["secrets"]}
    assert content["on"]["push"] == {"tags": ["v*"]}


@pytest.mark.parametrize("is_there", [True, False])
def test_the_report_goes_to_the_release_of_the_tag(tmp_path: Path, is_there: bool) -> None:
    [step] = [step for step in load(".github/workflows/publish-model.yml")["jobs"]["release"]["steps"] if "run" in step]
    (tmp_path / "report").mkdir()
    for name in ("summary.md", "report.json", "report.md", "plan.json"):
        (tmp_path / "report" / name).touch()
    program = tmp_path / "gh"
    program.write_text(f'#!/bin/sh\n[ "$2" != view ] || exit {int(not is_there)}\necho "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TAG": "v1;$(touch pwned)"}

    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", step["run"]], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    files = "report/summary.md report/report.json report/report.md"
    expected = {
        True: f"release upload --clobber -- v1;$(touch pwned) {files}\n",
        False: "release create --verify-tag --notes-file=report/summary.md -- v1;$(touch pwned) " + files + "\n",
    }
    assert (done.returncode, done.stdout) == (0, expected[is_there])
    assert not (tmp_path / "pwned").exists()


def test_a_bug_report_asks_what_works_on_the_machine() -> None:
    for form in ("bug", "feature"):
        assert "deploytk doctor --json" in (ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text()


def test_updates_wait_a_week() -> None:
    for update in load(".github/dependabot.yml")["updates"]:
        assert int(update["cooldown"]["default-days"]) >= 7


def test_the_development_container_names_a_service_a_directory_and_a_target_that_exist() -> None:
    """Its schema refers to others on the web: what it names is looked up here."""
    place = ROOT / ".devcontainer"
    settings = json.loads((place / "devcontainer.json").read_text())
    service = load(f".devcontainer/{settings['dockerComposeFile']}")["services"][settings["service"]]

    program, target = settings["postCreateCommand"].split()
    mounted = [volume.split(":")[1] for volume in service["volumes"]]
    assert settings["workspaceFolder"] in mounted
    assert program == "make"
    assert f"\n{target.replace('.venv', '$(VENV)')}:" in (ROOT / "Makefile").read_text()
    assert settings["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].startswith(mounted[0])


def test_an_editor_can_build_the_development_container() -> None:
    """The program that editors use writes the Dockerfile anew, elsewhere: a .dockerignore beside ours is not found."""
    place = ROOT / ".devcontainer"
    service = load(".devcontainer/compose.yaml")["services"]["dev"]
    copied = re.findall(r"^COPY (\S+) ", (place / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (place / service["build"]["context"] / ".dockerignore").read_text().splitlines()

    assert not list(place.glob("*.dockerignore"))
    assert copied == [".ci/packages"]
    assert ignored[0] == "*"
    assert {f"!{one}" for one in copied} <= {*ignored}


def test_all_of_ci_runs_in_the_development_container() -> None:
    """Ubuntu, which runners have, has no package of Chromium, and a docker.io that goes with no other Docker."""
    [step] = [step for step in load(".github/workflows/check.yml")["jobs"]["check"]["steps"] if "run" in step]
    service = load(".devcontainer/compose.yaml")["services"]["dev"]

    assert step["run"] == "docker compose --file .devcontainer/compose.yaml run --build --rm --env CI dev .ci/run"
    assert service["privileged"] == "true"
    assert {"..:/workspace", "tmp:/tmp"} <= {*service["volumes"]}
