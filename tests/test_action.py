"""The action, run block by block as GitHub's runner does: with a stand-in for deploytk, and with deploytk itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from conftest import MODELS
from steps import ROOT, Runner, load

from deploytk import __version__

DEPLOYTK = Path(sys.executable).with_name("deploytk")
HOSTILE = [
    "$(touch pwned)",
    "`touch pwned`",
    '"; touch pwned; "',
    "'; touch pwned #",
    "a\n::set-output name=url::evil\n::error::mine",
    "a\nurl=evil\nurl<<X\nevil\nX",
    "${{ github.token }}",
    "--help",
    "-h",
    "a b\tc  *  ~ $HOME \\",
]
FREE = [  # inputs that take any text; the others are switches of the action itself
    name
    for name in load("action.yml")["inputs"]
    if name not in ("public", "smoke", "version", "publish-options", "image-options", "quantize-options")
]


def _stand_in(place: Path, script: str = "") -> Path:
    """Writes the words that it is called with, parted by NUL, into a file per command."""
    program = place / "stand-in"
    program.write_text(f'#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done >> "{place}/$1.words"\n{script}\n')
    program.chmod(0o755)
    return program


def _words(place: Path, command: str) -> list[str]:
    return (place / f"{command}.words").read_text().split("\0")[:-1]


def _prepared(place: Path, program: Path, **inputs: str) -> Runner:
    """The action behind its first step, which installs."""
    (place / "report").mkdir()
    runner = Runner(place, {name.replace("_", "-"): value for name, value in inputs.items()})
    outputs = {"deploytk": program, "report": place / "report", "bundle": place / "bundle"}
    runner.values |= {f"steps.prepare.outputs.{name}": str(value) for name, value in outputs.items()}
    runner.values["steps.prepare.outcome"] = "success"
    return runner


def test_every_input_reaches_the_command_that_it_is_for(tmp_path: Path) -> None:
    given = {name.replace("-", "_"): f"the {name}" for name in FREE}
    more = {"public": "true", "publish_options": "--app\n\n--app-hardware=t4 small\n", "image_options": "--locked"}
    more["quantize_options"] = "--calib=my texts\n"

    runner = _prepared(tmp_path, _stand_in(tmp_path), **given, **more).run(skipping=("Install deploytk",))

    bundle, report = str(tmp_path / "bundle"), tmp_path / "report"
    assert {*runner.codes.values()} == {0}
    assert _words(tmp_path, "inspect") == ["inspect", "--json", "--", "the model"]
    assert _words(tmp_path, "quantize") == [
        *["quantize", "--json", "--method=the quantize", "--output=the model-the quantize", "--calib=my texts"],
        *["--", "the model"],
    ]
    assert _words(tmp_path, "plan") == ["plan", "--json", "--gpu=the gpu", "--", "the model-the quantize"]
    assert _words(tmp_path, "package") == [
        *["package", "--json", f"--output={bundle}", "--gpu=the gpu", "--name=the name"],
        *["--base-model=the base-model", "--license=the license", "--", "the model-the quantize"],
    ]
    assert _words(tmp_path, "build") == [
        *["build", "--json", "--tag=the tag", "--output=the image-output", "--locked", "--sign=the sign", "--", bundle]
    ]
    assert _words(tmp_path, "publish") == [
        *["publish", "--json", "--target=the target", "--repo=the repo"],
        *["--app", "--app-hardware=t4 small", "--public", "--sign=the sign", "--", bundle],
    ]
    assert _words(tmp_path, "smoke") == [
        *["smoke", "--json", f"--output={report}/report.json", "--engine=the engine", "--budget=the budget"],
        *["--max-vram-mib=the max-vram-mib", "--max-ttft-ms=the max-ttft-ms", "--max-tpot-ms=the max-tpot-ms"],
        *["--min-tokens-per-s=the min-tokens-per-s", "--", bundle],
    ]
    assert _words(tmp_path, "summary") == ["summary", "--github", "--", str(report)]


def test_what_is_not_asked_for_is_not_done(tmp_path: Path) -> None:
    runner = _prepared(tmp_path, _stand_in(tmp_path), model="m", smoke="false").run(skipping=("Install deploytk",))

    assert [*runner.codes] == ["Inspect", "Plan", "Package", "Summary"]
    assert _words(tmp_path, "plan") == ["plan", "--json", "--", "m"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_input_is_run_or_taken_for_an_option_or_an_output(tmp_path: Path, text: str) -> None:
    program = _stand_in(tmp_path, script=f"cat <<'END' >&2\n{text}\n::error::of a model\nEND")

    runner = _prepared(tmp_path, program, **{name.replace("-", "_"): text for name in FREE})
    runner.run(skipping=("Install deploytk",))

    assert {*runner.codes.values()} == {0}
    assert not (tmp_path / "pwned").exists()
    sources = {"inspect": text, "quantize": text, "plan": f"{text}-{text}", "package": f"{text}-{text}"}
    for command in (*sources, "build", "publish", "smoke"):
        words = _words(tmp_path, command)
        end = words.index("--")
        assert words[1] == "--json"
        assert all(word.startswith("--") for word in words[1:end])
        assert words[end + 1 :] == [sources.get(command, str(tmp_path / "bundle"))]
    assert {*runner.outputs()} == {"report", "bundle", "deploytk"}


def test_before_anything_of_a_model_is_printed_the_runner_is_told_to_obey_nothing() -> None:
    """https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#stopping-and-starting-workflow-commands"""
    scripts = {step["name"]: step["run"] for step in load("action.yml")["runs"]["steps"] if "run" in step}

    for name in ("Inspect", "Quantize", "Plan", "Package", "Build", "Publish", "Smoke test"):
        assert scripts[name].startswith('echo "::stop-commands::$(cat /proc/sys/kernel/random/uuid)"\n')


