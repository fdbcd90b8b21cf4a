"""Three hubs as `kill_publish.py` uses them: a place of its own for each round, and what a reader of it finds.

A state is everything that a reader gets: path -> SHA-256. Looking goes by the files of the hub's server, behind its
back, so that no look waits for the server.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dulwich.repo import Repo
from git_server import WRITER as GIT_WRITER
from hf_hub import WRITER as HF_WRITER
from hf_hub import Hub

from deploytk.publish.target import Target
from deploytk.publish.targets.huggingface import HuggingFace
from deploytk.publish.targets.local import Local
from deploytk.publish.targets.openxlab import OpenXLab

State = dict[str, str]


@dataclass(frozen=True)
class End:
    states: list[State]
    rest: list[str]  # what else is there


class Remote(ABC):
    """A hub; places are numbered, and a place may begin as a copy of another one."""

    target: Target

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[tuple[int, int, int], str] = {}

    @abstractmethod
    def repo(self, number: int) -> str:
        """What `--repo` says for that place."""

    @abstractmethod
    def states(self, number: int) -> Iterator[State]:
        """All that a reader can find there now, newest last: every revision that is listed."""

    @abstractmethod
    def start(self, number: int, copy_of: int | None) -> None:
        """Make that place, empty or a copy, and forget what was sent before."""

    def keep(self, number: int) -> None:  # noqa: B027 (not every hub has to)
        """Make that place ready to be copied, now that it is as it shall be."""

    @abstractmethod
    def sent_twice(self, number: int) -> int:
        """How many files arrived more than once since `start`."""

    def note_sent(self, number: int) -> None:  # noqa: B027
        """Remember what has arrived so far, where the hub itself keeps no list."""

    def end(self, number: int) -> End:
        """What that place has become; as after an undisturbed run, if all went well."""
        return End(list(self.states(number)), self._rest(number))

    def _rest(self, number: int) -> list[str]:
        return []

    def _digest(self, path: Path) -> str:
        status = path.stat()
        key = status.st_ino, status.st_ctime_ns, status.st_size
        if key not in self._digests:
            self._digests[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._digests[key]


class LocalRemote(Remote):
    target = Local()

    def repo(self, number: int) -> str:
        return str(self.root / f"at-{number}")

    def states(self, number: int) -> Iterator[State]:
        place = Path(self.repo(number)) / "repos" / "tiny"
        try:
            current = place.joinpath("current").resolve(strict=True)
        except FileNotFoundError:  # nothing was ever published
            return
        # A revision may be there before it is the current one, but never in part.
        others = [path for path in current.parent.iterdir() if path.name[0] != "." and path != current]
        for tree in (*others, current):
            yield {str(path.relative_to(tree)): self._digest(path) for path in tree.rglob("*") if path.is_file()}

    def start(self, number: int, copy_of: int | None) -> None:
        if number > 3:
            shutil.rmtree(self.repo(number - 1), ignore_errors=True)
        if copy_of is not None:
            subprocess.run(["cp", "-a", self.repo(copy_of), self.repo(number)], check=True)
        self._first: dict[str, tuple[int, int]] = {}

    def note_sent(self, number: int) -> None:
        self._first = self._objects(number)

    def sent_twice(self, number: int) -> int:
        now = self._objects(number)
        return sum(now.get(path) != mark for path, mark in self._first.items())

    def _objects(self, number: int) -> dict[str, tuple[int, int]]:
        """The whole objects that are there, each with what changes when it is written again."""
        place = Path(self.repo(number)) / "objects"
        marks = {path.name: path.stat() for path in place.rglob("*") if path.is_file() and path.name[0] != "."}
        return {name: (status.st_ino, status.st_mtime_ns) for name, status in marks.items()}

    def _rest(self, number: int) -> list[str]:
        place = Path(self.repo(number))
        return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


class _Served(Remote):
    """A hub with a server in a process of its own, which writes a line for every object that arrived."""

    script: str
    objects: str  # where the server keeps them

    def start(self, number: int, copy_of: int | None) -> None:
        (self.root / "stored").unlink(missing_ok=True)
        objects = self.root / self.objects
        shutil.rmtree(objects)
        if copy_of is None:
            objects.mkdir()
        else:
            shutil.copytree(self._kept(copy_of), objects)

    def keep(self, number: int) -> None:
        shutil.copytree(self.root / self.objects, self._kept(number))

    def _kept(self, number: int) -> Path:
        return self.root / f"kept-{number}"

    def sent_twice(self, number: int) -> int:
        log = self.root / "stored"
        times = Counter(log.read_text().split() if log.exists() else ())
        return sum(count - 1 for count in times.values())


class HuggingFaceRemote(_Served):
    script, objects = "hf_hub.py", "objects"
    target = HuggingFace(patience_s=5.0)

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._hub = Hub(root)
        self._read: tuple[tuple[int, ...], list[dict[str, Path | str]]] = ((), [])

    def repo(self, number: int) -> str:
        return f"me/at-{number}"

    def states(self, number: int) -> Iterator[State]:
        try:
            status = self._hub.state("models", self.repo(number)).stat()
        except FileNotFoundError:
            return
        mark = number, status.st_ino, status.st_mtime_ns
        if mark != self._read[0]:
            commits = self._hub.commits(self.repo(number))[1:]  # the first one is the hub's own
            self._read = mark, [{path: self._file(file) for path, file in one["files"].items()} for one in commits]
        for files in self._read[1]:
            yield {path: self._digest(file) if isinstance(file, Path) else file for path, file in files.items()}

    def _file(self, file: dict[str, str]) -> Path | str:
        """Where the object is, which may come and go; of what the commit itself holds the digest, which stays."""
        return self._hub.object(file["lfs"]) if "lfs" in file else hashlib.sha256(self._hub.content(file)).hexdigest()

    def start(self, number: int, copy_of: int | None) -> None:
        super().start(number, copy_of)
        if copy_of is not None:
            state = self._hub.load("models", self.repo(copy_of))
            assert state is not None
            self._hub.save("models", self.repo(number), state)

    @staticmethod
    def environment(url: str) -> dict[str, str]:
        return {"HF_ENDPOINT": url, "HF_TOKEN": HF_WRITER}


class OpenXLabRemote(_Served):
    script, objects = "git_server.py", "lfs/objects"
    target = OpenXLab(patience_s=5.0)

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._histories: dict[tuple[object, ...], list[State]] = {}

    def repo(self, number: int) -> str:
        return f"me/at-{number}"

    def _place(self, number: int) -> Path:
        return self.root / f"{self.repo(number)}.git"

    def states(self, number: int) -> Iterator[State]:
        key = number, *self._refs(number)
        if key not in self._histories:  # a commit never changes: what it was when it was first seen there counts
            self._histories[key] = list(self._history(number))
        yield from self._histories[key]

    def _refs(self, number: int) -> Iterator[tuple[str, str]]:
        place = self._place(number)
        for path in [*(place / "refs").rglob("*"), place / "packed-refs"]:
            with contextlib.suppress(FileNotFoundError):
                if path.name[-5:] != ".lock" and not path.is_dir():
                    yield str(path.relative_to(place)), path.read_text().strip()

    def _history(self, number: int) -> Iterator[State]:
        with contextlib.closing(Repo(str(self._place(number)))) as repository:
            refs = repository.get_refs()
            if refs.keys() - {b"HEAD", b"refs/heads/main"}:
                raise KeyError(f"{self.repo(number)} has other branches: {sorted(refs)}")
            head = refs.get(b"refs/heads/main")
            for entry in [*repository.get_walker([head])][::-1] if head else ():
                yield self._state(repository, entry.commit.id)

    def _state(self, repository: Repo, commit: bytes) -> State:
        """What a clone of that commit has, with its LFS objects."""
        found = {}
        for entry in repository.object_store.iter_tree_contents(repository[commit].tree):  # type: ignore[attr-defined]  # it is a commit
            content = repository[entry.sha].data  # type: ignore[attr-defined]  # it is a blob
            oid = content.split(b"oid sha256:")[1][:64].decode() if content.startswith(b"version https://git-l") else ""
            path = self.root / self.objects / oid[:2] / oid[2:4] / oid
            found[entry.path.decode()] = self._digest(path) if oid else hashlib.sha256(content).hexdigest()
        return found

    def _rest(self, number: int) -> list[str]:
        return [f"{name} {commit}" for name, commit in sorted(self._refs(number))]

    def start(self, number: int, copy_of: int | None) -> None:
        super().start(number, copy_of)
        if copy_of is not None:
            shutil.copytree(self._place(copy_of), self._place(number))
            return
        self._place(number).parent.mkdir(exist_ok=True)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self._place(number))], check=True)

    @staticmethod
    def environment(url: str) -> dict[str, str]:
        return {"OPENXLAB_GIT_ENDPOINT": url, "OPENXLAB_USERNAME": GIT_WRITER[0], "OPENXLAB_GIT_TOKEN": GIT_WRITER[1]}


@contextlib.contextmanager
def remote_of(name: str, root: Path) -> Iterator[Remote]:
    """The hub of that name, ready; its server, if it has one, ends with the context."""
    if name == "local":
        yield LocalRemote(root)
        return
    kind = {"huggingface": HuggingFaceRemote, "openxlab": OpenXLabRemote}[name]
    command = [sys.executable, str(Path(__file__).with_name(kind.script)), str(root / "hub")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdin
        os.environ |= kind.environment(server.stdout.readline().strip())
        try:
            yield kind(root / "hub")
        finally:
            server.stdin.close()
