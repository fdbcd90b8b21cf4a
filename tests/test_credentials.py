"""Tokens are asked for at a terminal, unseen, and never where nobody is."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from deploytk.base.credentials import ask_token, find_credential

ASK = "from deploytk.base.credentials import ask_token; import sys; sys.exit(ask_token('a hub') != 'hf_secret')"


def test_a_person_at_a_terminal_is_asked_and_what_they_type_is_not_shown() -> None:
    terminal, inside = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", ASK], stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)

    shown = b""
    while b"not shown" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, b"hf_secret\n")

    assert child.wait(20) == 0
    shown += os.read(terminal, 1024)
    assert b"Access token of a hub" in shown
    assert b"hf_secret" not in shown
    os.close(terminal)


def test_nobody_is_asked_without_a_terminal() -> None:
    assert ask_token("a hub") == ""


def test_where_tokens_come_from_is_told_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOON_TOKEN", "moon-secret")

    found = find_credential("moon", ("MOON_TOKEN",), hint="set MOON_TOKEN")

    assert found.source == "the environment, MOON_TOKEN"
    assert "moon-secret" not in repr(found)
    assert find_credential("moon", ("MOON_TOKEN", "MOON_NAME"), hint="set both").source is None
