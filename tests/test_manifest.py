"""`deploytk.json` read back: what deploytk would not have written is refused in words, before anything is done."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundles import given_bundle, make_bundle
from conftest import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import write_workspace

from deploytk.base.errors import BundleError
from deploytk.bundle import EDITABLE, BundleOptions, Golden, read_bundle
from deploytk.bundle.manifest import to_text
from deploytk.bundle.read import described_bundle
from deploytk.bundle.value import MANIFEST
from deploytk.plan import PlanRequest

DIGEST = "0" * 64
Forge = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; tests only replace its manifest."""
    options = BundleOptions(name="tiny", license="mit", base_model="a/b", golden=(Golden("2+2=", "4"),))
    return make_bundle(MODELS / "hf-awq", tmp_path_factory.mktemp("whole") / "b", options).path


@pytest.fixture
def manifest(whole: Path) -> Iterator[dict[str, Any]]:
    """Its manifest, which is put back."""
    text = (whole / MANIFEST).read_text()
    yield json.loads(text)
    (whole / MANIFEST).unlink()
    (whole / MANIFEST).write_text(text)


def _set(*path: str | int, to: object) -> Forge:
    def forge(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return forge


def _drop(*path: str) -> Forge:
    def forge(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return forge


def _argv(*more: str) -> Forge:
    return lambda manifest: manifest["plan"]["argv"].extend(more)


def _renamed(path: str) -> Forge:
    """The same file under another path: only the path is wrong."""
    return lambda manifest: manifest["files"].update({path: manifest["files"].pop("app.py")})


def _added(path: str, **changes: object) -> Forge:
    return lambda manifest: manifest["files"].update({path: {"size": 0, "sha256": DIGEST, "kind": "app", **changes}})


FORGED: dict[str, tuple[Forge, str]] = {
    "remote code": (_argv("--trust-remote-code"), "plan.argv is not the command"),
    "a flag of LMDeploy": (_argv("--allow-terminate-by-client"), "plan.argv is not"),
    "a shell": (_set("plan", "argv", to=["sh", "-c", "id", "."]), "plan.argv is not"),
    "another model": (_set("plan", "argv", 3, to="/etc"), "plan.argv is not"),
    "another port": (_set("plan", "argv", 5, to="80"), "plan.argv is not"),
    "argv is text": (_set("plan", "argv", to="lmdeploy"), "plan.argv is malformed"),
    "argv holds a number": (_set("plan", "argv", 5, to=23333), "plan.argv.5 is malformed"),
    "no argv": (_drop("plan", "argv"), "plan.argv is missing"),
    "a flag by the name": (_set("plan", "model_name", to="--trust-remote-code"), "plan.model_name is malformed"),
    "a session length that argv has not": (_set("plan", "session_len", to=1), "plan.argv is not"),
    "no lmdeploy": (_drop("plan", "lmdeploy"), "plan.lmdeploy is missing"),
    "lmdeploy of nobody": (_set("plan", "lmdeploy", to="99.0"), "plan.lmdeploy is malformed"),
    "lmdeploy as an option": (_set("plan", "lmdeploy", to="0.7.3 --index-url x"), "plan.lmdeploy is malformed"),
    "lmdeploy gone": (_set("plan", "lmdeploy", to=None), "plan.lmdeploy is malformed"),
    "an engine of nobody": (_set("plan", "engine", to="vllm"), "plan.engine is malformed"),
    "an environment": (_set("plan", "environment", to=[["LD_PRELOAD", "x.so"]]), "plan.environment is not"),
    "config.ini": (_set("plan", "config_ini", to=[["x", "y"]]), "plan.config_ini is not"),
    "int4 said to be int8": (_set("plan", "quant_policy", to=8), "plan.quant_policy is not"),
    "no batch": (_set("plan", "max_batch_size", to=0), "plan.max_batch_size is malformed"),
    "true for one": (_set("plan", "tensor_parallel", to=True), "plan.tensor_parallel is malformed"),
    "1.0 for one": (_set("plan", "tensor_parallel", to=1.0), "plan.tensor_parallel"),
    "text for a number": (_set("plan", "session_len", to="8192"), "plan.session_len is malformed"),
    "negative memory": (_set("plan", "vram", "total_bytes", to=-1), "plan.vram.total_bytes is no possible number"),
    "memory without end": (_set("plan", "vram", "total_bytes", to=10**30), "plan.vram.total_bytes is"),
    "no memory": (_set("plan", "vram", to={}), "plan.vram.weights_bytes is missing"),
    "a share of none": (_set("plan", "cache_max_entry_count", to=-0.5), "plan.cache_max_entry_count is malformed"),
    "fits nothing": (_set("plan", "fits", to=True), "plan.fits is malformed"),
    "a plan of nothing": (_set("plan", to={}), "plan.engine is missing"),
    "a plan that is a list": (_set("plan", to=[]), "plan is malformed"),
    "more in the plan": (_set("plan", "surroundings", to={"LD_PRELOAD": "x.so"}), "plan.surroundings is nothing that"),
    "a model of nothing": (_set("model", to={}), r"model\.\w+ is missing"),
    "no model": (_drop("model"), "model is missing"),
    "a model elsewhere": (_set("model", "root", to="/etc"), "model.root is nothing that"),
    "layers as text": (_set("model", "layers", to="2"), "model.layers is malformed"),
    "a layout of nobody": (_set("model", "layout", to="onnx"), "model.layout is malformed"),
    "a version of nobody": (_set("model", "lmdeploy", "pin", to="1; id"), "model.lmdeploy is malformed"),
    "a port that is text": (_set("app", "port", to="7860"), "app.port is malformed"),
    "a port that is none": (_set("app", "port", to=-1), "app.port is"),
    "another port of the app": (_set("app", "port", to=22), "app.port is not what deploytk writes"),
    "another host": (_set("app", "host", to="203.0.113.1"), "app.host is not what deploytk writes"),
    "another kind": (_set("app", "kind", to="exe"), "app.kind is malformed"),
    "another title": (_set("app", "title", to="<script>"), "app.title is malformed"),
    "a title with what a terminal obeys": (_set("app", "title", to="tiny\u202e"), "app.title is malformed"),
    "a title of another name": (_set("app", "title", to="Another"), "app.title is malformed"),
    "examples from elsewhere": (_set("app", "examples", to=["<img src=x>"]), "app.examples is not what"),
    "more in the app": (_set("app", "command", to="id"), "app.command is nothing that"),
    "a licence with a line end": (_set("card", "license", to="mit\nx: y"), "card.license is malformed"),
    "a base model elsewhere": (_set("card", "base_model", to="../../x"), "card.base_model is malformed"),
    "a language that is none": (_set("card", "languages", to=["en\nx: y"]), "card.languages is malformed"),
    "notes of another file": (_set("card", "notes", to={"app.py": "x"}), "card.notes is malformed"),
    "a card of another name": (_set("card", "generated", "app.py", to="x"), "card.generated is malformed"),
    "golden as an object": (_set("golden", to={}), "golden is malformed"),
    "golden of numbers": (_set("golden", 0, "prompt", to=1), "golden.0.prompt is malformed"),
    "golden with half a letter": (_set("golden", 0, "answer", to="\ud800"), "malformed"),
    "golden without a prompt": (_set("golden", to=[{"prompt": "", "answer": "x", "raw": True}]), "golden is malformed"),
    "a name elsewhere": (_set("name", to="../../elsewhere"), "name is malformed"),
    "a name with a line end": (_set("name", to="tiny\n"), "name is malformed"),
    "a number for a name": (_set("name", to=1), "name is malformed"),
    "a version with an escape": (_set("deploytk", to="\x1b]0;x\x07"), "deploytk is malformed"),
    "format as text": (_set("format", to="1"), "it is not a bundle's manifest"),
    "format as true": (_set("format", to=True), "it is not a bundle's manifest"),
    "format 0": (_set("format", to=0), "it is not a bundle's manifest"),
    "format 1.0": (_set("format", to=1.0), "format is malformed"),
    "format 2": (_set("format", to=2), "has format 2, 1 expected"),
    "no format": (_drop("format"), "it is not a bundle's manifest"),
    "more": (_set("hooks", to=[]), "hooks is nothing that deploytk writes"),
    "no files": (_drop("files"), "files is missing"),
    "files as a list": (_set("files", to=[]), "files is malformed"),
    "an absolute path": (_renamed("/etc/passwd"), "entry for '/etc/passwd' is malformed"),
    "a path above": (_renamed("../b/app.py"), "entry for '../b/app.py' is malformed"),
    "a path out and in": (_renamed("deploytk_app/../app.py"), "entry for 'deploytk_app/../app.py' is malformed"),
    "a path from here": (_renamed("./app.py"), "entry for './app.py' is malformed"),
    "a path with nothing in it": (_renamed("deploytk_app//server.py"), "is malformed"),
    "a path that ends in nothing": (_renamed("app.py/"), "entry for 'app.py/' is malformed"),
    "no path": (_renamed(""), "entry for '' is malformed"),
    "this directory": (_renamed("."), "entry for '.' is malformed"),
    "a path of another system": (_renamed("..\\app.py"), "is malformed"),
    "a path inside, of another system": (_renamed("deploytk_app\\app.py"), "is malformed"),
    "a hidden file": (_renamed(".git/hooks/post-checkout"), "is malformed"),
    "a line end in a path": (_renamed("a\nb"), "is malformed"),
    "a zero byte in a path": (_renamed("app.py\x00.txt"), "is malformed"),
    "a direction in a path": (_renamed("app\u202eyp.py"), "is malformed"),
    "half a letter in a path": (_renamed("a\ud800"), "malformed"),
    "a name too long": (_renamed("x" * 256), "is malformed"),
    "a path too long": (_renamed("/".join(["x" * 200] * 6)), "is malformed"),
    "the manifest itself": (_renamed("deploytk.json"), "entry for 'deploytk.json' is malformed"),
    "a file in a file": (_added("app.py/inside"), "'app.py/inside' is a file inside of a file"),
    "a size below nothing": (_added("app.py", size=-1), "files.app.py.size is no possible number"),
    "a size as true": (_added("app.py", size=True), "files.app.py.size is malformed"),
    "a size with a point": (_added("app.py", size=0.0), "files.app.py.size"),
    "a size as text": (_added("app.py", size="0"), "files.app.py.size is malformed"),
    "a size without end": (_added("app.py", size=2**80), "files.app.py.size is no possible number"),
    "sizes without end": (lambda m: [e.update(size=2**62) for e in m["files"].values()], "files is malformed"),
    "half a digest": (_added("app.py", sha256="0" * 63), "entry for 'app.py' is malformed"),
    "a digest with a line end": (_added("app.py", sha256=DIGEST + "\n"), "entry for 'app.py' is malformed"),
    "a digest in capitals": (_added("app.py", sha256="A" * 64), "entry for 'app.py' is malformed"),
    "a kind of nobody": (_added("app.py", kind="exe"), "files.app.py.kind is malformed"),
    "more about a file": (_added("app.py", mode=0o777), "files.app.py.mode is nothing that"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_manifest_is_refused_by_what_is_wrong_with_it(
    name: str, whole: Path, manifest: dict[str, Any]
) -> None:
    forge, reason = FORGED[name]
    forge(manifest)
    (whole / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match=reason):
        read_bundle(whole)


TEXTS = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "nested without end": "[" * 100_000,
    "nested in a value": '{"format": 1, "model": ' + '{"a":' * 500 + "1" + "}" * 500 + "}",
    "a number without end": '{"format": ' + "9" * 5000 + "}",
    "not a number": '{"format": 1, "name": NaN}',
    "infinity": '{"format": 1, "name": 1e999}',
    "no text": "\xff",
    "another encoding": "\xff\xfe{\x00}\x00",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / MANIFEST).write_text(TEXTS[name], encoding="latin-1")

    with pytest.raises(BundleError, match="cannot be read"):
        read_bundle(tmp_path)


def test_a_key_that_is_there_twice_is_refused(whole: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest)
    (whole / MANIFEST).write_text(text[:-1] + ', "name": "other"}')

    with pytest.raises(BundleError, match="a key is there twice"):
        read_bundle(whole)


@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "directory", "large"])
def test_what_is_no_manifest_of_its_own_is_not_read(
    kind: str, whole: Path, manifest: dict[str, Any], tmp_path: Path
) -> None:
    place = whole / MANIFEST
    (tmp_path / "elsewhere.json").write_text(json.dumps(manifest))
    place.unlink()
    if kind == "link":
        place.symlink_to(tmp_path / "elsewhere.json")
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "pipe":
        os.mkfifo(place)  # a reader would wait for ever
    elif kind == "directory":
        place.mkdir()
    else:
        with place.open("wb") as file:
            file.truncate(65 * 2**20)
    try:
        with pytest.raises(BundleError, match="cannot be read"):
            read_bundle(whole)
    finally:
        if kind == "directory":
            place.rmdir()
            place.touch()


@pytest.mark.parametrize("kind", ["out", "beside", "directory", "loop", "pipe"])
def test_a_link_out_of_the_bundle_is_refused_whatever_it_leads_to(kind: str, tmp_path: Path) -> None:
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "b").path
    # One of them lies in a place whose name begins as that of the bundle.
    target = shutil.copy(bundle / "app.py", tmp_path / ("b-beside.py" if kind == "beside" else "same.py"))
    (bundle / "app.py").unlink()
    if kind in ("out", "beside"):  # of the right size: nothing but where it lies is wrong
        (bundle / "app.py").symlink_to(target)
    elif kind == "loop":
        (bundle / "app.py").symlink_to("app.py")
    elif kind == "pipe":
        os.mkfifo(bundle / "app.py")
    else:
        shutil.copy(target, bundle / "app.py")
        (bundle / "deploytk_app").rename(tmp_path / "room")
        (bundle / "deploytk_app").symlink_to(tmp_path / "room")

    with pytest.raises(BundleError, match=r"leads out of the bundle|is missing|is no file"):
        read_bundle(bundle)


