"""Bundles: what is in them, that they are reproducible, and that nothing half-written stays."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from bundles import Notes, make_bundle
from conftest import MODELS, Reviewed
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import write_workspace

from deploytk.artifact import read_artifact
from deploytk.base.errors import ArtifactError, BundleError, DeployError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import BundleOptions, Golden, export_templates, read_bundle, read_golden, verify_bundle
from deploytk.bundle.value import Card
from deploytk.plan import PlanRequest

GOLDEN = Path(__file__).parent / "golden" / "card"
ALL_OPTIONS = BundleOptions(
    name="tiny",
    license="apache-2.0",
    base_model="me/tiny-base",
    golden=(Golden("2+2=", "4"), Golden("<raw>", "4", is_raw=True)),
)


def _front_matter(path: Path) -> dict[str, object]:
    loaded = yaml.safe_load((path / "README.md").read_text().split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def test_a_bundle_holds_model_app_card_and_manifest(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b", ALL_OPTIONS)

    kinds = {file.path: file.kind for file in bundle.files}
    assert kinds["model.safetensors"] == "weights"
    assert kinds["tokenizer.json"] == "model"
    assert {kinds[path] for path in ("app.py", "requirements.txt", "Dockerfile")} == {"app"}
    assert {kinds[path] for path in ("README.md", "README_zh.md")} == {"card"}
    manifest = json.loads((tmp_path / "b" / "deploytk.json").read_text())
    assert manifest["format"] == 1
    assert manifest["plan"]["argv"][3] == "."
    assert manifest["golden"][1] == {"prompt": "<raw>", "answer": "4", "raw": True}
    assert manifest["app"]["examples"] == ["2+2="]


def test_the_manifest_tells_size_and_digest_of_every_file(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "b")

    on_disk = {str(path.relative_to(bundle.path)) for path in bundle.path.rglob("*") if path.is_file()}
    assert on_disk == {file.path for file in bundle.files} | {"deploytk.json"}
    for file in bundle.files:
        content = (bundle.path / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_digest_can_be_computed_by_anybody(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")

    lines = "".join(sorted(f"{file.sha256}  {file.path}\n" for file in bundle.files))
    assert bundle.digest == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def test_the_same_input_gives_the_same_bundle_anywhere(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    first = make_bundle(MODELS / "workspace-0.7.3-awq", tmp_path / "a", ALL_OPTIONS)
    second = make_bundle(model_copy("workspace-0.7.3-awq"), tmp_path / "b" / "c", ALL_OPTIONS)

    assert first.digest == second.digest
    assert (first.path / "deploytk.json").read_bytes() == (second.path / "deploytk.json").read_bytes()


def test_no_path_of_this_machine_is_in_a_bundle(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    bundle = make_bundle(model_copy("hf-awq"), tmp_path / "b", ALL_OPTIONS)

    generated = [file.path for file in bundle.files if file.kind in ("app", "card")] + ["deploytk.json"]
    assert not any(str(tmp_path) in (bundle.path / path).read_text() for path in generated)


def test_weights_are_hard_links(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")

    bundle = make_bundle(model, tmp_path / "b")

    assert (bundle.path / "model.safetensors").samefile(model / "model.safetensors")
    assert bundle.copied_bytes == 0


def test_across_file_systems_files_are_copied_and_that_is_said(
    tmp_path: Path, other_disk: Path, model_copy: Callable[[str], Path]
) -> None:
    model, notes = model_copy("hf-awq"), Notes()

    bundle = make_bundle(model, other_disk / "b", progress=notes)

    size = sum(file.bytes for file in read_artifact(model).files)
    assert bundle.copied_bytes == size
    assert f"copied {size / 2**20:,.1f} MiB: no hard links from the model's file system to here" in notes.lines
    assert bundle.digest == make_bundle(model, tmp_path / "b").digest
    verify_bundle(bundle, Silent())


def test_weights_that_others_may_not_read_get_a_readable_copy(
    tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    model, notes = model_copy("hf-awq"), Notes()
    private = model / "model.safetensors"
    private.chmod(0o600)  # as `lmdeploy lite auto_awq` leaves its shards

    bundle = make_bundle(model, tmp_path / "b", progress=notes)

    assert stat.S_IMODE((bundle.path / private.name).stat().st_mode) == 0o644
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert bundle.copied_bytes == private.stat().st_size
    assert any("only their owner may read" in line for line in notes.lines)


def test_everybody_can_enter_a_bundle_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        bundle = make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "b")
    finally:
        os.umask(before)

    assert all(path.stat().st_mode & stat.S_IROTH for path in [bundle.path, *bundle.path.rglob("*")])


def test_the_same_bundle_is_kept_as_it_is(tmp_path: Path) -> None:
    first = make_bundle(MODELS / "hf-awq", tmp_path / "b")
    card = (first.path / "README.md").stat()
    identity = (card.st_ino, card.st_mtime_ns)

    again = make_bundle(MODELS / "hf-awq", tmp_path / "b")

    assert again.digest == first.digest
    kept = (first.path / "README.md").stat()
    assert (kept.st_ino, kept.st_mtime_ns) == identity


def test_a_damaged_bundle_is_made_again(tmp_path: Path) -> None:
    first = make_bundle(MODELS / "hf-awq", tmp_path / "b")
    (first.path / "app.py").write_text("")

    again = make_bundle(MODELS / "hf-awq", tmp_path / "b")

    assert again.digest == first.digest
    verify_bundle(again, Silent())


def test_another_bundle_at_the_place_is_replaced(tmp_path: Path) -> None:
    make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "b")

    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")

    on_disk = {str(path.relative_to(bundle.path)) for path in bundle.path.rglob("*") if path.is_file()}
    assert on_disk == {file.path for file in bundle.files} | {"deploytk.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_somebody_put_into_a_bundle_is_not_lost(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")
    (bundle.path / "thesis.tex").write_text("years of work")

    with pytest.raises(BundleError, match=r"also holds thesis\.tex"):
        make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "b")

    assert (bundle.path / "thesis.tex").read_text() == "years of work"


def test_what_running_the_app_leaves_behind_does_no_harm(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")
    (bundle.path / "__pycache__").mkdir()
    (bundle.path / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"")

    make_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "b")

    assert not (tmp_path / "b" / "__pycache__").exists()


def test_the_models_own_card_gives_way_and_that_is_said(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model, notes = model_copy("hf-awq"), Notes()
    (model / "README.md").write_text("# mine")
    (model / "app.py").mkdir()
    (model / "app.py" / "vocab.txt").write_text("a directory where the app's file goes")

    bundle = make_bundle(model, tmp_path / "b", progress=notes)

    assert (bundle.path / "README.md").read_text() != "# mine"
    assert (
        "of the model's own files these are left out: app.py/vocab.txt; a bundle has its own by these names"
        in notes.lines
    )


def test_a_bundle_is_a_model_directory(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")

    artifact = read_artifact(bundle.path)

    assert artifact.errors == ()
    assert {f.path for f in artifact.files} == {f.path for f in bundle.files if f.kind in ("weights", "model")}


def test_a_bundle_can_be_packaged_again(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")

    assert make_bundle(bundle.path, tmp_path / "again").digest == bundle.digest


def test_leftovers_stay_out(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")
    (model / "inputs_stats.pth").write_bytes(b"\x80\x02.")

    bundle = make_bundle(model, tmp_path / "b")

    assert "inputs_stats.pth" not in {file.path for file in bundle.files}


def test_the_front_matter_is_complete(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b", ALL_OPTIONS)

    front = _front_matter(bundle.path)

    assert front["license"] == "apache-2.0"
    assert (front["base_model"], front["base_model_relation"]) == ("me/tiny-base", "quantized")
    assert front["pipeline_tag"] == "text-generation"
    assert front["quantization"] == {"method": "awq", "bits": 4, "group_size": 128}


def test_hugging_face_reads_the_front_matter_as_it_is_meant(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b", ALL_OPTIONS)

    card = ModelCard.load(bundle.path / "README.md")

    assert card.data.to_dict() == _front_matter(bundle.path)
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "me/tiny-base")


def test_another_licence_is_linked(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model, options = model_copy("hf-awq"), BundleOptions(name="tiny", license="other")
    with pytest.raises(UsageError, match="needs the licence's text"):
        make_bundle(model, tmp_path / "b", options)
    (model / "LICENSE.txt").write_text("Do no harm.")

    bundle = make_bundle(model, tmp_path / "b", options)

    front = _front_matter(bundle.path)
    assert (front["license"], front["license_name"], front["license_link"]) == ("other", "custom", "LICENSE.txt")


def test_licence_and_origin_are_taken_from_the_models_own_card(
    tmp_path: Path, model_copy: Callable[[str], Path]
) -> None:
    model, notes = model_copy("hf-awq"), Notes()
    (model / "README.md").write_text("---\nlicense: mit\nbase_model: them/base\n---\n# mine\n")

    own = make_bundle(model, tmp_path / "own", progress=notes)
    given = make_bundle(model, tmp_path / "given", ALL_OPTIONS)

    assert (_front_matter(own.path)["license"], _front_matter(own.path)["base_model"]) == ("mit", "them/base")
    assert own.manifest.card == Card("mit", "them/base", generated=own.manifest.card.generated)
    assert notes.lines[:2] == [
        f"{what}, from the model's own README.md" for what in ("licence mit", "base model them/base")
    ]
    assert _front_matter(given.path)["license"] == "apache-2.0"


@pytest.mark.parametrize(
    "front",
    [
        "license: [mit]\nbase_model: {a: b}",
        "license: 'mit\n  evil: true'",
        "license: !!python/name:os.system x",
        "a: &a mit\nlicense: *a",
        "[" * 5000,
        "license: \x00",
        "license: other",
        "- mit",
    ],
)
def test_a_card_that_is_not_plain_is_passed_over(tmp_path: Path, front: str, model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")
    (model / "README.md").write_text(f"---\n{front}\n---\n")

    bundle = make_bundle(model, tmp_path / "b")

    assert _front_matter(bundle.path)["license"] == "unknown"


def test_a_missing_licence_is_said(tmp_path: Path) -> None:
    notes = Notes()

    make_bundle(MODELS / "hf-awq", tmp_path / "b", progress=notes)

    assert notes.lines == ["no licence is given: hubs will show 'unknown'; name it with --license"]


def test_a_bundle_that_goes_when_we_do_has_no_card_and_asks_for_no_licence(tmp_path: Path) -> None:
    notes = Notes()

    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name="tiny", is_passing=True), progress=notes)

    assert not {"README.md", "README_zh.md"} & {file.path for file in bundle.files}
    assert not (bundle.path / "README.md").exists()
    assert notes.lines == []


@pytest.mark.parametrize("name", ["1e3", "0x10", "1_000", "true", "null", "1.5", "0o7", "no"])
def test_names_that_look_like_numbers_are_quoted(tmp_path: Path, name: str) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name="tiny", base_model=name))

    front = (bundle.path / "README.md").read_text()
    # YAML 1.2, which hubs read, takes 1e3 and 0o7 for numbers; PyYAML, YAML 1.1, does not.
    assert f'base_model: "{name}"' in front or name in ("true", "null", "no")
    assert _front_matter(bundle.path)["base_model"] == name


@pytest.mark.parametrize("name", ["hf-awq", "workspace-0.4.2-awq"])
def test_the_card_is_as_reviewed(tmp_path: Path, name: str, reviewed: Reviewed) -> None:
    bundle = make_bundle(MODELS / name, tmp_path / "b", ALL_OPTIONS, PlanRequest(gpu="A10"))

    for card in ("README.md", "README_zh.md"):
        reviewed((bundle.path / card).read_text(encoding="utf-8"), GOLDEN / name / card)


def test_settings_of_old_versions_are_written_into_config_ini(tmp_path: Path) -> None:
    model = write_workspace(tmp_path / "w", "0.1.0")
    original = (model / "triton_models/weights/config.ini").read_text()

    bundle = make_bundle(model, tmp_path / "b", request=PlanRequest(session_len=512, max_batch_size=1))

    edited = (bundle.path / "triton_models/weights/config.ini").read_text().splitlines()
    assert "session_len = 512" in edited
    assert "max_batch_size = 1" in edited
    assert "kv_head_num = 2" in edited
    assert (model / "triton_models/weights/config.ini").read_text() == original


@pytest.mark.parametrize("name", ["", ".", "-x", "a b", "a/b", "a\nb", "a'b", "$(id)", "x" * 97, "名"])
def test_names_that_could_inject_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name=name))

    assert not list(tmp_path.iterdir())


@given(
    st.builds(
        BundleOptions,
        name=st.text(max_size=12),
        license=st.none() | st.text(max_size=8),
        base_model=st.none() | st.text(max_size=12),
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_accepted_gives_valid_front_matter(
    tmp_path_factory: pytest.TempPathFactory, options: BundleOptions
) -> None:
    out = tmp_path_factory.mktemp("b") / "bundle"
    try:
        make_bundle(MODELS / "hf-awq", out, options)
    except UsageError:
        return
    assert _front_matter(out)["license"] == (options.license or "unknown")


def test_markup_from_a_model_is_text_in_the_card(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")
    config = json.loads((model / "config.json").read_text())
    config["transformers_version"] = "5 | <img src=x> [a](javascript:b) `c`"
    (model / "config.json").write_text(json.dumps(config))

    bundle = make_bundle(model, tmp_path / "b")

    card = (bundle.path / "README.md").read_text()
    assert r"5 \| \<img src=x\> \[a\]\(javascript:b\) \`c\`" in card


def test_a_broken_model_is_refused_and_nothing_is_written(tmp_path: Path, model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(ArtifactError, match=r"model\.safetensors has"):
        make_bundle(model, tmp_path / "out" / "b")

    assert not (tmp_path / "out").exists()


def test_something_else_at_the_place_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")

    with pytest.raises(BundleError, match="is not a bundle"):
        make_bundle(MODELS / "hf-awq", tmp_path / "b")

    assert (tmp_path / "b" / "thesis.tex").read_text() == "years of work"


def test_a_bundle_inside_the_model_is_refused(model_copy: Callable[[str], Path]) -> None:
    model = model_copy("hf-awq")

    with pytest.raises(BundleError, match="inside the model"):
        make_bundle(model, model / "bundle")


def test_a_user_template_replaces_the_shipped_one(tmp_path: Path) -> None:
    export_templates(tmp_path / "mine")
    (tmp_path / "mine" / "README.md.j2").write_text("# {{ options.name }} of {{ artifact.layers }} layers\n")

    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name="tiny", template=tmp_path / "mine"))

    assert (bundle.path / "README.md").read_text().endswith("# tiny of 2 layers\n")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("one\n{{ artifact.wieght_bits }}\n", r"README\.md\.j2, line 2.*wieght_bits"),
        ("{% if %}\n", r"README\.md\.j2, line 1"),
        ("\n\n{{ 1 / 0 }}", r"README\.md\.j2, line 3: division by zero"),
        ("{{ artifact.__class__.__mro__ }}", r"README\.md\.j2, line 1: access to attribute '__class__'"),
        ("{% include 'gone.j2' %}", r"README\.md\.j2, line 1: .*gone\.j2"),
    ],
)
def test_a_misspelt_variable_names_file_and_line(tmp_path: Path, text: str, named: str) -> None:
    export_templates(tmp_path / "mine")
    (tmp_path / "mine" / "README.md.j2").write_text(text)

    with pytest.raises(BundleError, match=named):
        make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name="tiny", template=tmp_path / "mine"))


@pytest.mark.parametrize(
    ("path", "content", "named"),
    [
        ("READEM.md.j2", b"", r"READEM\.md\.j2 replaces no template"),
        ("app/ap.py", b"", r"ap\.py replaces no file of the app"),
        ("app/server.py", b"\xff\xfe", r"server\.py cannot be read"),
        ("README.md.j2", b"\xff\xfe", r"README\.md\.j2"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(tmp_path: Path, path: str, content: bytes, named: str) -> None:
    (tmp_path / "mine" / path).parent.mkdir(parents=True)
    (tmp_path / "mine" / path).write_bytes(content)

    with pytest.raises(BundleError, match=named):
        make_bundle(MODELS / "hf-awq", tmp_path / "b", BundleOptions(name="tiny", template=tmp_path / "mine"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: (path / "app.py").unlink(), r"app\.py is missing"),
        (lambda path: (path / "app.py").write_text(""), r"app\.py has 0 bytes"),
        (lambda path: (path / "deploytk.json").write_text("{}"), "cannot be read"),
        (lambda path: (path / "deploytk.json").unlink(), "is no bundle"),
    ],
)
def test_a_damaged_bundle_is_refused(tmp_path: Path, damage: Callable[[Path], None], named: str) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")
    damage(bundle.path)

    with pytest.raises(BundleError, match=named):
        read_bundle(bundle.path)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "b")
    path = bundle.path / "app.py"
    path.write_bytes(b"#" + path.read_bytes()[1:])

    with pytest.raises(BundleError, match="its digest differs"):
        verify_bundle(read_bundle(bundle.path), Silent())


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "[1]",
        '[{"prompt": "\\ud800", "answer": ""}]',
        '[{"prompt": 1, "answer": ""}]',
        '[{"prompt": "a"}]',
        "x",
    ],
)
def test_a_wrong_golden_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text)

    with pytest.raises(UsageError):
        read_golden(path)


def test_golden_answers_may_be_raw_completions(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text('[{"prompt": "a", "answer": "b"}, {"text": "<c>", "answer": "d"}]')

    assert read_golden(path) == (Golden("a", "b"), Golden("<c>", "d", is_raw=True))


def test_a_full_disk_leaves_nothing_half_written(small_disk: Path) -> None:
    with pytest.raises(BundleError, match="is full"):
        make_bundle(MODELS / "hf-awq", small_disk / "b")

    assert list(small_disk.iterdir()) == []


def test_two_at_once_are_told(tmp_path: Path) -> None:
    from deploytk.base.files import locked

    with locked(tmp_path / ".b.lock", "b"), pytest.raises(DeployError, match="in use") as caught:
        make_bundle(MODELS / "hf-awq", tmp_path / "b")

    assert caught.value.exit_code == 75
