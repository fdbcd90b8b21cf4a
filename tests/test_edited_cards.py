"""A card is its owner's to edit, on the hub's own page as well: nobody's words are written over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from remotes import Make, OnDisk, OnHuggingFace, OnModelScope, OnOpenXLab, Remote, git, publish, put_in

from deploytk.base.errors import ReleaseError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, read_bundle, settle_edits
from deploytk.publish.edited import _OF_A_NEW_SPACE, EditedError, with_their_words
from deploytk.publish.options import EditedCard, PublishOptions
from deploytk.publish.record import record_path
from deploytk.publish.release import plan_release
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.huggingface.options import HuggingFaceOptions
from deploytk.publish.targets.modelscope import ModelScope
from deploytk.publish.targets.modelscope.options import ModelScopeOptions
from deploytk.publish.targets.openxlab import OpenXLab
from deploytk.publish.targets.openxlab.app import app_place
from deploytk.publish.targets.openxlab.options import OpenXLabOptions

pytest_plugins = "remotes"  # its fixtures

WORDS = "Hers: it speaks Latin too."


def _edit(remote: Remote) -> bytes:
    """What a person does on the hub's page: a paragraph more."""
    edited = remote.files()["README.md"] + f"\n{WORDS}\n".encode()
    remote.put("README.md", edited)
    return edited


def _write_words(bundle: Bundle, text: str) -> Bundle:
    """Both cards of the bundle, ending in `text`."""
    for name, card in bundle.manifest.card.generated.items():
        (bundle.path / name).write_text(card + text)
    return settle_edits(read_bundle(bundle.path), Silent())


def test_a_card_that_was_edited_there_is_not_written_over(remote: Remote, make: Make) -> None:
    publish(remote, make())
    edited = _edit(remote)
    bundle = make(notes=b"new")

    plan = plan_release(bundle, remote.target, PublishOptions(repo=remote.repo), Silent())
    with pytest.raises(EditedError, match=r"README\.md of .* was edited there; nothing was sent") as caught:
        publish(remote, bundle)

    assert [one.message for one in plan.obstacles] == [str(caught.value)]
    assert (caught.value.exit_code, str(bundle.path) in caught.value.hint) == (1, True)
    assert "--edited-card keep" in caught.value.hint
    assert remote.files()["README.md"] == edited
    assert "notes.txt" not in remote.files()


def test_what_was_edited_there_is_taken_into_the_bundle(remote: Remote, make: Make) -> None:
    publish(remote, make())
    _edit(remote)
    bundle = make(notes=b"new")

    release = publish(remote, bundle, edited_card="keep")
    again = publish(remote, read_bundle(bundle.path))

    assert (release.verified, again.uploaded_files) == (True, 0)
    files = remote.files()
    assert (files["notes.txt"], WORDS in files["README.md"].decode()) == (b"new", True)
    own = (bundle.path / ("README_zh.md" if "README_en.md" in files else "README.md")).read_text()
    assert WORDS in own
    assert "git clone" not in own  # how to download it is told by each hub itself
    assert "hf download" not in own


def test_an_edited_card_is_told_of_where_nothing_else_has_changed(local: OnDisk, make: Make) -> None:
    bundle = make()
    publish(local, bundle)
    edited = _edit(local)

    with pytest.raises(EditedError, match="was edited there"):
        publish(local, bundle)

    assert local.files()["README.md"] == edited


def test_an_edited_card_is_replaced_by_the_word(modelscope: OnModelScope, make: Make) -> None:
    publish(modelscope, make())
    before = modelscope.files()["README.md"]
    _edit(modelscope)

    publish(modelscope, make(), edited_card="replace")

    assert modelscope.files()["README.md"] == before


def test_words_that_were_put_into_the_bundle_by_hand_are_enough(modelscope: OnModelScope, make: Make) -> None:
    publish(modelscope, make())
    edited = _edit(modelscope)

    publish(modelscope, _write_words(make(), f"\n{WORDS}\n"))

    assert modelscope.files()["README.md"] == edited


def test_words_that_an_owner_takes_out_of_the_bundle_go(modelscope: OnModelScope, make: Make) -> None:
    bundle = make()
    publish(modelscope, _write_words(bundle, f"\n{WORDS}\n"))
    assert WORDS in modelscope.files()["README.md"].decode()

    publish(modelscope, _write_words(bundle, ""))

    assert WORDS not in modelscope.files()["README.md"].decode()


