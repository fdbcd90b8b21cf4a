"""Looks for tokens and keys in text that is about to be published."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploytk.base.errors import BundleError
from deploytk.base.progress import Progress
from deploytk.bundle import MANIFEST, Bundle

_CHUNK_BYTES = 4 * 2**20
_OVERLAP_BYTES = 4096  # longer than any secret
_HEAD_BYTES = 8192  # a NUL among these makes a file binary, as for git
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Family:
    """Secrets that have a few bytes in common, the anchor, at most `before` bytes after where they begin.

    An anchor starts with one fixed byte and looks back from there: finding it is ten times as fast as matching
    everything everywhere, and there is little to match then.
    """

    anchor: re.Pattern[bytes]
    before: int
    kinds: Mapping[str, re.Pattern[bytes]]


# Source: the issuers' own documentation, and gitleaks' config/gitleaks.toml.
FAMILIES = (
    Family(
        re.compile(rb"(?i)_(?:(?<=hf_)|(?<=gh[pousr]_)|(?<=_pat_)|(?<=npm_)|(?<=r8_)|(?<=access_)|(?<=auth_))"),
        len("github_pat_"),
        {
            "a Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b"),
            "a GitHub token": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})\b"),
            "a Docker Hub token": re.compile(rb"\bdckr_pat_[A-Za-z0-9_-]{20,}"),
            "an npm token": re.compile(rb"\bnpm_[A-Za-z0-9]{36}\b"),
            "a Replicate token": re.compile(rb"\br8_[A-Za-z0-9]{37}\b"),
            "an access token": re.compile(rb"(?i)\b(?:access|auth)_token[\"']?\s*[:=]\s*[\"']?[a-z0-9._-]{20,}"),
        },
    ),
    Family(
        re.compile(rb"-(?:(?<=ms-)|(?<=glpat-)|(?<=xox[abeoprs]-)|(?<=sk-)|(?<=pypi-)|(?<=-----)(?=BEGIN))"),
        len("-----"),
        {
            "a ModelScope token": re.compile(rb"\bms-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"),
            "a GitLab token": re.compile(rb"\bglpat-[A-Za-z0-9_-]{20,}"),
            "a Slack token": re.compile(rb"\bxox[abeoprs]-[0-9A-Za-z-]{20,}"),
            "a key of OpenAI's form": re.compile(rb"\bsk-(?:[A-Za-z0-9_-]{40,}|[0-9a-f]{32})\b"),
            "a PyPI token": re.compile(rb"\bpypi-AgEI[A-Za-z0-9_-]{50,}"),
            "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
        },
    ),
    Family(
        re.compile(rb"A(?:KIA|SIA|Iza|I(?<=LTAI))"),
        len("LT"),
        {
            "an AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
            "a Google API key": re.compile(rb"\bAIza[A-Za-z0-9_-]{35}\b"),
            "an Alibaba Cloud access key": re.compile(rb"\bLTAI[A-Za-z0-9]{12,26}\b"),
        },
    ),
    Family(
        re.compile(rb":(?=//)"),
        len("https"),
        {"a password in an address": re.compile(rb"\bhttps?://[^\s/:@\"']+:[^\s/@\"']{8,}@")},
    ),
    *(
        Family(
            re.compile(rb"(?i)%b(?:(?<=[as]k.)|(?<=[as]k[\"'\s].)|(?<=[as]k[\"'\s]\s.))" % sign),
            len("openxlab_ak") + 2,
            {"an OpenXLab key": re.compile(rb"(?i)\b(?:openxlab_)?[as]k[\"']?\s*[:=]\s*[\"']?[a-z0-9]{20,}\b")},
        )
        for sign in (b":", b"=")
    ),
    Family(
        re.compile(rb"password\s"),
        200,
        {"a password of .netrc": re.compile(rb"\blogin\s+\S+\s+password\s+\S{8,}")},
    ),
)


def refuse_secrets(bundle: Bundle, progress: Progress) -> None:
    """Raises BundleError naming file and line of the first secret in a text file of the bundle."""
    sizes = {file.path: file.size for file in bundle.files if file.kind != "weights"}
    sizes[MANIFEST] = (bundle.path / MANIFEST).stat().st_size  # it holds the golden prompts
    with progress.task("looking for secrets", sum(sizes.values())) as advance:
        for path, size in sizes.items():
            found = find_secret(bundle.path / path)
            advance(size)
            if found:
                kind, line = found
                raise BundleError(
                    f"{path}, line {line}, looks like {kind}; nothing was sent",
                    hint="remove it from the model directory, revoke it if it is real, and package again",
                )


def find_secret(path: Path) -> tuple[str, int] | None:
    """Kind and line of the first secret in a file, None when there is none or the file is no text.

    Memory does not grow with the file. UTF-16 is known by its mark, and only its letters of ASCII are looked at.
    """
    line = 1
    for chunk, new_bytes in _chunks(path):
        places = [found for family in FAMILIES if (found := _first(chunk, family))]
        if places:
            at, kind = min(places)
            return kind, line + chunk.count(b"\n", 0, at)
        line += chunk.count(b"\n", 0, new_bytes)
    return None


def _chunks(path: Path) -> Iterator[tuple[bytes, int]]:
    """Pieces of a text file that overlap, and how much of each the next one does not repeat."""
    with path.open("rb") as file:
        data = file.read(_CHUNK_BYTES)
        is_utf_16 = data.startswith(_UTF_16)
        if not is_utf_16 and b"\0" in data[:_HEAD_BYTES]:
            return
        kept = b""
        while data:
            kept += data.replace(b"\0", b"") if is_utf_16 else data
            data = file.read(_CHUNK_BYTES)
            done = max(len(kept) - _OVERLAP_BYTES, 0) if data else len(kept)
            yield kept, done
            kept = kept[done:]


def _first(chunk: bytes, family: Family) -> tuple[int, str] | None:
    """Where the first secret of that family begins, and its kind."""
    for anchor in family.anchor.finditer(chunk):
        at = anchor.start()
        for kind, pattern in family.kinds.items():
            match = pattern.search(chunk, max(at - family.before, 0), at + _OVERLAP_BYTES)
            if match and match.start() <= at:
                return match.start(), kind
    return None
