"""Bash, zsh and fish themselves load what `deploytk --show-completion` prints, and complete commands and options."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import COMMANDS, NAMES, options_of
from conftest import require

PROGRAM = Path(sys.executable).with_name("deploytk")


def _environment(place: Path, **more: str) -> dict[str, str]:
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(place), "TERM": "dumb", "LANG": "C.UTF-8", **more}


def _fish(line: str, place: Path) -> list[str]:
    """What fish is given to choose from: a word, a tab and its description, one a line."""
    asked = {"_DEPLOYTK_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = _environment(place, **asked, _TYPER_COMPLETE_ARGS=line)
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.splitlines()


def test_a_description_is_one_line_and_whole(tmp_path: Path) -> None:
    """Broken at 80 columns, its second line was a word to choose from."""
    commands = dict(line.split("\t") for line in _fish("deploytk ", tmp_path))
    assert {*commands} == {name.split()[0] for name in NAMES}
    sentence = str(COMMANDS[("plan",)].help).partition("\n")[0]
    assert commands["plan"] == sentence
    assert len(sentence) > 80

    options = dict(line.split("\t") for line in _fish("deploytk publish x --", tmp_path))
    assert {*options} <= {one for one in options_of("publish") if one.startswith("--")}


def _script(shell: list[str], place: Path) -> Path:
    """What it prints to a shell, which it recognises as its parent."""
    done = subprocess.run(
        [*shell, "-c", "deploytk --show-completion; true"],
        env=_environment(place, SHELL=f"/usr/bin/{shell[0]}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (place / "script").write_text(done.stdout)
    return place / "script"


@pytest.mark.services
def test_bash_completes(tmp_path: Path) -> None:
    load = f"source {_script(['bash', '--norc'], tmp_path)}"
    words = {"pl": "plan", "plan x --session-l": "--session-len", "smoke --engine t": "turbomind"}
    for line, expected in words.items():
        typed = f"COMP_WORDS=(deploytk {line}); COMP_CWORD={len(line.split())}"
        ask = f"{load}; {typed}; _deploytk_completion deploytk; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(
            ["bash", "--norc", "-c", ask], env=_environment(tmp_path), capture_output=True, text=True, timeout=60
        )
        assert done.stdout.split() == [expected], done.stderr


@pytest.mark.services
def test_fish_completes(tmp_path: Path) -> None:
    require("fish")
    load = f"source {_script(['fish'], tmp_path)}"
    for line, expected in {"pl": "plan", "plan x --session-l": "--session-len", "dep": None}.items():
        ask = f"{load}; complete -C 'deploytk {line}'"
        done = subprocess.run(
            ["fish", "-c", ask], cwd=tmp_path, env=_environment(tmp_path), capture_output=True, text=True, timeout=60
        )
        assert [one.split("\t")[0] for one in done.stdout.splitlines()] == ([expected] if expected else []), done.stderr


@pytest.mark.services
def test_zsh_completes_what_is_typed(tmp_path: Path) -> None:
    """In a terminal: zsh completes only where somebody types."""
    require("zsh")
    script = _script(["zsh", "-f"], tmp_path)
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe("zsh", ["zsh", "-f", "-i"], _environment(tmp_path))
    try:
        os.write(terminal, f"autoload -Uz compinit; compinit -u -D; source {script}; echo it is re''ady\n".encode())
        _until(terminal, "it is ready")
        os.write(terminal, b"deploytk moder\t")
        _until(terminal, "modernize")
        os.write(terminal, b"x --to-fp\t")
        _until(terminal, "--to-fp16")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)


def _until(terminal: int, words: str) -> None:
    """Read until they are there. Zsh writes what it completed in pieces, among words that move the cursor."""
    said, deadline = "", time.monotonic() + 60
    while words not in said.replace("\b", "").replace("\r", ""):
        assert time.monotonic() < deadline, repr(said)
        if select.select([terminal], [], [], 1)[0]:
            said += os.read(terminal, 65536).decode(errors="replace")