def test_a_bundle_in_the_cache_of_a_hub_is_read(tmp_path: Path) -> None:
    """There every file of a snapshot is a link to a blob of its own repository."""
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "models--a--b" / "snapshots" / "1").path
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(path for path in bundle.rglob("*") if path.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))

    assert read_bundle(bundle).name == "tiny"


@pytest.mark.parametrize(("place", "target"), [("models--a--b/snapshots/1", "refs/app.py"), ("b/c/1", "blobs/app.py")])
def test_of_a_hubs_cache_the_blobs_of_a_snapshot_are_its_own_and_nothing_else(
    place: str, target: str, tmp_path: Path
) -> None:
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / place).path
    beside = bundle.parents[1] / target
    beside.parent.mkdir()
    (bundle / "app.py").rename(beside)
    (bundle / "app.py").symlink_to(beside)

    with pytest.raises(BundleError, match="leads out of the bundle"):
        read_bundle(bundle)


def test_a_file_that_is_longer_than_the_manifest_says_is_named(tmp_path: Path) -> None:
    bundle = given_bundle(MODELS / "hf-awq", tmp_path / "b").path
    with (bundle / "app.py").open("ab") as file:
        file.write(b"#")

    with pytest.raises(BundleError, match=r"app\.py has \d+ bytes, \d+ expected"):
        read_bundle(bundle)


