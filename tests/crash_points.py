"""Kills a stage with signal 9 at every change (or every 5th, ...) that it makes to the file system, then runs it again.

    python crash_points.py package|replace|publish|modernize|scale MODEL WORK [EVERY]

The work is done in forked children. For every point: start from a fresh directory, kill there, look at what a reader
would see, run again undisturbed, and compare the whole tree with that of a run that was never killed. Prints how
many points were tried; exits 1 at the first difference.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from bundles import make_bundle

from deploytk.artifact import read_artifact
from deploytk.base.errors import BundleError
from deploytk.base.progress import Silent
from deploytk.bundle import BundleOptions, read_bundle
from deploytk.modernize import ModernizeOptions, modernize
from deploytk.publish.options import PublishOptions
from deploytk.publish.release import publish_bundle
from deploytk.publish.target import find_target
from deploytk.scale.write import write_files

_CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "fcntl.ioctl"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Work = Callable[[Path], None]


def _child(work: Work, place: Path, dies_at: int | None) -> int:
    """The exit status of `work` in a child of its own, which kills itself at that change."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    changes = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        is_change = event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING)
        changes += bool(is_change)
        if is_change and changes == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    work(place)
    os._exit(0)


def _tree(root: Path) -> dict[str, tuple[int, bytes | str]]:
    return {
        str(path.relative_to(root)): (
            (0, str(path.readlink()))
            if path.is_symlink()
            else (stat.S_IMODE(path.stat().st_mode), path.read_bytes() if path.is_file() else b"")
        )
        for path in root.rglob("*")
    }


def _check(start: Work, work: Work, visible: str, is_good: Callable[[Path], bool], root: Path, every: int) -> int:
    """How many points were tried; `visible` is what readers open, and must be `is_good` whenever it is there."""
    expected = root / "expected"
    expected.mkdir()
    start(expected)
    if _child(work, expected, None):
        raise SystemExit("it fails without being killed")
    for point in itertools.count(1, every):
        place = root / f"at-{point}"
        place.mkdir()
        start(place)
        status = _child(work, place, point)
        if not os.WIFSIGNALED(status):
            return point // every
        seen = place / visible
        if seen.exists() and not is_good(seen):
            raise SystemExit(f"killed at change {point}: a reader finds something half written")
        if _child(work, place, None):
            raise SystemExit(f"killed at change {point}: it cannot be run again")
        if _tree(place) != _tree(expected):
            odd = {path for path, _ in _tree(place).items() ^ _tree(expected).items()}
            raise SystemExit(f"killed at change {point}: differs in {sorted(odd)}")
        shutil.rmtree(place)
    raise AssertionError


def main() -> None:
    what, model, root = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    every = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    options = BundleOptions(name="tiny", license="mit")
    bundle = make_bundle(model, root / "bundle", options)
    other = make_bundle(model, root / "other", BundleOptions(name="tiny", license="apache-2.0", app="api"))

    def package(place: Path) -> None:
        make_bundle(model, place / "b", options)

    def package_other(place: Path) -> None:
        shutil.copytree(other.path, place / "b")

    def publish(place: Path) -> None:
        publish_bundle(bundle, find_target("local"), PublishOptions(repo=str(place / "hub")), Silent())

    def nothing(place: Path) -> None:
        pass

    def modern(place: Path) -> None:
        modernize(read_artifact(model), place / "out", ModernizeOptions(), Silent())

    def scale(place: Path) -> None:
        write_files(place / "out", {"a.yaml": "new", "overlays/production/b.yaml": "new", "c/d/e.sh": "new"})

    def scale_other(place: Path) -> None:
        write_files(place / "out", {"a.yaml": "old", "f.yaml": "old"})
        (place / "out" / "overlays" / "mine").mkdir(parents=True)
        (place / "out" / "overlays" / "mine" / "kept.yaml").write_text("mine")

    def is_bundle(seen: Path) -> bool:
        return read_bundle(seen).digest in (bundle.digest, other.digest)

    def is_model(seen: Path) -> bool:
        return _tree(seen) == _tree(root / "expected" / "out")

    def is_scaled(seen: Path) -> bool:
        """The new files, or all of the old ones."""
        old = [".deploytk-scale", "a.yaml", "f.yaml", "overlays", "overlays/mine", "overlays/mine/kept.yaml"]
        is_old = sorted(_tree(seen)) == old and (seen / "a.yaml").read_text() == "old"
        return is_old or is_model(seen)

    points = {
        "package": lambda: _check(nothing, package, "b", is_bundle, root, every),
        "replace": lambda: _check(package_other, package, "b", is_bundle, root, every),
        "publish": lambda: _check(nothing, publish, "hub/repos/tiny/current", is_bundle, root, every),
        "modernize": lambda: _check(nothing, modern, "out", is_model, root, every),
        "scale": lambda: _check(scale_other, scale, "out", is_scaled, root, every),
    }[what]()
    print(points)  # noqa: T201


if __name__ == "__main__":
    try:
        main()
    except BundleError as error:
        raise SystemExit(str(error)) from error
