"""What a model-signing statement says of files, and what differs from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from deploytk.base.errors import SignatureError
from deploytk.bundle import SIGNATURE

PREDICATE = "https://model_signing/signature/v1.0"

# What git and hubs put beside the files, and model-signing leaves out.
_OF_GIT = (".git", ".gitattributes", ".github", ".gitignore")
_OF_DOWNLOADS = ".cache/huggingface"  # what `hf download` notes in the directory
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SignedFiles:
    digests: Mapping[str, str]  # path -> SHA-256
    ignored: tuple[str, ...]  # paths, whatever is there

    def covers(self, path: str) -> bool:
        """Whether something at `path` should be among the signed files."""
        parents = {path, *(str(parent) for parent in PurePosixPath(path).parents)}
        return not parents & {*self.ignored, *_OF_GIT, _OF_DOWNLOADS, SIGNATURE}


@dataclass(frozen=True, slots=True)
class Difference:
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def is_none(self) -> bool:
        return not (self.changed or self.missing or self.extra)


def files_in(statement: Mapping[str, Any], what: str) -> SignedFiles:
    """The files that the statement signs; raises SignatureError, which calls it `what`, for one that signs others."""
    if statement["predicateType"] != PREDICATE:
        hint = "give the signature of the files: model.sig"
        raise SignatureError(f"{what} is not about the files of a model", hint=hint)
    try:
        serialization, resources = statement["predicate"]["serialization"], statement["predicate"]["resources"]
        if serialization["method"] != "files" or serialization["hash_type"] != "sha256":
            hint = "verify it with model_signing, or have it signed by files and SHA-256"
            raise SignatureError(f"{what} is made in a way that is not checked here", hint=hint)
        digests = {str(one["name"]): str(one["digest"]) for one in resources}
        [subject] = statement["subject"]
        whole = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
        is_right = len(digests) == len(resources) and all(map(_SHA256.fullmatch, digests.values()))
        if not is_right or subject["digest"]["sha256"] != whole:
            raise ValueError("it contradicts itself")
        return SignedFiles(digests, tuple(str(path) for path in serialization.get("ignore_paths") or ()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SignatureError(f"{what} does not say which files it signs", hint="have it signed again") from error


def difference(signed: SignedFiles, there: Mapping[str, str | None]) -> Difference:
    """How the files that are `there`, path -> SHA-256, differ; None is a digest that is surely another."""
    found = {path for path in there if path in signed.digests or signed.covers(path)}
    return Difference(
        changed=_sorted(path for path in found & signed.digests.keys() if there[path] != signed.digests[path]),
        missing=_sorted(signed.digests.keys() - found),
        extra=_sorted(found - signed.digests.keys()),
    )


def _sorted(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(paths))