@pytest.mark.parametrize("version", ["0.1.0", "0.4.2"])
def test_a_manifest_is_read_back_as_it_was_written_for_every_layout(version: str, tmp_path: Path) -> None:
    bundle = make_bundle(write_workspace(tmp_path / "w", version), tmp_path / "b")

    assert to_text(read_bundle(bundle.path).manifest) == (bundle.path / MANIFEST).read_text()


@pytest.mark.parametrize("model", ["hf-awq", "hf-fp16", "workspace-0.4.2-awq", "workspace-0.7.3-awq"])
@pytest.mark.parametrize("engine", [None, "cpu"])
def test_a_manifest_is_read_back_as_it_was_written_for_every_model(model: str, engine: Any, tmp_path: Path) -> None:
    options = BundleOptions(name="tiny", golden=(Golden("2+2=", "4"), Golden("raw", "x", is_raw=True)))
    request = PlanRequest(gpu=None if engine else "24G", serving_engine=engine)
    bundle = make_bundle(MODELS / model, tmp_path / "b", options, request)

    assert to_text(bundle.manifest) == (bundle.path / MANIFEST).read_text()
    assert bundle.manifest.plan.argv == bundle.manifest.plan.command(bundle.manifest.model)[0]


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _places(inner, (*above, key))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_changed_is_refused_in_words_or_read_exactly(whole: Path, data: st.DataObject) -> None:
    places = [place for place in _places(json.loads((whole / MANIFEST).read_text())) if place]
    _read_with(whole, data.draw(st.sampled_from(places)), data.draw(_ANYTHING))


@pytest.mark.parametrize("card", ["README.md", "README_zh.md"])
def test_a_card_of_another_size_than_the_manifest_says_is_an_edited_one(whole: Path, card: str) -> None:
    """Found by the test above, once in some thousands of its examples."""
    assert _read_with(whole, ("files", card, "size"), 0) == (card,)


def _read_with(whole: Path, path: tuple[Any, ...], value: Any) -> tuple[str, ...]:
    """The cards that are taken for edited ones, where that manifest is read at all."""
    original = (whole / MANIFEST).read_text()
    changed = copy.deepcopy(json.loads(original))
    _set(*path, to=value)(changed)
    try:
        (whole / MANIFEST).write_text(json.dumps(changed))
        try:
            bundle = read_bundle(whole)
        except BundleError:
            return ()
        described = described_bundle(whole)
        assert json.loads(to_text(described.manifest)) == changed
        # A card that is not as the manifest says has been edited by its owner, and is read as it is.
        assert {now.path for now in bundle.files if now not in described.files} == set(bundle.edited) <= set(EDITABLE)
        assert bundle.manifest.plan.argv == bundle.manifest.plan.command(bundle.manifest.model)[0]
        return bundle.edited
    finally:
        (whole / MANIFEST).write_text(original)
