"""Looks for secrets in the text files of a bundle, before the first byte leaves."""

from __future__ import annotations

import re

from deploytk.bundle import MANIFEST, Bundle
from deploytk.errors import BundleError
from deploytk.progress import Progress

_LARGEST_TEXT_BYTES = 8 * 2**20  # larger ones are tokenizers and weights

# The forms that their issuers publish. Never printed: a message names the kind and the line.
_SECRETS = {
    "a Hugging Face token": re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b"),
    "a ModelScope token": re.compile(rb"\bms-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"),
    "a GitHub token": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})\b"),
    "an AWS access key": re.compile(rb"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    "an Alibaba Cloud access key": re.compile(rb"\bLTAI[A-Za-z0-9]{12,26}\b"),
    "a Google API key": re.compile(rb"\bAIza[A-Za-z0-9_-]{35}\b"),
    "an OpenAI key": re.compile(rb"\bsk-(?:proj-)?[A-Za-z0-9_-]{40,}\b"),
    "a PyPI token": re.compile(rb"\bpypi-AgEI[A-Za-z0-9_-]{50,}"),
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "an OpenXLab key": re.compile(rb"(?i)\b(?:openxlab_)?(?:ak|sk)[\"']?\s*[:=]\s*[\"']?[a-z0-9]{20,}\b"),
    "an access token": re.compile(rb"(?i)\b(?:access|auth)_token[\"']?\s*[:=]\s*[\"']?[a-z0-9._-]{20,}"),
    "a password in an address": re.compile(rb"\bhttps?://[^\s/:@\"']+:[^\s/@\"']{8,}@"),
}


def refuse_secrets(bundle: Bundle, progress: Progress) -> None:
    """Raises BundleError naming file and line of the first secret in a text file of the bundle."""
    sizes = {f.path: f.size for f in bundle.files if f.kind != "weights" and f.size <= _LARGEST_TEXT_BYTES}
    sizes[MANIFEST] = (bundle.path / MANIFEST).stat().st_size  # it holds the golden prompts
    with progress.task("looking for secrets", sum(sizes.values())) as advance:
        for path in sizes:
            content = (bundle.path / path).read_bytes()
            advance(len(content))
            for kind, pattern in _SECRETS.items():
                match = pattern.search(content)
                if match:
                    line = content.count(b"\n", 0, match.start()) + 1
                    raise BundleError(
                        f"{path}, line {line}, looks like {kind}; nothing was sent",
                        hint="remove it from the model directory, revoke it if it is real, and package again",
                    )
