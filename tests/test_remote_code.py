"""Code that a model names (auto_map), which LMDeploy below 0.13 runs unasked: it is served when somebody trusts it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import internlm_7b
from bundles import given_bundle, make_bundle
from commands import Done, run
from conftest import MODELS

from deploytk import lmdeploy
from deploytk.artifact import names_code, read_artifact
from deploytk.base.errors import BundleError, TrustError
from deploytk.bundle import Bundle, read_bundle, require_trusted_code
from deploytk.plan import PlanRequest, plan_serving

ModelCopy = Callable[[str], Path]
WORKSPACE_TOKENIZER = "triton_models/tokenizer/tokenizer_config.json"
TOKENIZER = {"AutoTokenizer": ["own.Own", None]}
OLD, NEW = "workspace-0.4.2-awq", "hf-awq"  # 0.4.2 serves the one; 0.18.0 the other


def name_code(path: Path, key: str = "auto_map", **inside: object) -> None:
    """What the file at `path` says, and beside it, or in a part of it, that there is code."""
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **inside} if inside else {**found, key: TOKENIZER}))


@pytest.fixture
def old(model_copy: ModelCopy) -> Path:
    root = model_copy(OLD)
    name_code(root / WORKSPACE_TOKENIZER)
    return root


@pytest.fixture
def new(model_copy: ModelCopy) -> Path:
    root = model_copy(NEW)
    name_code(root / "config.json")
    return root


@pytest.fixture
def lmdeploy_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """An `lmdeploy` that says which version it is, and writes down that it was asked for anything else."""

    def install(version: str) -> Path:
        program, asked = tmp_path / "bin" / "lmdeploy", tmp_path / "asked"
        program.parent.mkdir()
        says = f'if [ "$1" = --version ]; then echo "{version}"; exit; fi' if version else ""
        program.write_text(f'#!/bin/sh\n{says}\necho "$@" >> {asked}\nexit 1\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        return asked

    return install


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("config.json", '{"auto_map": {"AutoConfig": "own.Own"}}'),
        ("config.json", '{"llm_config": {"auto_map": {"AutoModel": "own.Own"}}}'),
        ("config.json", '{"parts": [{"auto_map": {"AutoModel": "someone/else--own.Own"}}]}'),
        ("config.json", '{"\\u0061uto_map": {"AutoConfig": "own.Own"}}'),
        ("config.4.30.0.json", '{"auto_map": {"AutoConfig": "own.Own"}}'),  # for one version of transformers
        ("tokenizer_config.json", '{"auto_map": ["own.Own", null]}'),
        ("preprocessor_config.json", '{"auto_map": {"AutoImageProcessor": "own.Own"}}'),
        ("processor_config.json", '{"auto_map": {"AutoProcessor": "own.Own"}}'),
        ("video_preprocessor_config.json", '{"auto_map": {"AutoVideoProcessor": "own.Own"}}'),
        ("preprocessor_config.json", '{"a": 1, "a": 2}'),  # what cannot be read may name any
    ],
)
def test_code_is_found_wherever_transformers_looks_for_it(tmp_path: Path, path: str, content: str) -> None:
    (tmp_path / path).write_text(content)

    assert names_code(tmp_path) == (path,)


@pytest.mark.parametrize("content", ["{}", '{"auto_map": null}', '{"auto_map": {}}', '{"note": "auto_map"}'])
def test_no_code_is_found_where_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)

    assert names_code(tmp_path) == ()


def test_code_is_not_hidden_behind_many_files(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"a{number}config.json").write_text("{}")
    name_code(tmp_path / "config.json")

    assert "config.json" in names_code(tmp_path)


def test_inspect_names_the_file_and_a_kernel_of_a_hub(model_copy: ModelCopy) -> None:
    root = model_copy(NEW)
    name_code(root / "preprocessor_config.json")
    name_code(root / "config.json", _attn_implementation_internal="someone/kernel")

    messages = [problem.message for problem in read_artifact(root).problems]

    assert "preprocessor_config.json names code of its own (auto_map)" in messages
    assert any(message.startswith("config.json names an attention kernel of a hub") for message in messages)


@pytest.mark.parametrize(
    ("version", "asks"),
    [
        *((one, lmdeploy.has_flag(one, "--trust-remote-code")) for one in lmdeploy.VERSIONS),
        *(("0.12.3.post1", False), ("0.13.0a1", True), ("1.0", True)),
        *(("of unknown version", False), ("", False)),
    ],
)
def test_from_0_13_on_lmdeploy_asks_first(version: str, asks: bool) -> None:
    assert lmdeploy.asks_before_remote_code(version) == asks


STARTING_A_MODEL = (
    "serve MODEL --engine turbomind --port 0 --app api",
    "smoke MODEL --engine turbomind",
    "bench MODEL --engines turbomind -o OUT",
    "bench MODEL --engines cpu,pytorch -o OUT",
)
STARTING_A_BUNDLE = (
    "serve BUNDLE --engine turbomind --port 0",
    "smoke BUNDLE --engine turbomind",
    "preflight BUNDLE",
)
# These run nothing of a model; its author is often the one who types them.
HANDING_ON_A_MODEL = (
    "package MODEL -o OUT",
    "build MODEL -t a:1 --license mit",
    "publish MODEL --target local --repo OUT --license mit",
    "publish MODEL --target local --repo OUT --license mit --plan",
)
HANDING_ON_A_BUNDLE = (
    "publish BUNDLE --target local --repo OUT",
    "publish BUNDLE --target local --repo OUT --plan",
)


def _words(line: str, place: Path, tmp_path: Path) -> list[str]:
    known = {"MODEL": str(place), "BUNDLE": str(place), "OUT": str(tmp_path / "out")}
    return [known.get(word, word) for word in line.split()]


def _refused(done: Done, why: str) -> None:
    assert (done.code, done.stdout) == (1, ""), done
    assert why in done.stderr
    assert "then say --trust-remote-code" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", STARTING_A_MODEL)
def test_a_model_whose_lmdeploy_runs_code_unasked_is_refused(
    old: Path, tmp_path: Path, line: str, lmdeploy_here: Callable[[str], Path]
) -> None:
    asked = lmdeploy_here("lmdeploy 0.18.0")

    _refused(run(*_words(line, old, tmp_path)), f"LMDeploy 0.4.2 runs unasked the code that {WORKSPACE_TOKENIZER} of")

    assert not (tmp_path / "out").exists()
    assert not asked.exists()


@pytest.mark.parametrize("line", STARTING_A_MODEL)
@pytest.mark.parametrize("version", ["lmdeploy 0.12.3", ""])
def test_a_model_for_a_new_lmdeploy_is_refused_where_an_old_or_unknown_one_is_installed(
    new: Path, tmp_path: Path, line: str, version: str, lmdeploy_here: Callable[[str], Path]
) -> None:
    lmdeploy_here(version)

    _refused(run(*_words(line, new, tmp_path)), "runs unasked the code that config.json of")


@pytest.mark.parametrize(
    "line", ["plan MODEL", *HANDING_ON_A_MODEL, *(line for line in STARTING_A_MODEL if "cpu" not in line)]
)
def test_trusted_it_goes_on(old: Path, tmp_path: Path, line: str, lmdeploy_here: Callable[[str], Path]) -> None:
    """Each goes as far as it can without a GPU, Docker or a licence."""
    lmdeploy_here("lmdeploy 0.4.2")

    done = run(*_words(line, old, tmp_path), "--trust-remote-code")

    assert "names (auto_map)" not in done.stderr
    assert "does nothing here" not in done.stderr
    if line.split()[0] in ("plan", "package"):
        assert done.code == 0, done.stderr


def _trusted_bundle(model: Path, out: Path) -> Bundle:
    return make_bundle(model, out, request=PlanRequest(trust_remote_code=True))


@pytest.mark.parametrize("line", STARTING_A_BUNDLE)
@pytest.mark.parametrize("kind", ["old", "new"])
def test_that_somebody_trusted_a_model_is_not_taken_over_with_the_bundle(
    request: pytest.FixtureRequest, tmp_path: Path, line: str, kind: str, lmdeploy_here: Callable[[str], Path]
) -> None:
    """Whoever hands over a bundle says what he trusts; whoever runs it has to say so himself."""
    asked = lmdeploy_here("lmdeploy 0.18.0")
    bundle = _trusted_bundle(request.getfixturevalue(kind), tmp_path / "bundle")
    assert bundle.manifest.plan.trusts_remote_code == (kind == "new")
    whys = {"old": "LMDeploy 0.4.2 runs unasked", "new": "is to be served with --trust-remote-code"}

    _refused(run(*_words(line, bundle.path, tmp_path)), whys[kind])

    assert not (tmp_path / "out").exists()
    assert not asked.exists()


@pytest.mark.parametrize("line", [line for line in HANDING_ON_A_MODEL if not line.startswith("build")])
def test_what_runs_no_code_says_that_others_will(
    old: Path, tmp_path: Path, line: str, lmdeploy_here: Callable[[str], Path]
) -> None:
    asked = lmdeploy_here("lmdeploy 0.4.2")

    done = run(*_words(line, old, tmp_path))

    assert done.code == 0, done.stderr
    assert f"LMDeploy 0.4.2 runs unasked the code that {WORKSPACE_TOKENIZER} of" in done.stderr
    assert "it runs wherever this is served" in done.stderr
    assert not asked.exists()


@pytest.mark.parametrize("line", HANDING_ON_A_BUNDLE)
@pytest.mark.parametrize("kind", ["old", "new"])
def test_what_hands_on_a_bundle_says_what_it_will_run(
    request: pytest.FixtureRequest, tmp_path: Path, line: str, kind: str
) -> None:
    bundle = _trusted_bundle(request.getfixturevalue(kind), tmp_path / "bundle")

    done = run(*_words(line, bundle.path, tmp_path))

    assert done.code == 0, done.stderr
    assert "it runs wherever this is served" in done.stderr


def test_a_plan_is_an_answer_and_says_that_the_code_runs_unasked(old: Path) -> None:
    done = run("plan", str(old))

    assert done.code == 0, done.stderr
    assert "names (auto_map): unasked" in " ".join(done.stdout.split())


def test_a_trusted_bundle_is_published_and_read_back(new: Path, tmp_path: Path) -> None:
    bundle = _trusted_bundle(new, tmp_path / "bundle")

    done = run("publish", str(bundle.path), "--target", "local", "--repo", str(tmp_path / "out"), "--trust-remote-code")

    assert done.code == 0, done.stderr
    assert "--trust-remote-code" in read_bundle(bundle.path).manifest.plan.argv


def test_a_manifest_that_wants_trust_for_a_model_without_code_is_forged(tmp_path: Path) -> None:
    bundle = given_bundle(MODELS / NEW, tmp_path / "bundle")
    path = bundle.path / "deploytk.json"
    manifest = json.loads(path.read_text())
    manifest["plan"]["argv"].append("--trust-remote-code")
    path.write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match=r"plan\.argv is not the command"):
        read_bundle(bundle.path)


def test_code_that_came_into_a_bundle_later_is_seen(model_copy: ModelCopy, tmp_path: Path) -> None:
    bundle = make_bundle(model_copy(OLD), tmp_path / "bundle")
    shutil.copy(bundle.path / WORKSPACE_TOKENIZER, tmp_path / "copy")
    (bundle.path / WORKSPACE_TOKENIZER).unlink()
    shutil.move(tmp_path / "copy", bundle.path / WORKSPACE_TOKENIZER)
    name_code(bundle.path / WORKSPACE_TOKENIZER)

    with pytest.raises(TrustError, match="runs unasked"):
        require_trusted_code(bundle, is_trusted=False)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        *(
            (line, "names no code")
            for line in ("plan MODEL", *HANDING_ON_A_MODEL[:3], STARTING_A_BUNDLE[2], HANDING_ON_A_BUNDLE[0])
        ),
        ("bench MODEL --engines cpu -o OUT", "no model here names code"),
        ("serve MODEL --engine cpu", "the CPU engine runs no code"),
        ("plan MODEL --engine cpu", "the CPU engine runs no code"),
        ("smoke http://127.0.0.1:9", "a running server"),
    ],
)
def test_trust_where_there_is_nothing_to_trust_is_bad_usage(tmp_path: Path, line: str, why: str) -> None:
    place = given_bundle(MODELS / NEW, tmp_path / "bundle").path if "BUNDLE" in line else MODELS / NEW

    done = run(*_words(line, place, tmp_path), "--trust-remote-code")

    assert done.code == 2, done
    assert "--trust-remote-code does nothing here" in done.stderr
    assert why in done.stderr


def test_a_new_lmdeploy_is_told_only_when_the_model_has_code() -> None:
    request = PlanRequest(trust_remote_code=True)
    artifact = internlm_7b(architecture="LlamaForCausalLM")

    assert "--trust-remote-code" not in plan_serving(artifact, request).argv
    artifact = dataclasses.replace(artifact, remote_code=("config.json",))
    assert plan_serving(artifact, request).argv[-1] == "--trust-remote-code"
    assert "--trust-remote-code" not in plan_serving(artifact, PlanRequest()).argv
