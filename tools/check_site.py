"""Every link of the built site that leads into it ends at a page or a file that is there, and at a place in it."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag


class _Page(HTMLParser):
    """Where a page leads, and the places in it that can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places = {"", "top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        self.links += [found[name] for name in ("href", "src") if name in found and tag != "base"]


def broken(site: Path) -> list[str]:
    """PAGE -> LINK for each that leads nowhere."""
    pages = {path.resolve(): _Page(path) for path in sorted(site.rglob("*.html"))}
    return [
        f"{path.relative_to(site.resolve())} -> {link}"
        for path, page in pages.items()
        for link in dict.fromkeys(page.links)
        if not _leads(link, path, site.resolve(), pages)
    ]


def _leads(link: str, page: Path, site: Path, pages: dict[Path, _Page]) -> bool:
    address, place = urldefrag(link)
    if "://" in address or address.startswith(("mailto:", "data:")):
        return link.isascii()  # what follows an address without a space becomes part of it, in Chinese too
    words = unquote(address.partition("?")[0])
    target = page if not words else site / words.lstrip("/") if words.startswith("/") else page.parent / words
    target = (target / "index.html" if target.is_dir() else target).resolve()
    return target.is_file() and (target not in pages or unquote(place) in pages[target].places)


def main() -> int:
    found = broken(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads to something", file=sys.stderr if found else sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
