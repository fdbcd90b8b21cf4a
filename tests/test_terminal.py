"""Text of others on its way to a terminal: nothing in it is obeyed, and JSON stays exact."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

import deploytk
from deploytk.base import progress as progress_module
from deploytk.base.json import to_json
from deploytk.base.progress import Bars, Lines
from deploytk.base.terminal import COMMANDS, console, one_line, printable

TITLE = "\x1b]0;owned\x07"
HOSTILE = f"a{TITLE}b\x9b2Jc\u202ed\u2066e\x7ff\x00g\rh\ud800i\U000e0041j\u2028k"
# What moves, hides or turns round text: no byte of it may be left.
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\x7f", "\x00", "\r", "\ud800", "\U000e0041", "\u2028")


def test_what_a_terminal_would_obey_is_written_as_an_escape() -> None:
    assert printable(HOSTILE) == (
        "a\\x1b]0;owned\\x07b\\x9b2Jc\\u202ed\\u2066e\\x7ff\\x00g\\x0dh\\ud800i\\U000e0041j\\u2028k"
    )


def test_every_character_that_turns_or_hides_text_is_written_as_an_escape() -> None:
    codes = [*range(9), *range(0xB, 0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F)]
    codes += [*range(0x2066, 0x206A), 0x2028, 0x2029, 0xFEFF, *range(0xFFF9, 0xFFFC), 0xE0000, 0xE007F, 0xD800, 0xDFFF]

    assert [hex(code) for code in codes if not printable(chr(code)).startswith("\\")] == []


@pytest.mark.parametrize("text", ["é 你好 مرحبا 👩‍👩‍👧 \t tab", "two\nlines", "नमस्ते", ""])
def test_plain_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_one_line_keeps_others_from_starting_a_line_of_ours() -> None:
    assert one_line("first\n hint: run this\x1b[2J", 300) == "first hint: run this\\x1b[2J"
    assert len(one_line("x" * 10_000, 300)) == 300


def test_json_is_exact_for_programs_and_harmless_for_terminals() -> None:
    text = to_json({"message": HOSTILE, "é": ["你"]})

    assert json.loads(text) == {"message": HOSTILE, "é": ["你"]}
    assert not COMMANDS.search(text)
    assert "你" in text


@pytest.mark.parametrize("kind", ["text", "table", "string", "markdown", "link"])
def test_a_console_shows_nothing_that_a_terminal_obeys(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    table = Table("name", "value")
    table.add_row(HOSTILE, Text(HOSTILE, style="bold"))
    shown = {
        "text": Text(HOSTILE, style="red"),
        "table": table,
        "string": f"{HOSTILE} [/nothing] [red]",
        "markdown": Markdown(f"# {HOSTILE}\n\n- {HOSTILE}"),
        "link": Markdown(f"[x](http://a/{TITLE})", hyperlinks=False),
    }

    console().print(shown[kind])

    out = capsys.readouterr().out
    assert "]0;owned" not in out or "\\x1b]0;owned" in out
    styled = out.replace("\x1b[", "")  # rich's own colours
    assert not any(mark in styled for mark in OBEYED)


def test_square_brackets_and_colons_of_a_text_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "pip install 'deploytk[cpu]' [red]x[/red] [/nothing] :smile: [link=http://a]b"
    table = Table(text, title=text, caption=text)
    table.add_row(text)

    console().print(text, Text(text), table, soft_wrap=True)

    assert capsys.readouterr().out.count(text) == 6


@pytest.mark.parametrize("progress", [Lines(), Bars()])
def test_progress_shows_nothing_that_a_terminal_obeys(
    progress: Lines | Bars, capsys: pytest.CaptureFixture[str]
) -> None:
    progress.note(HOSTILE)
    with progress.task(f"{HOSTILE}[/nothing]", 10) as advance:
        advance(10)

    shown = capsys.readouterr().err.replace("\x1b[", "")
    assert shown
    assert not any(mark in shown for mark in OBEYED if mark != "\r")


def test_nothing_reaches_a_terminal_but_through_the_one_place() -> None:
    """A console of rich is made in base/terminal.py alone, and whatever is printed goes through `printable`."""
    package = Path(deploytk.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                argument = node.args[0] if node.args else None
                is_safe = isinstance(argument, ast.Call) and getattr(argument.func, "id", "") == "printable"
                if node.func.id == "Console" or (node.func.id == "print" and not is_safe):
                    found.append(f"{path.relative_to(package)}:{node.lineno}")

    # The engine's own word about a missing package, which nobody else can have written.
    assert [place for place in found if not place.startswith(("base/terminal.py", "cpu_engine/__main__.py"))] == []


def test_plain_lines_say_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 6.0, 6.0, 406.0, 406.0, 410.0])
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    with Lines().task("layers", 96, "steps") as advance:
        advance(2)
        advance(30)

    # 2 of 96 in 6 s: 94 more in 282 s; 32 of 96 in 406 s: 64 more in 812 s.
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["layers: 2 of 96, about 5 min left", "layers: 32 of 96, about 14 min left"]
