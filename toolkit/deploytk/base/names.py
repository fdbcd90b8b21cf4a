"""Names of deployments: as people type them, and as a slug for URLs, paths, shells and hubs."""

from __future__ import annotations

import hashlib
import re
import unicodedata

LONGEST = 96  # characters, as hubs take names
_MARK_CHARACTERS = 8
SLUG = re.compile(r"(?!.*(?:--|\.\.|\.git$))[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
"""What hubs take, the strictest of them. Source: huggingface_hub, utils/_validators.py, validate_repo_id."""

LONGEST_LABEL = 63  # of a DNS label, RFC 1035
_LABEL = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


def slug(text: str) -> str:
    """`text` in letters, digits, dots, dashes and underscores of ASCII: Qwen2.5-7B stays, accents go.

    Where letters of other scripts are lost, a mark of the whole text follows, so that different names stay different.
    """
    if SLUG.fullmatch(text):
        return text
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    is_whole = all(character.isascii() or not character.isalnum() for character in plain)
    kept = _stripped(re.sub(r"\.\.+", ".", re.sub(r"(?:[^A-Za-z0-9._-]|-)+", "-", plain)))
    if is_whole and 0 < len(kept) <= LONGEST:
        return kept
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_CHARACTERS]
    kept = _stripped(kept[: LONGEST - _MARK_CHARACTERS - 1])
    return f"{kept or 'model'}-{mark}"


def _stripped(text: str) -> str:
    return re.sub(r"(?:[._-]|\.git)+$", "", text.lstrip("-._"))


def dns_label(text: str, room: int = 0) -> str:
    """`text` as a DNS label (RFC 1035): Qwen2.5-7B is qwen2-5-7b, with `room` characters left for an ending.

    Where something is cut off, or letters of other scripts are lost, a mark of the whole text follows.
    """
    longest = LONGEST_LABEL - room
    plain = re.sub(r"[^a-z0-9]+", "-", slug(text).lower()).strip("-")
    started = plain if plain[:1].isalpha() else f"m-{plain}".rstrip("-")
    if len(started) <= longest:
        return started
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_CHARACTERS]
    return f"{started[: longest - _MARK_CHARACTERS - 1].rstrip('-')}-{mark}"


def is_dns_label(text: str) -> bool:
    """Whether it can name a Service of Kubernetes, the strictest of all."""
    return _LABEL.fullmatch(text) is not None


def is_title(text: str) -> bool:
    """Whether `text` can stand as the name of a deployment on a card, a page and in a table."""
    return 0 < len(text) <= LONGEST and text.isprintable() and bool(text.strip())
