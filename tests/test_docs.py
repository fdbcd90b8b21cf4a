"""The documentation is held to the command line: what it names exists, and what exists is named."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
import take_pictures
from commands import NAMES, options_of, run
from test_layers import ORDER

from deploytk.base.settings import BudgetSettings, Mirrors, load_settings
from deploytk.cli.tables import tables
from deploytk.publish.options import declared
from deploytk.publish.target import installed_targets, loadable_targets

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
DESIGN = (ROOT / "docs" / "design.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
ANYWHERE = {"--quiet", "--verbose", "-q", "-v"}


def _options(name: str) -> set[str]:
    """Those of a command, of `publish` with any target."""
    of_targets = {
        f"--{option.replace('_', '-')}" for one in loadable_targets() for option in declared(one.about.options)
    }
    return options_of(name) | ANYWHERE | (of_targets if name == "publish" else set())


def _rows() -> dict[str, str]:
    """The design's table: command -> all that it says of its options."""
    found: dict[str, str] = {}
    table = DESIGN.partition("| command | does |")[2].partition("\n\n")[0]
    for code in re.findall(r"`([^`]*)`", "\n".join(row.split(" | ")[0] for row in table.splitlines())):
        name = next((name for name in NAMES if f"{code} ".startswith(f"{name} ")), code.split()[0])
        found[name] = f"{found.get(name, '')} {code}"
    return found


def _lines() -> list[tuple[str, str]]:
    """Every command line in the documentation: the page, and what stands behind `deploytk`."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        code = re.findall(r"`([^`\n]+)`", text) + [
            line.strip() for block in re.findall(r"```.*?\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
        ]
        for line in code + [line.strip() for line in text.splitlines() if line.startswith("    deploytk ")]:
            # Up to what a shell or a comment has behind the command.
            found += [(page.name, words) for words in re.findall(r"(?:^|&& |; |\$ )deploytk ([^|#;&>]*)", line)]
    return found


def _command_of(line: str) -> str | None:
    """The command that a line calls; None where it names none, as in `deploytk --help`."""
    words = [word for word in line.split() if word not in ANYWHERE]
    if not words or words[0].startswith("-"):
        return None
    return " ".join(words[:2]) if " ".join(words[:2]) in NAMES else words[0]


def test_the_design_has_a_row_for_every_command_and_for_no_other() -> None:
    assert _rows().keys() == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_design_names_options_that_the_command_has(name: str) -> None:
    assert {*OPTION.findall(_rows()[name])} - _options(name) == set()


def test_the_design_names_every_target() -> None:
    assert {*re.findall(r"[a-z]+", _rows()["publish"])} >= {*installed_targets()}


@pytest.mark.parametrize("name", NAMES)
def test_the_pages_for_users_say_how_every_command_is_called(name: str) -> None:
    """The generated reference aside, which says it of itself."""
    pages = [
        page for page in PAGES if page.parent.name in ("docs", "howto", "targets") or page.name.startswith("README")
    ]
    text = "".join(page.read_text() for page in pages if page.name != "design.md")

    assert f"deploytk {name}" in text


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_a_row_for_every_command(page: str) -> None:
    rows = re.findall(r"^\| `deploytk ([^`]*)`", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)

    assert {_command_of(row) for row in rows} == {*NAMES}


def test_the_json_has_the_keys_that_the_design_names(tmp_path: Path) -> None:
    model, bundle = str(ROOT / "tests" / "models" / "hf-awq"), str(tmp_path / "bundle")
    runs = {
        "inspect": ["inspect", model],
        # It does not fit, so that alternatives are there, on a card whose bandwidth is known.
        "plan": ["plan", model, "--gpu", "A10", "--max-batch-size", "100000"],
        "package": ["package", model, "-o", bundle],
        "publish": ["publish", bundle, "--target", "local", "--repo", str(tmp_path / "hub")],
    }

    for name, words in runs.items():
        said = _keys(json.loads(run(*words, "--json").stdout))
        assert sorted(_designed_keys(name) - said) == [], name


def _designed_keys(name: str) -> set[str]:
    block = DESIGN.partition("JSON keys that others call")[2].partition("\n## ")[0]
    of_command = re.search(rf"^    {name} (.*?)(?=^    \w|\Z)", block, re.MULTILINE | re.DOTALL)
    assert of_command
    always = of_command[1].partition("; with --plan")[0]
    return {*re.findall(r"[a-z_]+", re.sub(r"\([^)]*\)|\[path\]", "", always))}


def _keys(value: object) -> set[str]:
    if isinstance(value, list):
        return {key for one in value for key in _keys(one)}
    return {*value} | {key for one in value.values() for key in _keys(one)} if isinstance(value, dict) else set()


def test_every_command_line_in_the_documentation_is_one() -> None:
    lines = _lines()
    unknown = [(page, line) for page, line in lines if (name := _command_of(line)) and name not in NAMES]
    stray = [
        (page, line, option)
        for page, line in lines
        if (name := _command_of(line)) in NAMES
        for option in OPTION.findall(line)
        if option not in _options(str(name))
    ]

    assert len(lines) > 30
    assert (unknown, stray) == ([], [])


def test_every_option_in_inline_code_is_one_of_ours() -> None:
    ours = {option for name in NAMES for option in _options(name)} | {"--version"}
    named = [(page.name, code) for page in PAGES for code in re.findall(r"`(--[^`\n]+)`", page.read_text())]

    assert [(page, code) for page, code in named if {*OPTION.findall(code)} - ours] == []


def test_the_design_describes_every_room() -> None:
    house = DESIGN.partition("## The house")[2].partition("## Commands")[0]
    described = {name for line in re.findall(r"^    ([a-z_/, ]+?)  ", house, re.MULTILINE) for name in line.split(", ")}

    rooms = {name for name in ORDER if not name.startswith("__")}
    assert rooms <= {name.strip("/ ") for name in described}


def test_the_picture_in_contributing_has_every_room() -> None:
    picture = (ROOT / "CONTRIBUTING.md").read_text().partition("## The house")[2].partition("All of that is")[0]

    assert [
        room
        for room in ORDER
        if not room.startswith("__") and room not in ("doctor", "demo") and f"{room}/" not in picture
    ] == []


def _prose(page: Path) -> str:
    """Without what stands in a code block or between backticks, where nothing is a link."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL))