def test_words_in_a_release_that_a_bundle_elsewhere_lacks_are_not_lost(modelscope: OnModelScope, make: Make) -> None:
    """As in CI, which makes the bundle of the model each time: it knows nothing of what was written into another."""
    publish(modelscope, _write_words(make(), f"\n{WORDS}\n"))
    bundle = make()
    record_path(bundle).unlink()

    with pytest.raises(EditedError, match="was edited there"):
        publish(modelscope, bundle)

    assert WORDS in modelscope.files()["README.md"].decode()


def test_words_that_were_there_before_the_first_release_are_not_written_over(
    modelscope: OnModelScope, make: Make
) -> None:
    card = b"# Tiny\n\nMy own words.\n"
    modelscope.put("README.md", card)

    for choice in ("refuse", "keep"):  # of what it was made is not known: nothing can be merged
        with pytest.raises(EditedError, match="words of others") as caught:
            publish(modelscope, make(), edited_card=choice)

    assert "--notes" in caught.value.hint
    assert modelscope.files()["README.md"] == card


def test_a_card_in_another_encoding_is_not_written_over_and_not_merged(modelscope: OnModelScope, make: Make) -> None:
    publish(modelscope, make())
    card = "# 模型\n\n她写的。\n".encode("gbk")
    modelscope.put("README.md", card)

    with pytest.raises(EditedError, match="words of others"):
        publish(modelscope, make(notes=b"new"), edited_card="keep")

    assert modelscope.files()["README.md"] == card


def test_a_card_with_a_head_alone_as_forms_write_it_has_no_words(modelscope: OnModelScope, make: Make) -> None:
    modelscope.put("README.md", b"---\nlicense: mit\n---\n\n")

    release = publish(modelscope, make())

    assert "README.md" not in release.kept_files


# The same of the repository of an app


SPACE_EDITS = ((b"sdk: docker", b"sdk: static"), (b"colorFrom: blue", b"colorFrom: pink\npinned: true"))


def _space(huggingface: OnHuggingFace, monkeypatch: pytest.MonkeyPatch) -> OnHuggingFace:
    monkeypatch.setenv("HF_APP_TOKEN", "w0rd-that-may-read")
    huggingface.target = HuggingFace(HuggingFaceOptions(app=True, wait=0), patience_s=3.0, poll_s=0.02)
    return OnHuggingFace(huggingface.hub, huggingface.target, "me/tiny-app", "spaces")


