"""The site: every page is reachable, and `make docs` builds what the repository holds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import check_site

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
# Tables that `bench` wrote: the results link to them.
NOT_IN_THE_MENU = {f"results/h200/{bench}/report.md" for bench in ("bench-speed", "bench-vram", "two-gpus/bench")}


def _pages(menu: list[Any]) -> Iterator[str]:
    for entry in menu:
        for below in entry.values():
            yield from [below] if isinstance(below, str) else _pages(below)


def test_every_page_is_in_the_menu_once_and_every_entry_is_a_page() -> None:
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]

    assert sorted(_pages(PROJECT["nav"])) == sorted({*pages} - NOT_IN_THE_MENU)


def test_no_page_loads_anything_from_elsewhere() -> None:
    assert PROJECT["theme"]["font"] is False


def test_a_link_of_the_site_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    """As `make docs` asks of all pages: files, places in them, addresses that swallowed the words behind them."""
    (tmp_path / "a").mkdir()
    (tmp_path / "picture.png").touch()
    good = '<a href="../#here">x</a> <img src="../picture.png"> <a href="https://e.org/?a#b">x</a> <a href="#top">x</a>'
    bad = '<a href="../b/">x</a> <a href="../#there">x</a> <a href="#no">x</a> <a href="http://127.0.0.1：这">x</a>'
    (tmp_path / "index.html").write_text('<h1 id="here">x</h1> <a href="a/">x</a> <a href="/a/">x</a>')
    (tmp_path / "a" / "index.html").write_text(good + bad)

    found = check_site.broken(tmp_path)

    assert found == [f"a/index.html -> {link}" for link in ("../b/", "../#there", "#no", "http://127.0.0.1：这")]
