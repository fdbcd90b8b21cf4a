"""The stand-in of the tests for the Hugging Face Hub, in a process of its own, and what it is measured against."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
TOKEN = "w0rd-that-may-write"

UPLOAD_FOLDER = """
import sys
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
repo, folder = sys.argv[1:3]
api = HfApi()
api.create_repo(repo, private=True)
api.upload_folder(repo_id=repo, folder_path=folder)
if len(sys.argv) > 3:
    found = api.verify_repo_checksums(repo, local_dir=folder)
    assert not found.mismatches
"""


def make_bundle(bundle: Path) -> None:
    """Of the tiny model, by `deploytk package`."""
    command = [str(Path(sys.executable).parent / "deploytk"), "package", str(TESTS / "models" / "hf-awq")]
    command += ["-o", str(bundle), "--name", "many", "--license", "mit"]
    subprocess.run(command, check=True, capture_output=True)


def add_files(bundle: Path, files: Iterable[tuple[str, bytes]], kind: str) -> None:
    """To a bundle, as `package` would have taken them from beside the model; those that are there are replaced."""
    manifest = json.loads((bundle / "deploytk.json").read_text())
    for path, content in files:
        (bundle / path).parent.mkdir(exist_ok=True)
        (bundle / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][path] = {"size": len(content), "sha256": digest, "kind": kind}
    (bundle / "deploytk.json").write_text(json.dumps(manifest))


class Server:
    """The stand-in, asked for its counters."""

    def __init__(self, root: Path) -> None:
        self._root = root
        command = [sys.executable, str(TESTS / "hf_hub.py"), str(root)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line()

    def _line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def _tell(self, word: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def counters(self) -> dict[str, Any]:
        self._tell("counters")
        return json.loads(self._line())

    def slow_down(self, answer_s: float, file_s: float) -> None:
        """Every answer takes so long, and a commit so much longer for each of its files."""
        self._tell(f"slow {answer_s} {file_s}")

    def forget(self) -> None:
        """Every measured publish finds no object there."""
        for path in (self._root / "objects").iterdir():
            path.unlink()

    def commits(self, repo: str) -> int:
        """Commits after the hub's own first one."""
        return len(json.loads((self._root / "models" / repo / "state.json").read_text())["commits"]) - 1

    def stop(self) -> None:
        self._tell("end")
        self._process.wait(10)
