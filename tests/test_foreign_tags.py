"""A tag in a registry that names an image of others: it stays theirs unless --mirror takes it, and --plan says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bases import elf, python_files, write_base
from bundles import given_bundle
from commands import run
from conftest import MODELS
from odd_registry import Odd, odd_registry

from deploytk.base.errors import ImageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.image.build import build_image
from deploytk.image.registry.push import require_own_tag
from deploytk.image.value import BuildOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.targets.oci import Oci, OciOptions

INDEX = "application/vnd.oci.image.index.v1+json"
OURS = {"ai.deploytk.set-digest": "sha256:0", "org.opencontainers.image.title": "tiny"}


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    """Nobody's logins, no daemon."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nothing.sock'}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with odd_registry() as server:
        yield server


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


@pytest.fixture
def base(tmp_path: Path) -> str:
    return f"oci:{write_base(tmp_path / 'base')}"


def _put(odd: Odd, annotations: object, config: object = None, **more: object) -> bytes:
    """What somebody has pushed as a/b:1 before us."""
    blob = json.dumps(config).encode()
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    manifest = {"schemaVersion": 2, "config": {"digest": digest, "size": len(blob)}, "annotations": annotations, **more}
    odd.blobs[digest] = blob
    odd.manifests["1"] = json.dumps(manifest).encode()
    return odd.manifests["1"]


def _label(labels: object) -> dict[str, object]:
    return {"config": {"Labels": labels}}


FOREIGN: dict[str, Callable[[Odd], bytes]] = {
    "no label": lambda odd: _put(odd, {}),
    "annotations of others": lambda odd: _put(odd, {"org.opencontainers.image.title": "tiny"}),
    "deploytk's, of another bundle": lambda odd: _put(odd, {**OURS, "org.opencontainers.image.title": "other"}),
    "deploytk's, of no name": lambda odd: _put(odd, {"ai.deploytk.set-digest": "sha256:0"}),
    "a label that is no text": lambda odd: _put(odd, {**OURS, "ai.deploytk.set-digest": 1}),
    "annotations that are a list": lambda odd: _put(odd, ["ai.deploytk.set-digest"]),
    "labels of others": lambda odd: _put(odd, None, _label({"maintainer": "somebody"})),
    "labels that are a list": lambda odd: _put(odd, None, _label(["x"])),
    "a config that is a list": lambda odd: _put(odd, None, []),
    "a config that is gone": lambda odd: _put(odd, None, config={"digest": "sha256:" + "0" * 64}),
    "a config that is a number": lambda odd: _put(odd, None, config_=1),
    "several platforms": lambda odd: _put(odd, None, mediaType=INDEX, manifests=[]),
    "half a letter": lambda odd: _put(odd, {**OURS, "org.opencontainers.image.title": "\x1b]0;owned\x07"}),
}
OWN: dict[str, Callable[[Odd], bytes]] = {
    "an older one": lambda odd: _put(odd, OURS),
    "one that Docker pushed": lambda odd: _put(odd, None, _label(OURS)),
}


def _words(line: str, bundle: Bundle, odd: Odd, base: str) -> list[str]:
    known = {"BUNDLE": str(bundle.path), "TAG": f"{odd.host}/a/b:1", "BASE": base}
    return [known.get(word, word) for word in line.split()]


LINES = ("publish BUNDLE --target oci --repo TAG --base BASE", "build BUNDLE -t TAG --output registry --base BASE")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("whose", FOREIGN)
def test_a_tag_of_others_stays_and_nothing_is_sent(bundle: Bundle, odd: Odd, base: str, line: str, whose: str) -> None:
    there = FOREIGN[whose](odd)
    blobs = dict(odd.blobs)

    done = run(*_words(line, bundle, odd, base))

    assert (done.code, done.stdout) == (1, ""), done
    assert f"{odd.host}/a/b:1 names " in done.stderr
    assert "which stays" in done.stderr
    assert "say --mirror" in done.stderr
    assert "\x1b" not in done.stderr
    assert (odd.manifests, odd.blobs) == ({"1": there}, blobs)
    assert not {"PUT", "POST", "PATCH"} & set(odd.methods)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("whose", ["no label", "deploytk's, of another bundle", "several platforms"])
def test_with_mirror_it_is_taken_over(bundle: Bundle, odd: Odd, base: str, line: str, whose: str) -> None:
    there = FOREIGN[whose](odd)

    done = run(*_words(line, bundle, odd, base), "--mirror", "--json")

    assert done.code == 0, done.stderr
    assert odd.manifests["1"] != there


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("whose", OWN)
def test_an_older_image_of_the_same_bundle_is_replaced(
    bundle: Bundle, odd: Odd, base: str, line: str, whose: str
) -> None:
    there = OWN[whose](odd)

    done = run(*_words(line, bundle, odd, base), "--json")

    assert done.code == 0, done.stderr
    assert odd.manifests["1"] != there
    assert run(*_words(line, bundle, odd, base), "--json").code == 0  # once more: it is ours


def test_plan_says_that_the_run_would_stop_and_what_mirror_would_take(bundle: Bundle, odd: Odd, base: str) -> None:
    _put(odd, {})
    words = _words(LINES[0], bundle, odd, base)

    stopped, taken = run(*words, "--plan", "--json"), run(*words, "--plan", "--mirror", "--json")

    (obstacle,) = json.loads(stopped.stdout)["obstacles"]
    assert (stopped.code, taken.code) == (1, 0)
    assert obstacle["message"] == f"{odd.host}/a/b:1 names an image that deploytk did not make, which stays"
    assert [one["path"] for one in json.loads(taken.stdout)["changes"] if one["status"] == "deleted"] == [
        f"{odd.host}/a/b:1: an image that deploytk did not make"
    ]
    assert odd.manifests.keys() == {"1"}


def test_an_image_of_others_is_published_where_its_tag_is_free_or_names_it_already(odd: Odd, tmp_path: Path) -> None:
    """Of an image that deploytk did not make nothing says whose it is: the very same one alone is no other."""
    base = f"oci:{write_base(tmp_path / 'base', {**python_files(), 'usr/bin/sh': elf()})}"
    there = PublishOptions(repo=f"{odd.host}/a/b:1")
    Oci().publish_image(base, there, Silent())

    assert Oci().publish_image(base, there, Silent()).uploaded_files == 0
    _put(odd, {})
    with pytest.raises(ImageError, match="that deploytk did not make, which stays"):
        Oci().publish_image(base, there, Silent())
    Oci().publish_image(base, PublishOptions(repo=there.repo, is_mirror=True), Silent())


def test_a_tag_is_looked_at_before_a_runtime_is_built(
    bundle: Bundle, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(odd, {})
    monkeypatch.setattr("deploytk.image.build.runtime_base", lambda *_: pytest.fail("a runtime is built for nothing"))

    for push in (
        lambda: Oci(OciOptions()).publish(bundle, PublishOptions(repo=f"{odd.host}/a/b:1"), Silent()),
        lambda: build_image(bundle, BuildOptions(f"{odd.host}/a/b:1", "registry"), Silent()),
        lambda: require_own_tag(f"{odd.host}/a/b:1", "tiny"),
    ):
        with pytest.raises(ImageError, match="which stays"):
            push()


def test_mirror_of_a_build_that_pushes_nothing_is_bad_usage(bundle: Bundle) -> None:
    done = run("build", str(bundle.path), "-t", "a:1", "--mirror")

    assert done.code == 2
    assert "--mirror does nothing here" in done.stderr
