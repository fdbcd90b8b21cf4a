"""The pages in Chinese say what those in English say: the same headings, commands, options and tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
IN_CHINESE = sorted((DOCS / "zh").rglob("*.md"))
PAIRS = {page.relative_to(DOCS / "zh").as_posix(): (DOCS / page.relative_to(DOCS / "zh"), page) for page in IN_CHINESE}
PAIRS["the README"] = (ROOT / "README.md", ROOT / "README.zh-CN.md")
GUIDE = {
    page.relative_to(DOCS).as_posix()
    for page in (DOCS / "tutorial.md", *(DOCS / "howto").glob("*.md"), *(DOCS / "targets").glob("*.md"))
}


def test_tutorial_and_guide_are_there_in_chinese() -> None:
    assert sorted(GUIDE - PAIRS.keys()) == []


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_have_the_same_headings_lists_and_tables(name: str) -> None:
    english, chinese = (_shape(page.read_text(encoding="utf-8")) for page in PAIRS[name])

    assert chinese == english


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_have_the_same_commands(name: str) -> None:
    english, chinese = (_blocks(page.read_text(encoding="utf-8")) for page in PAIRS[name])

    assert chinese == english


@pytest.mark.parametrize("name", PAIRS)
def test_both_languages_name_the_same_options_variables_and_commands(name: str) -> None:
    english, chinese = (_words(page.read_text(encoding="utf-8")) for page in PAIRS[name])

    assert chinese == english


@pytest.mark.parametrize("name", PAIRS)
def test_a_page_in_chinese_is_in_chinese(name: str) -> None:
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", _prose(PAIRS[name][1].read_text(encoding="utf-8")))
    signs = len(re.findall(r"[\u4e00-\u9fff]", prose))

    # A word of English is five letters on average, one of Chinese two signs.
    assert signs / 2 > len(re.findall(r"[A-Za-z]", prose)) / 5


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _shape(text: str) -> list[str]:
    """Of every heading its level, of every row of a table its columns, of every item of a list that it is one."""
    found = []
    for line in _prose(text).splitlines():
        if re.match(r"#+ |- |\d\. ", line):
            found.append(line.split()[0])
        elif line.startswith("|"):
            found.append("|" * len(re.findall(r"(?<!\\)\|", line)))
    return found


def _blocks(text: str) -> list[str]:
    """Without comments, which are translated."""
    blocks = re.findall(r"^```(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"[ \t]+#.*$", "", block, flags=re.MULTILINE) for block in blocks]


def _words(text: str) -> set[str]:
    """What is the same in every language: options, variables, paths of the API, names of files."""
    prose = _prose(text)
    code = re.findall(r"`([^`\n]+)`", prose)
    return {*code, *re.findall(r"\b[A-Z]+_[A-Z_]+\b", prose)}