def test_every_step_calls_deploytk_and_no_script_holds_an_expression() -> None:
    for step in load("action.yml")["runs"]["steps"]:
        if "run" in step:
            assert "${{" not in step["run"]
            assert '"$DEPLOYTK" ' in step["run"] or step["name"] == "Install deploytk"


def test_after_a_failure_nothing_more_is_done_and_the_summary_is_told_all_the_same(tmp_path: Path) -> None:
    program = _stand_in(tmp_path, script='[ "$1" != package ]')

    runner = _prepared(tmp_path, program, model="m", target="local").run(skipping=("Install deploytk",))

    assert runner.codes == {"Inspect": 0, "Plan": 0, "Package": 1, "Summary": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """The tiny model, from a directory with an evil name, published to a directory by deploytk itself."""
    place = tmp_path_factory.mktemp("job")
    model = place / "we\"ird $(touch pwned) '`touch pwned`'\n::error::mine"
    shutil.copytree(MODELS / "hf-awq", model)
    wishes = {"model": model.name, "target": "local", "repo": "hub $(touch pwned)", "license": "apache-2.0"}
    return _prepared(place, DEPLOYTK, **wishes, smoke="false").run(skipping=("Install deploytk",))


@pytest.mark.services
def test_deploytk_itself_publishes_and_says_where(whole: Runner) -> None:
    outputs = whole.outputs()

    assert {*whole.codes.values()} == {0}, whole.log
    assert (Path(unquote(outputs["url"].removeprefix("file://"))) / "deploytk.json").is_file()
    assert outputs["digest"].startswith("sha256:")
    assert len(outputs["revision"]) == 64
    assert not (whole.place / "pwned").exists()


@pytest.mark.services
def test_the_page_of_the_job_tells_of_each_command(whole: Runner) -> None:
    rows = [line.split(" | ")[1] for line in whole.page().splitlines() if line.startswith("| ✅")]

    assert rows == ["inspect", "plan", "package", "publish"]
    assert (whole.place / "report" / "summary.md").read_text().strip() == whole.page().strip()


@pytest.mark.services
def test_what_deploytk_refuses_is_an_annotation(tmp_path: Path) -> None:
    runner = _prepared(tmp_path, DEPLOYTK, model="nowhere\n::error::mine").run(skipping=("Install deploytk",))

    annotations = [line for line in runner.log.splitlines() if line.startswith("::error")]
    assert runner.codes == {"Inspect": 1, "Summary": 0}
    assert len(annotations) == 1
    assert annotations[0].startswith("::error title=deploytk inspect::nowhere\\n::error::mine does not exist (")


@pytest.mark.services
def test_the_example_publishes_its_model_by_the_workflow_that_it_calls(tmp_path: Path) -> None:
    """Its inputs, through publish-model.yml into the action; to a directory, where it names a hub."""
    shutil.copytree(ROOT / "examples" / "model-repository", tmp_path / "repository")
    shutil.copytree(MODELS / "hf-awq", tmp_path / "repository" / "model")
    workflow = load(".github/workflows/publish-model.yml")
    declared = workflow["on"]["workflow_call"]["inputs"]
    [caller] = load("examples/model-repository/.github/workflows/publish.yml")["jobs"].values()
    given = {name: one.get("default", "") for name, one in declared.items()} | caller["with"]
    given |= {"target": "local", "repo": "hub", "smoke": "false"}
    [step] = [step for step in workflow["jobs"]["publish"]["steps"] if step.get("uses") == "./deploytk"]
    pattern = r"\$\{\{ inputs\.([\w-]+) \}\}"
    inputs = {name: re.sub(pattern, lambda found: given[found[1]], text) for name, text in step["with"].items()}

    runner = _prepared(tmp_path, DEPLOYTK, **inputs).run(skipping=("Install deploytk",))

    card = (tmp_path / "bundle" / "README.md").read_text()
    assert {*runner.codes.values()} == {0}, runner.log
    assert "base_model: internlm/internlm2-chat-7b" in card  # its deploytk.toml
    assert "license: apache-2.0" in card
    assert "A10" in (tmp_path / "report" / "plan.json").read_text()


def _python(place: Path) -> Path:
    """A Python whose environments have one that writes the words that it is called with."""
    python = _stand_in(place)
    code = '#!/bin/sh\nmkdir -p "$3/bin" && cp "{place}/stand-in" "$3/bin/python"\n'
    maker = place / "maker"
    maker.write_text(code.format(place=place))
    maker.chmod(0o755)
    assert python.is_file()
    return maker


def _installed(place: Path, **inputs: str) -> tuple[Runner, list[list[str]]]:
    maker = _python(place)
    runner = Runner(place, {"model": "m", **inputs})
    runner.values["steps.python.outputs.python-path"] = str(maker)
    others = tuple(step["name"] for step in runner.action["runs"]["steps"] if step.get("name", "").istitle())
    runner.run(skipping=(*others, "Smoke test"))
    calls = (place / "-m.words").read_text().split("-m\0pip\0")[1:] if (place / "-m.words").exists() else []
    return runner, [call.split("\0")[:-1] for call in calls]


def test_what_is_installed_is_locked_by_hash_and_built_without_the_network(tmp_path: Path) -> None:
    runner, calls = _installed(tmp_path, engine="cpu")

    assert runner.codes == {"Install deploytk": 0}
    assert [*calls[0][3:6], calls[0][-1]] == [
        *["--require-hashes", "--only-binary", ":all:"],
        str(ROOT / ".ci/locks/action.txt"),
    ]
    assert calls[1][3:] == ["--no-deps", "--no-build-isolation", str(ROOT)]
    assert calls[2][-1].startswith("torch==")
    outputs = runner.outputs()
    assert {*outputs} == {"report", "bundle", "deploytk"}
    assert Path(outputs["report"]).is_dir()


def test_a_key_is_kept_from_others_signs_and_is_gone_at_the_end(tmp_path: Path) -> None:
    maker, program = _python(tmp_path), tmp_path / "stand-in"
    runner = Runner(tmp_path, {"model": "m", "target": "local", "smoke": "false"}, {"DEPLOYTK_SIGN_KEY": "SECRET\nKEY"})
    runner.values["steps.python.outputs.python-path"] = str(maker)
    others = tuple(step["name"] for step in runner.action["runs"]["steps"] if step.get("name", "").istitle())
    runner.run(skipping=(*others, "Smoke test"))
    key = Path(runner.values["steps.prepare.outputs.key"])
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("SECRET\nKEY\n", 0o600)

    runner.values["steps.prepare.outputs.deploytk"] = str(program)
    runner.run(skipping=("Install deploytk",))

    assert f"--sign={key}" in _words(tmp_path, "publish")
    assert not key.exists()
    assert "SECRET" not in runner.log + runner.page() + str(runner.outputs())


def test_a_version_is_taken_from_the_index(tmp_path: Path) -> None:
    _, calls = _installed(tmp_path, version="0.2.0rc1", smoke="false")

    assert [call[-1] for call in calls[1:]] == ["deploytk==0.2.0rc1"]


@pytest.mark.parametrize("version", [*HOSTILE, "0.1.0 --index-url=http://evil", "0.1.0\n", "deploytk"])
def test_what_is_no_version_is_refused(tmp_path: Path, version: str) -> None:
    runner, calls = _installed(tmp_path, version=version)

    assert runner.codes == {"Install deploytk": 2}
    assert len(calls) == 1
    assert "the input version is no version" in runner.log
    assert not (tmp_path / "pwned").exists()


def test_the_lock_has_all_that_deploytk_needs() -> None:
    project = _project()
    needed = project["dependencies"] + [
        one
        for extra in ("cpu", "gpu", "modelscope", "scan", "sign", "ui")
        for one in project["optional-dependencies"][extra]
    ]
    lock = "\n" + (ROOT / ".ci/locks/action.txt").read_text().lower()

    names = {one.split(";")[0].split(">")[0].split("=")[0].strip().lower() for one in needed} - {"torch"}
    assert [name for name in sorted(names) if f"\n{name}==" not in lock] == []
    assert "\nhatchling==" in lock


def test_every_line_of_a_lock_has_a_hash() -> None:
    for path in (ROOT / ".ci" / "locks").glob("*.txt"):
        for line in path.read_text().replace("\\\n", " ").splitlines():
            assert re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), (path.name, line)