def test_the_readme_of_a_space_is_its_owners_to_edit(
    huggingface: OnHuggingFace, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = _space(huggingface, monkeypatch)
    bundle = make()
    publish(huggingface, bundle)
    made = space.files()["README.md"]
    edited = made + f"\n{WORDS}\n".encode()
    for before, after in SPACE_EDITS:
        edited = edited.replace(before, after)
    space.put("README.md", edited)

    plan = huggingface.target.preview(bundle, PublishOptions(repo="me/tiny"))
    with pytest.raises(ReleaseError, match=r"README\.md of me/tiny-app was edited there; nothing was sent") as caught:
        publish(huggingface, make(notes=b"new"))

    assert [one.message for one in plan.obstacles] == [str(caught.value)]
    assert space.files()["README.md"] == edited
    assert "notes.txt" not in huggingface.files()

    publish(huggingface, bundle, edited_card="keep")
    again = publish(huggingface, bundle)  # what was kept once stays, unasked

    kept = space.files()["README.md"].decode()
    # What the Space runs with is ours; the rest of its head, and what is below it, is theirs.
    assert [line in kept for line in ("sdk: docker", "colorFrom: pink", "pinned: true", WORDS)] == [True] * 4
    assert "sdk: static" not in kept
    assert (again.uploaded_files, again.app_replaced_files) == (0, ())

    publish(huggingface, bundle, edited_card="replace")

    assert space.files()["README.md"] == made


OWNED = ("sdk",)
MADE = "---\nsdk: docker\ntitle: tiny\n---\n\nServes tiny.\n"


def _there(text: str, generated: str | None, sent: str | None = None) -> Callable[[str], bytes | None]:
    """A repository with that README.md, whose deploytk.json tells what was `generated`, and what was `sent`."""
    content = (sent or "").encode()
    named = {"README.md": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    manifest = {"card": {"generated": {"README.md": generated}}, "files": named}
    files = {"README.md": text.encode()} | ({"deploytk.json": json.dumps(manifest).encode()} if generated else {})
    return files.get


@pytest.mark.parametrize(
    ("there", "choice", "becomes"),
    [
        (_there(MADE, MADE, MADE), "refuse", MADE),
        (_there(f"{MADE}Hers.\n", MADE, f"{MADE}Hers.\n"), "refuse", f"{MADE}Hers.\n"),  # kept by an earlier release
        (_there(f"{MADE}Hers.\n", MADE, MADE), "refuse", None),
        (_there(f"{MADE}Hers.\n", MADE, MADE), "keep", f"{MADE}Hers.\n"),
        (_there(f"{MADE}Hers.\n", MADE, MADE), "replace", MADE),
        (_there("Hers.\n", None), "refuse", None),
        (_there("Hers.\n", None), "keep", "---\nsdk: docker\ntitle: tiny\n---\n\nHers.\n"),
        (_there("---\nsdk: static\n---\n\nHers.\n", None), "keep", "---\nsdk: docker\n---\n\nHers.\n"),
        # As a hub makes it with a Space.
        (_there(f"---\nsdk: docker\nemoji: 🔥\n---\n\n{_OF_A_NEW_SPACE}\n", None), "refuse", MADE),
        # Its own key is moved: that is no other value.
        (_there("---\ntitle: mine\nsdk: docker\n---\n\nServes tiny.\n", MADE, MADE), "refuse", None),
    ],
)
def test_what_becomes_of_the_readme_of_an_app(
    there: Callable[[str], bytes | None], choice: EditedCard, becomes: str | None
) -> None:
    if becomes is None:
        with pytest.raises(ReleaseError, match="nothing was sent"):
            with_their_words("me/tiny-app", MADE, there, OWNED, choice)
    else:
        assert with_their_words("me/tiny-app", MADE, there, OWNED, choice) == becomes


def test_the_readme_of_a_studio_is_its_owners_to_edit(modelscope: OnModelScope, make: Make) -> None:
    """The client hands out no file of a Studio: what was made of it can be left there, not merged."""
    modelscope.target = ModelScope(ModelScopeOptions(app=True, wait=5.0))
    bundle = make()
    publish(modelscope, bundle)
    studio = modelscope.hub.studios["me/tiny"]
    made = studio.files["README.md"]
    edited = studio.files["README.md"] = made + WORDS.encode()
    new = make(notes=b"new")

    with pytest.raises(ReleaseError, match=r"README\.md of the Studio me/tiny was edited there; nothing was sent"):
        publish(modelscope, new)
    assert "notes.txt" not in modelscope.files()

    release = publish(modelscope, new, edited_card="keep")
    assert ("README.md" in release.app_kept_files, studio.files["README.md"]) == (True, edited)

    publish(modelscope, make(), edited_card="replace")
    assert studio.files["README.md"] == made


def test_a_card_beside_the_app_is_taken_into_the_bundle(openxlab: OnOpenXLab, make: Make, tmp_path: Path) -> None:
    """Both where the app is written to and where it is pushed."""
    remote = tmp_path / "app.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(remote))
    openxlab.target = OpenXLab(OpenXLabOptions(app_remote=str(remote)), patience_s=2.0)
    bundle = make()
    publish(openxlab, bundle)
    card = git(remote, "cat-file", "blob", "main:README.md")
    put_in(remote, "README.md", card + b"\nPushed.\n")
    here = app_place(bundle) / "README.md"
    here.write_bytes(b"Written.\n\n" + here.read_bytes())

    with pytest.raises(EditedError, match="was edited there; nothing was sent"):
        publish(openxlab, bundle)
    publish(openxlab, bundle, edited_card="keep")

    text = git(remote, "cat-file", "blob", "main:README.md").decode()
    assert ("Pushed." in text, "Written." in text) == (True, True)
    assert openxlab.files()["README.md"].decode() == here.read_text() == text


def test_the_files_are_listed_once_before_and_once_after(modelscope: OnModelScope, make: Make) -> None:
    publish(modelscope, make(notes=b"old"))
    _edit(modelscope)
    modelscope.hub.requests.clear()

    publish(modelscope, make(), edited_card="replace")

    # Of one repository the client asks for the root and for each of two directories: three requests are a listing.
    listings = [one for one in modelscope.hub.requests if "/repo/files" in one]
    assert len(listings) == 2 * len(set(listings))
