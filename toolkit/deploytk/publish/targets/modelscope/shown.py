"""What a repository of ModelScope shows: listed once, and each small file of it handed out once."""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from modelscope_hub import HubApi

from deploytk.publish.superseded import LARGEST_MANIFEST_BYTES, Named

_TYPE = "model"


@dataclass(frozen=True, slots=True)
class Shown:
    """The files of a model's repository at one moment."""

    api: HubApi
    repo: str
    files: Named  # the digest is "" where the hub does not say it
    _contents: dict[str, bytes | None] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        return {path: sha256 for path, (_, sha256) in self.files.items()}

    def read(self, path: str) -> bytes | None:
        """A small file as the hub hands it out; None when it has none, or one that is too large to be small."""
        if path not in self._contents:
            size = self.files[path][0] if path in self.files else 0
            self._contents[path] = self._fetch(path, size) if 0 < size <= LARGEST_MANIFEST_BYTES else None
        return self._contents[path]

    def _fetch(self, path: str, size: int) -> bytes:
        # The client shows a bar of its own, whatever is asked of it.
        with tempfile.TemporaryDirectory(prefix="deploytk-") as directory, contextlib.redirect_stderr(io.StringIO()):
            place = self.api.download_file(
                self.repo, _TYPE, path, revision="master", local_dir=directory, force=True, file_size=size
            )
            return Path(place).read_bytes()


def shown(api: HubApi, repo: str, repo_type: str = _TYPE) -> Shown:
    """The files of a repository as the hub lists them now."""
    found = api.list_repo_files(repo, repo_type)
    return Shown(api, repo, {file.path: (int(file.size or 0), file.sha256 or "") for file in found if not file.is_dir})