def _project() -> dict[str, dict[str, list[str]]]:
    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib")
    import tomllib

    found: dict[str, dict[str, list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_the_whole_action_with_a_smoke_test_on_the_cpu(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "hf-awq", tmp_path / "model")
    wishes = {"model": "model", "target": "local", "repo": "hub", "engine": "cpu", "min_tokens_per_s": "0.001"}

    runner = _prepared(tmp_path, DEPLOYTK, **wishes).run(skipping=("Install deploytk",))

    report = tmp_path / "report"
    assert runner.codes["Publish"] == 0, runner.log
    assert runner.outputs()["verdict"] in ("pass", "inconclusive"), runner.log  # a busy machine excuses no wrong answer
    assert json.loads((report / "report.json").read_text())["counts"]["failed"] == 0
    assert ElementTree.parse(report / "report.xml").getroot().get("failures") == "0"
    assert (report / "report.html").is_file()
    assert "## Smoke test: " in runner.page()


@pytest.mark.network
@pytest.mark.timeout(1800)
def test_what_the_action_installs_runs(tmp_path: Path) -> None:
    runner = Runner(tmp_path, {"model": "m", "smoke": "false"}, {"PATH": os.environ["PATH"]})
    runner.values["steps.python.outputs.python-path"] = sys.executable
    others = tuple(step["name"] for step in runner.action["runs"]["steps"] if step.get("name", "").istitle())

    runner.run(skipping=others)

    assert runner.codes == {"Install deploytk": 0}, runner.log
    deploytk = Path(runner.outputs()["deploytk"])
    assert deploytk.is_file()
    assert __version__ in subprocess.run([deploytk, "--version"], capture_output=True, text=True).stdout
