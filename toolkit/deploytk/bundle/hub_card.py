"""The card of a bundle as one hub shows it: how to download it from there, and the hub's own language first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from deploytk.base.errors import BundleError
from deploytk.base.files import disk_errors
from deploytk.bundle.links import link_or_copy
from deploytk.bundle.manifest import bundle_digest, to_text
from deploytk.bundle.value import CARDS, EDITABLE, ENGLISH_BESIDE, MANIFEST, SIGNATURE, Bundle, BundleFile

_START, _END = "<!-- deploytk: how to download it -->", "<!-- /deploytk -->"
EMPTY_DOWNLOAD = f"{_START}\n{_END}\n"
"""Where a card says how to download it, once it is somewhere."""

_PLACE = re.compile(f"{_START}.*?{_END}\n", re.DOTALL)
_FRONT = re.compile(r"---\n(.*?\n)?---\n+", re.DOTALL)
_ENGLISH, _CHINESE = CARDS


@dataclass(frozen=True, slots=True)
class HubCard:
    """What a hub's own card says of it."""

    title: str  # of the hub
    commands: tuple[str, ...]  # that bring the model into a directory, and enter it
    login: str | None = None  # the command that a private repository wants first; None: git asks
    is_chinese: bool = False  # its readers are
    head: str = ""  # more of YAML at the head of a card, as the hub reads it


@contextmanager
def shown_on(bundle: Bundle, hub: HubCard | None, *, will_be_signed: bool = False) -> Iterator[Bundle]:
    """`bundle` with the cards of that hub, in a place that goes: links to the files and directories of the bundle.

    One that is signed is left as it was signed. What will be signed has no symbolic links: they cannot be.
    """
    cards = _cards(bundle, hub) if hub and not (bundle.path / SIGNATURE).is_file() else {}
    if not cards:
        yield bundle
        return
    beside = bundle.path.resolve().parent if will_be_signed else None
    with TemporaryDirectory(prefix=".deploytk-", dir=beside) as directory:
        place = Path(directory) / bundle.path.resolve().name
        with disk_errors(place, BundleError):
            shown = _written(bundle, cards, place, has_own_files=will_be_signed)
        yield shown


def _cards(bundle: Bundle, hub: HubCard) -> dict[str, tuple[str, str | None]]:
    """Name -> the card as it is shown, and as it would be if nobody had edited it."""
    try:
        texts = canonical({name: (bundle.path / name).read_text(encoding="utf-8") for name in _there(bundle)})
    except UnicodeDecodeError:  # what no hub takes is for the target to say
        return {}
    if not any(_PLACE.search(text) for text in texts.values()):
        return {}
    generated = _for_hub(canonical(bundle.manifest.card.generated), hub)
    return {name: (text, generated.get(name)) for name, text in _for_hub(texts, hub).items()}


def _there(bundle: Bundle) -> list[str]:
    return [name for name in EDITABLE if (bundle.path / name).is_file()]


def canonical(texts: Mapping[str, str]) -> dict[str, str]:
    """The cards by the names that they are generated under, wherever they have been shown since."""
    if ENGLISH_BESIDE not in texts or _ENGLISH not in texts:
        return dict(texts)
    head, chinese = _parted(texts[_ENGLISH])
    return {
        _ENGLISH: head + texts[ENGLISH_BESIDE].replace(f"]({_ENGLISH})", f"]({_CHINESE})"),
        _CHINESE: chinese.replace(f"]({ENGLISH_BESIDE})", f"]({_ENGLISH})"),
    }


def untold(card: str) -> str:
    """`card` as it is before it is anywhere."""
    return _PLACE.sub(EMPTY_DOWNLOAD, card)


def _for_hub(texts: Mapping[str, str], hub: HubCard) -> dict[str, str]:
    told = {name: _told(_headed(text, hub.head), hub, is_chinese=name == _CHINESE) for name, text in texts.items()}
    if not hub.is_chinese or told.keys() != set(CARDS):
        return told
    head, english = _parted(told[_ENGLISH])
    return {
        _ENGLISH: head + told[_CHINESE].replace(f"]({_ENGLISH})", f"]({ENGLISH_BESIDE})"),
        ENGLISH_BESIDE: english.replace(f"]({_CHINESE})", f"]({_ENGLISH})"),
    }


def _parted(card: str) -> tuple[str, str]:
    """Its head, and the rest."""
    front = _FRONT.match(card)
    head = front[0] if front else ""
    return head, card[len(head) :]


def _headed(card: str, head: str) -> str:
    """`card` with more at the end of its head, where it has one and no such keys."""
    front = _FRONT.match(card)
    keys = re.findall(r"(?m)^\w+:", head)
    if not front or any(re.search(f"(?m)^{key}", front[0]) for key in keys):
        return card
    end = front[0].rindex("---\n")
    return card[:end] + head + card[end:]


def _told(card: str, hub: HubCard, *, is_chinese: bool) -> str:
    return _PLACE.sub(lambda _: _download(hub, is_chinese), card)


def _download(hub: HubCard, is_chinese: bool) -> str:
    commands = "\n".join(hub.commands)
    if is_chinese:
        head = f"## 从 {hub.title} 下载"
        login = f"私有仓库需要先运行 `{hub.login}`。" if hub.login else "私有仓库会询问用户名和 Git 令牌。"
    else:
        head = f"## Download it from {hub.title}"
        first = f"wants `{hub.login}` first" if hub.login else "asks for your name and a Git token"
        login = f"A private repository {first}."
    return f"{_START}\n{head}\n\n```\n{commands}\n```\n\n{login}\n{_END}\n"


def _written(
    bundle: Bundle, cards: Mapping[str, tuple[str, str | None]], place: Path, *, has_own_files: bool
) -> Bundle:
    kept = tuple(file for file in bundle.files if file.path not in EDITABLE)
    made = tuple(_file(name, text.encode()) for name, (text, _) in cards.items())
    files = tuple(sorted((*kept, *made), key=lambda file: file.path))
    generated = {name: text for name, (_, text) in cards.items() if text is not None}
    card = replace(bundle.manifest.card, generated=generated)
    manifest = replace(bundle.manifest, files=files, card=card)
    home = bundle.path.resolve()
    place.mkdir()
    if has_own_files:
        for file in kept:
            link_or_copy(home / file.path, place / file.path)
    else:  # of a whole directory one link: thousands of them take seconds
        for name in {file.path.partition("/")[0] for file in kept}:
            (place / name).symlink_to(home / name)
    for name, (text, _) in cards.items():
        (place / name).write_text(text, encoding="utf-8")
    (place / MANIFEST).write_text(to_text(manifest), encoding="utf-8")
    size = sum(file.size for file in files)
    return Bundle(place, bundle.name, bundle_digest(files), files, manifest, size, 0, home=bundle.path)


def _file(name: str, content: bytes) -> BundleFile:
    return BundleFile(name, len(content), sha256(content).hexdigest(), "card")