def test_every_link_of_the_documentation_leads_to_something() -> None:
    """To a file, which the site has too, or into our repository, to what is there."""
    links = [(page, link.partition("#")[0]) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page))]
    beside = [(page, link) for page, link in links if link and "://" not in link]
    own = re.compile(r"https://github\.com/deploytk/deploytk/(?:blob|tree)/main/(.+)")
    far = [(page, found[1]) for page, link in links if (found := own.match(link))]

    assert len(beside) > 20
    assert [(page.name, link) for page, link in beside if not (page.parent / link).is_file()] == []
    assert len(far) > 10
    assert [(page.name, path) for page, path in far if not (ROOT / path).exists()] == []


def test_an_address_ends_where_it_ends() -> None:
    """GitHub and the site take for a part of it what follows without a space: a comma in Chinese, a whole sentence."""
    swallowing = re.compile(r"(?<![<(])(?:https?://|\bwww\.)[!-~]*[^\x00-\x7f]")

    assert [(page.name, found[0]) for page in PAGES for found in swallowing.finditer(_prose(page))] == []


def test_the_design_names_every_dependency_and_extra_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = DESIGN.partition("## Dependencies\n")[2].partition("LMDeploy lives")[0]
    core, _, extras = re.sub(r"\([^)]*\)", "", said).partition("Extras:")
    described = {name: _names(words) for name, words in re.findall(r"`\[(\w+)\]`([^`]*)", " ".join(extras.split()))}

    assert _names(core.partition("Core:")[2]) == _packages(project["dependencies"])
    assert described == {name: _packages(needs) for name, needs in project["optional-dependencies"].items()}


def test_every_extra_that_is_named_anywhere_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    code = [*(ROOT / "toolkit").rglob("*.py"), *(ROOT / "templates").rglob("*.j2")]
    named = [
        (path.name, extra)
        for path in (*PAGES, *code)
        for listed in re.findall(r"deploytk\[([\w, -]+)\]", path.read_text(encoding="utf-8"))
        for extra in listed.replace(" ", "").split(",")
    ]

    assert len(named) > 5
    assert [(page, extra) for page, extra in named if extra not in extras] == []


def _names(words: str) -> set[str]:
    return {word.lower() for word in re.split(r",| and |[\s.`]", words) if word}


def _packages(needs: list[str]) -> set[str]:
    return {re.split(r"[>=<;\[ ]", need)[0].lower() for need in needs}


def test_every_deploytk_toml_in_the_documentation_is_read(tmp_path: Path) -> None:
    blocks = [block for page in PAGES for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]
    file = tmp_path / "deploytk.toml"

    assert blocks
    for block in blocks:
        file.write_text(block)
        assert load_settings(file, tables).text


def test_the_page_of_deploytk_toml_names_every_mirror_and_budget() -> None:
    page = (ROOT / "docs" / "reference" / "deploytk-toml.md").read_text()
    keys = [field.name for kind in (Mirrors, BudgetSettings) for field in dataclasses.fields(kind)]

    assert [key for key in keys if f"`{key}" not in page] == []


def test_the_picture_of_the_readme_shows_commands_that_exist_and_loads_nothing() -> None:
    picture = (ROOT / "docs" / "screenshots" / "tour.svg").read_text(encoding="utf-8").replace("&#160;", " ")

    for command, _ in take_pictures.TOUR:
        name = command.split()[1]
        assert command in picture
        assert name in NAMES
        assert {*OPTION.findall(command)} - _options(name) == set()
    assert "url(" not in picture.replace("url(#", "")
