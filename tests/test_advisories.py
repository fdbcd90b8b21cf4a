"""Security advisories: which version has which, who is told, and what shields."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from artifacts import internlm_7b, internlm_workspace
from bases import write_base
from bundles import whole_bundle

from deploytk import doctor, lmdeploy
from deploytk.app.gateway import OWN, ROUTES
from deploytk.artifact import Artifact, ModelFile, TensorSums, read_artifact
from deploytk.base.settings import Settings
from deploytk.image.oci import read_layout
from deploytk.image.sbom import sbom_of
from deploytk.plan import PlanRequest, plan_serving

MODELS = Path(__file__).parent / "models"
UNFIXED = "CVE-2026-119706"
NOTHING: frozenset[lmdeploy.Need] = frozenset()


def _ids(version: str, *present: lmdeploy.Need) -> set[str]:
    return {advisory.id for advisory in lmdeploy.advisories_of(version, frozenset(present))}


@pytest.mark.parametrize(
    ("advisory", "last_without", "first_with", "last_with", "fixed"),
    [
        (UNFIXED, "0.8.0", "0.9.0", "0.18.0", None),
        ("CVE-2026-76850", "0.9.1", "0.9.2", "0.15.0", "0.16.0"),
        ("CVE-2026-63764", "0.2.5", "0.2.6", "0.14.0", "0.15.0"),
        ("CVE-2026-33626", "0.2.5", "0.2.6", "0.12.2", "0.12.3"),
        ("CVE-2026-46432", None, "0.0.10", "0.12.3", "0.13.0"),
        ("CVE-2025-67729", None, "0.0.10", "0.11.0", "0.11.1"),
        ("CVE-2025-59953", "0.9.1", "0.9.2", "0.10.1", "0.10.2"),
        ("CVE-2025-3162", None, "0.0.10", "0.7.1", "0.7.2"),
        ("CVE-2025-32434", None, "0.0.10", "0.7.2.post1", "0.7.3"),  # torch 2.5.1 at most, then 2.6.0
    ],
)
def test_an_advisory_holds_between_its_borders(
    advisory: str, last_without: str | None, first_with: str, last_with: str, fixed: str | None
) -> None:
    everything: tuple[lmdeploy.Need, ...] = ("pickles", "code", "images")

    assert last_without is None or advisory not in _ids(last_without, *everything)
    assert advisory in _ids(first_with, *everything)
    assert advisory in _ids(last_with, *everything)
    assert fixed is None or advisory not in _ids(fixed, *everything)


def test_a_release_that_nobody_knows_yet_has_what_is_not_fixed() -> None:
    assert _ids("0.99.0") == {UNFIXED}


@pytest.mark.parametrize(("need", "advisory"), [("pickles", "CVE-2025-3162"), ("code", "CVE-2026-46432")])
def test_what_a_model_has_not_got_is_not_said(need: lmdeploy.Need, advisory: str) -> None:
    assert advisory in _ids("0.4.2", need)
    assert advisory not in _ids("0.4.2")


@pytest.mark.parametrize(
    ("version", "found"),
    [("2.5.1+cu121", {"CVE-2025-32434"}), ("2.6.0", set()), ("2.12.1", set()), ("1.13.1", {"CVE-2025-32434"})],
)
def test_versions_of_other_packages_are_compared_as_numbers(version: str, found: set[str]) -> None:
    assert {advisory.id for advisory, _ in lmdeploy.advisories_in([("torch", version)])} == found


def test_every_advisory_has_a_source_and_says_what_to_do() -> None:
    for advisory in lmdeploy.advisories():
        assert advisory.sources
        assert all(url.startswith("https://") for url in advisory.sources)
        assert advisory.what
        assert advisory.why
        assert advisory.versions or advisory.below


def test_the_perimeter_is_what_the_shield_says_it_is() -> None:
    """Three routes reach the engine; neither weights nor other machines do."""
    assert {path for _, path in ROUTES} == {"/v1/models", "/v1/chat/completions", "/v1/completions"}
    assert not any("update_weights" in path or "distserve" in path for path in OWN)


def _llama(*files: str) -> Artifact:
    artifact = internlm_7b(architecture="LlamaForCausalLM", has_bias=False)
    return dataclasses.replace(artifact, files=tuple(ModelFile(path, 1, path.endswith(".bin")) for path in files))


def test_a_plan_names_the_advisory_and_the_shield_and_starts_on_loopback() -> None:
    plan = plan_serving(_llama(), PlanRequest())

    assert any(UNFIXED in note and "not fixed in any release" in note and "shields" in note for note in plan.notes)
    assert plan.argv[plan.argv.index("--server-name") + 1] == "127.0.0.1"


def test_the_first_command_lines_start_on_loopback_too() -> None:
    plan = plan_serving(internlm_workspace(is_w4=False, version="0.1.0"), PlanRequest())

    assert plan.argv[plan.argv.index("--server_name") + 1] == "127.0.0.1"


def test_what_the_app_does_not_shield_from_is_said_with_what_to_do() -> None:
    artifact = internlm_7b()  # LMDeploy 0.13.0 serves it last
    pictures = dataclasses.replace(artifact, tensors=TensorSums(tower_bytes=1))

    plain, seeing = (plan_serving(model, PlanRequest()).notes for model in (artifact, pictures))

    assert not any("CVE-2026-63764" in note for note in plain)
    assert any("CVE-2026-63764" in note and "network" in note for note in seeing)


def test_inspect_names_them() -> None:
    problems = read_artifact(MODELS / "hf-awq").problems

    assert any(problem.level == "info" and UNFIXED in problem.message for problem in problems)


def test_doctor_names_them_on_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "loadable_targets", list)
    monkeypatch.setattr(doctor, "_versions", lambda *_: {"torch": "2.4.0+cu121"})

    quiet, asked = doctor.check_up(Settings()), doctor.check_up(Settings(), security=True)

    assert not any(check.name.startswith("CVE") for check in quiet.checks)
    found = {check.name: check for check in asked.checks}
    assert found[UNFIXED].status == "ok"  # shielded
    assert "shields" in found[UNFIXED].hint
    assert found["CVE-2025-32434"].status == "broken"
    assert found["CVE-2025-32434"].needed_for == "torch 2.4.0+cu121"


def test_the_bill_of_materials_explains_them(tmp_path: Path) -> None:
    bundle = whole_bundle(MODELS / "hf-awq", tmp_path / "bundle")
    packages = (("lmdeploy", "0.18.0"), ("torch", "2.4.0"), ("transformers", "4.53.3"))
    base = dataclasses.replace(read_layout(write_base(tmp_path / "base")), packages=packages)

    document = json.loads(sbom_of(bundle, base))

    analyses = {one["id"]: one["analysis"] for one in document["vulnerabilities"]}
    assert analyses[UNFIXED]["state"] == "not_affected"
    assert analyses[UNFIXED]["justification"] == "protected_at_perimeter"
    assert analyses["CVE-2025-32434"]["justification"] == "requires_environment"  # its weights are safetensors
    assert analyses["CVE-2026-1839"]["justification"] == "code_not_reachable"
    assert analyses["CVE-2026-4372"]["state"] == "exploitable"
    refs = {one["bom-ref"] for one in document["components"]}
    assert {ref["ref"] for one in document["vulnerabilities"] for ref in one["affects"]} <= refs
