"""The files of an image, as a container sees them: its layers over one another."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, cast

from deploytk.base.errors import ImageError
from deploytk.image.stream import Stream, unpacked
from deploytk.image.value import Layer

_REMOVED, _EMPTIED = ".wh.", ".wh..wh..opq"  # what a layer says of those below it
_MOST_LINKS = 40
_LARGEST_PROGRAM_BYTES = 256 * 2**20


@dataclass(slots=True)
class Node:
    """A file, a directory or a link; a directory that no layer lists is open to everybody, as unpackers make it."""

    mode: int = 0o755
    uid: int = 0
    link: str | None = None  # where a symbolic link leads
    layer: int = -1  # the number of the layer that a file is in
    member: str = ""  # ... and its name there
    size: int = 0
    children: dict[str, Node] | None = None

    def is_executable_by(self, uid: int | None) -> bool:
        """Whether a user may run it, or enter it; by anybody where `uid` is None."""
        bits = 0o111 if uid is None else 0o100 if uid == self.uid else 0o001
        return uid == 0 or bool(self.mode & bits)


@dataclass(slots=True)
class Found:
    """Where a path leads to."""

    path: str  # without links
    node: Node
    closed: str | None  # the first directory on the way that the user may not enter


@dataclass(slots=True)
class Tree:
    """All files of an image. Nothing of them is kept but what `content` reads."""

    layers: Sequence[Layer]
    root: Node = field(default_factory=lambda: Node(children={}))

    def find(self, path: str, uid: int | None = None) -> Found | None:
        """What is at an absolute path, links followed; None where nothing is."""
        parts, links, closed = _parts(path), 0, None
        way = [("", self.root)]
        while parts:
            name = parts.pop(0)
            if name == "..":
                way = way[:-1] or way
                continue
            directory = way[-1][1]
            node = (directory.children or {}).get(name)
            links += node is not None and node.link is not None
            if node is None or links > _MOST_LINKS:
                return None
            if node.link is not None:
                parts = _parts(node.link) + parts
                way = way[:1] if node.link.startswith("/") else way
                continue
            if not directory.is_executable_by(uid):
                closed = closed or _joined(way)
            way.append((name, node))
        return Found(_joined(way), way[-1][1], closed)

    def has_file_called(self, name: str) -> bool:
        """Whether a file of that name is in any directory."""
        waiting = [self.root]
        while waiting:
            children = waiting.pop().children or {}
            if name in children:
                return True
            waiting += [child for child in children.values() if child.children]
        return False

    def content(self, node: Node) -> bytes:
        """The bytes of a file: its layer is read once more."""
        with _opened(self.layers[node.layer]) as tar:
            for member in tar:
                if member.name == node.member and member.isfile() and member.size <= _LARGEST_PROGRAM_BYTES:
                    return cast(IO[bytes], tar.extractfile(member)).read()
        return b""

    def add(self, number: int, layer: Layer) -> None:
        """Put the next layer over those that are there."""
        try:
            with _opened(layer) as tar:
                for member in tar:
                    self._add(number, member)
        # ValueError, RecursionError: of numbers that are none in a header, of a path that no system takes.
        except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, RecursionError) as error:
            hint = "pull or write the base anew"
            raise ImageError(f"{layer.created_by} cannot be read: {error}", hint=hint) from error

    def _add(self, number: int, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            return
        directory = self._directory(number, parts[:-1])
        children = cast("dict[str, Node]", directory.children)
        name = parts[-1]
        if name == _EMPTIED:
            directory.children = {key: node for key, node in children.items() if node.layer == number}
        elif name.startswith(_REMOVED):
            children.pop(name.removeprefix(_REMOVED), None)
        elif member.islnk():
            target = self.find(f"/{member.linkname}")
            if target and target.node.children is None:  # of a directory there is none, and would be no end
                children[name] = target.node
        else:
            children[name] = _node(number, member, children.get(name))

    def _directory(self, number: int, parts: list[str]) -> Node:
        """The directory at a path, made where it is missing; links are followed, as unpackers do."""
        found = self.find("/" + "/".join(parts))
        if found and found.node.children is not None:
            return found.node
        if not parts:
            return self.root
        parent = cast("dict[str, Node]", self._directory(number, parts[:-1]).children)
        parent[parts[-1]] = Node(layer=number, children={})
        return parent[parts[-1]]


def read_tree(layers: Sequence[Layer]) -> Tree:
    """The files of these layers, the lowest first; raises ImageError for one that is no tar."""
    tree = Tree(layers)
    for number, layer in enumerate(layers):
        tree.add(number, layer)
    return tree


def _opened(layer: Layer) -> tarfile.TarFile:
    return tarfile.open(fileobj=unpacked(cast(IO[bytes], Stream(layer.read(0)))), mode="r|")


def _parts(path: str) -> list[str]:
    return [part for part in PurePosixPath(path).parts if part not in ("/", "//", ".")]


def _node(number: int, member: tarfile.TarInfo, before: Node | None) -> Node:
    node = Node(member.mode, member.uid, layer=number, member=member.name, size=member.size)
    if member.issym():
        node.link = member.linkname
    elif member.isdir():
        node.children = before.children if before and before.children is not None else {}
    return node


def _joined(way: list[tuple[str, Node]]) -> str:
    return "/".join(name for name, _ in way) or "/"
