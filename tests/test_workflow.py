"""What the commands of a workflow said, told on a page, in outputs and in annotations; nothing of it is a command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import run
from conftest import MODELS
from steps import outputs_in
from test_smoke_report import EVIDENCE

from deploytk.smoke import Budget, judge, write_report
from deploytk.smoke.correctness import Finding
from deploytk.workflow import summarize, tell_github

NASTY = "a|b](http://x)<script>\n::error::mine\r\n::set-output name=url::evil\x1b[31m%0A`$(touch pwned)`\u2028# mine"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What inspect, plan and package say of a tiny model, and publish to a local hub."""
    place = tmp_path_factory.mktemp("run")
    model, bundle, hub = str(MODELS / "hf-awq"), str(place / "bundle"), str(place / "hub")
    words = {
        "inspect": [model],
        "plan": [model],
        "package": [model, "-o", bundle],
        "publish": [bundle, "--target", "local", "--repo", hub],
    }
    for name, arguments in words.items():
        (place / f"{name}.json").write_text(run(name, *arguments, "--json").stdout)
    write_report(judge(EVIDENCE, Budget()), place / "smoke.json")
    return place


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A step of GitHub Actions: where its files are."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "page"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    return tmp_path


def test_the_summary_has_a_row_for_every_command_and_the_report(said: Path) -> None:
    done = run("summary", str(said))

    rows = [line for line in done.stdout.splitlines() if line.startswith("| ✅")]
    assert [row.split(" | ")[1] for row in rows] == ["inspect", "plan", "package", "publish", "smoke"]
    assert "LlamaForCausalLM, huggingface" in rows[0]
    assert "## Smoke test: pass" in done.stdout


def test_later_steps_get_url_revision_digest_and_verdict(said: Path, step: Path) -> None:
    done = run("summary", str(said), "--github", "--json")

    published = json.loads((said / "publish.json").read_text())
    packaged = json.loads((said / "package.json").read_text())
    assert outputs_in(step / "output") == {
        "url": published["url"],
        "revision": published["revision"],
        "digest": packaged["digest"],
        "verdict": "pass",
    }
    assert json.loads(done.stdout)["status"] == "done"
    assert (step / "page").read_text().startswith("## deploytk")


def _fails(report: Path, budget: Budget, *findings: Finding) -> None:
    write_report(judge(replace(EVIDENCE, findings=findings), budget), report)


def test_each_failed_check_is_an_annotation(said: Path, step: Path, tmp_path: Path) -> None:
    _fails(tmp_path / "smoke.json", Budget(), Finding("golden answers", "fail", "3 of 8"))
    (tmp_path / "plan.json").write_text('{"fits": false, "alternatives": [{"change": "less", "option": "--kv int8"}]}')
    (tmp_path / "publish.json").write_text('{"error": {"what": "no token", "hint": "set HF_TOKEN", "exit_code": 2}}')
    (tmp_path / "build.json").touch()  # killed

    done = run("summary", str(tmp_path), "--github")

    assert done.stderr.splitlines() == [
        "::error title=deploytk plan::the model does not fit on that GPU (what would fit: less (--kv int8))",
        "::error title=deploytk build::build ended without a word (see its log)",
        "::error title=deploytk publish::no token (set HF_TOKEN)",
        "::error title=deploytk smoke::golden answers: 3 of 8",
    ]
    assert outputs_in(step / "output") == {"verdict": "fail"}
    assert done.code == 0  # the step that failed has failed the job


def test_a_budget_that_cannot_be_judged_is_a_warning(step: Path, tmp_path: Path) -> None:
    _fails(tmp_path / "smoke.json", Budget(max_vram_mib=1))  # no GPU was seen

    summary = summarize(tmp_path)

    assert (summary.status, [one.level for one in summary.steps[0].findings]) == ("inconclusive", ["warning"])


