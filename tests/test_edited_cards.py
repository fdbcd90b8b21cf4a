"""A card is its owner's to edit, on the hub's own page as well: nobody's words are written over."""

from __future__ import annotations

import pytest
from remotes import Make, OnDisk, OnModelScope, Remote, publish

from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, read_bundle, settle_edits
from deploytk.publish.edited import EditedError
from deploytk.publish.options import PublishOptions
from deploytk.publish.record import record_path
from deploytk.publish.release import plan_release

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
