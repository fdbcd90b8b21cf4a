"""What `--help` says: every word that was written, at 80 columns, and nothing of Python."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from commands import COMMANDS, NAMES, run
from rich.markup import render

from deploytk.publish.options import declared
from deploytk.publish.target import loadable_targets

TARGETS = {target.about.name: target for target in loadable_targets()}
HELPS = (*NAMES, *(f"publish --target {name}" for name in TARGETS))


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")


@cache
def _help(words: str) -> str:
    return run(*words.split(), "--help").stdout


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _shown(name: str) -> list[Any]:
    return [one for one in COMMANDS[tuple(name.split())].params if not getattr(one, "hidden", False)]


@pytest.mark.parametrize("name", NAMES)
def test_every_word_and_every_option_of_a_help_is_shown_whole(name: str) -> None:
    shown = _without_spaces(_help(name))

    flags = [flag for one in _shown(name) if one.param_type_name == "option" for flag in one.opts]
    # --target of publish names the targets when it is shown.
    texts = [COMMANDS[tuple(name.split())].help, *(one.help for one in _shown(name) if one.name != "target")]
    assert [flag for flag in flags if flag not in shown] == []
    assert [text for text in texts if text and _without_spaces(text) not in shown] == []


@pytest.mark.parametrize("name", TARGETS)
def test_every_option_of_a_target_is_shown_whole(name: str) -> None:
    shown = _without_spaces(_help(f"publish --target {name}"))

    options = declared(TARGETS[name].about.options)
    assert [one for one in options if f"--{one.replace('_', '-')}" not in shown] == []
    assert [one.help for one in options.values() if _without_spaces(one.help) not in shown] == []


@pytest.mark.parametrize("name", HELPS)
def test_a_help_fits_into_80_columns_but_for_what_is_to_be_pasted(name: str) -> None:
    lines = _help(name).splitlines()

    assert [line for line in lines if len(line) > 80 and "Example:  deploytk" not in line] == []


@pytest.mark.parametrize("name", HELPS)
def test_a_help_shows_no_type_of_python(name: str) -> None:
    assert re.findall(r"<[a-z]|list\[|\bPath\b|\brange\b|\bNone\b", _help(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_shells_that_complete_show_every_word_too(name: str) -> None:
    """Typer reads descriptions for zsh, fish and PowerShell as rich's markup, whatever the help is written in."""
    texts = [COMMANDS[tuple(name.split())].help, *(one.help for one in _shown(name))]

    assert [text for text in texts if text and render(text).plain != text] == []


@pytest.mark.parametrize("name", ["", *NAMES])
def test_h_is_help(name: str) -> None:
    assert run(*name.split(), "-h").stdout == _help(name) != ""


@pytest.mark.parametrize("group", ["", "template", "config"])
def test_a_group_without_a_command_shows_its_help_and_is_bad_usage(group: str) -> None:
    done = run(*group.split())

    assert (done.code, done.stderr) == (2, "")
    assert done.stdout == _help(group)


def test_the_list_of_commands_has_their_sentences_whole() -> None:
    shown = _without_spaces(_help(""))

    sentences = [str(command.help).partition("\n\n")[0] for command in COMMANDS.values() if command.name in NAMES]
    assert [one for one in sentences if _without_spaces(one) not in shown] == []