def test_an_image_in_a_registry_is_named_by_its_digest(tmp_path: Path) -> None:
    for tag, output, image in [
        ("ghcr.io/me/m:1", "registry", "ghcr.io/me/m@sha256:1"),
        ("localhost:5000/m", "registry", "localhost:5000/m@sha256:1"),
        ("m:1", "daemon", "m:1"),
    ]:
        (tmp_path / "build.json").write_text(json.dumps({"tag": tag, "output": output, "digest": "sha256:1"}))
        assert summarize(tmp_path).outputs == {"image": image}


def test_nothing_that_a_model_or_a_hub_says_becomes_a_command_an_output_or_markup(step: Path, tmp_path: Path) -> None:
    (tmp_path / "publish.json").write_text(json.dumps({"url": NASTY, "revision": NASTY, "steps_left": [NASTY]}))
    problem = {"level": "error", "message": NASTY, "hint": NASTY}
    (tmp_path / "inspect.json").write_text(json.dumps({"architecture": NASTY, "problems": [problem] * 30}))
    _fails(tmp_path / "smoke.json", Budget(), Finding(NASTY, "fail", NASTY))

    done = run("summary", str(tmp_path), "--github")

    commands = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith(("::error title=deploytk ", "::warning title=", "::notice title=")) for line in commands)
    assert "%0A" not in done.stderr.replace("%250A", "")
    assert "\x1b" not in done.stderr + (step / "page").read_text() + (step / "output").read_text()
    assert outputs_in(step / "output").keys() == {"url", "revision", "verdict"}
    assert len([line for line in commands if "inspect" in line]) == 11  # ten, and how many more
    page = (step / "page").read_text()
    assert "<script>" not in page.replace("\\<", "")
    assert [line for line in page.splitlines() if line.startswith(("# ", "::"))] == []


def test_two_values_never_have_the_same_mark(said: Path, step: Path) -> None:
    tell_github(summarize(said))

    marks = [line.split("<<")[1] for line in (step / "output").read_text().splitlines() if "<<" in line]
    assert len(marks) == len({*marks}) == 4


@pytest.mark.parametrize("content", ["{", "[]", "NaN", '{"a": 1e99}', "\xff"])
def test_what_is_no_output_of_a_command_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content, encoding="latin-1")

    done = run("summary", str(tmp_path))

    assert (done.code, len(done.stderr.splitlines()), "plan.json" in done.stderr) == (2, 2, True)


@pytest.mark.parametrize(
    "content", ['{"vram": 3, "gpu": [], "alternatives": {}}', '{"problems": [1, null], "weights_bytes": "x"}']
)
def test_values_of_another_shape_are_left_out(tmp_path: Path, content: str) -> None:
    for name in ("inspect", "plan", "package", "build", "publish"):
        (tmp_path / f"{name}.json").write_text(content)

    assert run("summary", str(tmp_path)).code == 0


def test_outside_of_a_step_it_is_said(said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    done = run("summary", str(said), "--github")

    assert (done.code, "GITHUB_STEP_SUMMARY is not set" in done.stderr) == (2, True)


def test_what_4_bits_were_made_of_and_cost_is_a_step_of_the_summary(tmp_path: Path) -> None:
    cost = {"perplexity_before": 5.0, "perplexity_after": 5.2}
    by = {"tool": "lmdeploy", "tool_version": "0.18.0", "calibration": {"windows": 16}, "cost": cost}
    value = {"quantized_by": by, "bytes": 2**20, "is_within_budget": False, "notes": ["few texts"]}
    (tmp_path / "quantize.json").write_text(json.dumps(value))

    found = summarize(tmp_path)

    [step] = found.steps
    assert (found.status, step.command) == ("failed", "quantize")
    assert dict(step.rows) == {
        "4 bits by": "lmdeploy 0.18.0",
        "calibrated": "16 windows",
        "perplexity": "5.0 before, 5.2 after",
        "size": "1 MiB",
    }
    assert [one.level for one in step.findings] == ["error", "notice"]
