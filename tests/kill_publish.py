"""Kills a publisher with signal 9 at random times while a reader looks at the hub all the time, and publishes again.

    python kill_publish.py local|huggingface|openxlab MODEL WORK POINTS

The publisher is a forked child that has everything loaded; half of them begin with an empty hub, the others replace an
older release. Whatever the reader ever sees must be the state before or the whole new one, and once it has seen the new
one never the old one again. After the second run the hub is as without the kill, and at most one file arrived twice.
Goes on until POINTS publishers were hit before they had ended; prints how many were and how often the reader looked;
exits 1 at the first difference.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bundles import make_bundle
from kill_remotes import Remote, State, remote_of

from deploytk.base.errors import TryAgainError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, BundleOptions
from deploytk.publish.options import PublishOptions

_LOOK_EVERY_S = 0.002
_BUSY = 75


def _forked(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except TryAgainError:
            os._exit(_BUSY)
        finally:
            os._exit(1)
    return child


class Reader:
    """A process that looks at one place of the hub after the other, all the time."""

    def __init__(self, remote: Remote, known: Mapping[str, State]) -> None:
        self._remote = remote
        self._known = known
        ours, theirs = os.pipe(), os.pipe()
        self._process = _forked(lambda: self._look((ours[1], theirs[0]), ours[0], theirs[1]))
        self._orders, self._answers = os.fdopen(ours[1], "w"), os.fdopen(theirs[0])
        for end in (ours[0], theirs[1]):
            os.close(end)

    def watch(self, number: int) -> None:
        print(number, file=self._orders, flush=True)

    def seen(self) -> tuple[int, list[str]]:
        """How often it looked since `watch`, and the states that it saw, one after the other."""
        print("stop", file=self._orders, flush=True)
        looks, states = json.loads(self._answers.readline())
        return looks, states

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)

    def _look(self, not_ours: tuple[int, int], orders: int, answers: int) -> None:
        for end in not_ours:  # with them it would outlive the one that gives the orders
            os.close(end)
        commands, replies = os.fdopen(orders), os.fdopen(answers, "w")
        while number := commands.readline():
            looks, states = 0, []
            while not select.select([orders], [], [], _LOOK_EVERY_S)[0]:
                looks += 1
                state = self.state(int(number))
                if states[-1:] != [state]:
                    states.append(state)
            commands.readline()
            print(json.dumps([looks, states]), file=replies, flush=True)

    def state(self, number: int) -> str:
        """The name of the newest state there; what is no known state is told in full."""
        newest = "nothing"
        try:
            for state in self._remote.states(number):
                names = [name for name, known in self._known.items() if known == state]
                newest = names[0] if names else f"in part: {len(state)} files, {sorted(state)}"
                if not names:
                    break
        except (OSError, KeyError) as error:
            return f"broken: {error!r}"
        return newest


def _older(model: Path, place: Path) -> Path:
    """A copy of the model with other bytes at the end of its largest file."""
    copy = Path(shutil.copytree(model, place))
    largest = max((path for path in copy.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-64] + bytes(255 - byte for byte in content[-64:]))
    return copy


@dataclass(frozen=True)
class Killing:
    """Publishing a bundle, into nothing and over an older one."""

    remote: Remote
    bundle: Bundle
    older: Bundle

    def publisher(self, bundle: Bundle, number: int) -> int:
        return _forked(lambda: self.publish(bundle, number))

    def publish(self, bundle: Bundle, number: int) -> None:
        # Not by way of `publish_bundle`: its cards name the repository, and states of several are compared.
        self.remote.target.publish(bundle, PublishOptions(repo=self.remote.repo(number)), Silent())

    def finish(self, bundle: Bundle, number: int) -> float:
        """Publish to the end; how long that took."""
        started = time.monotonic()
        # A child of the one that was killed may hold its lock for a moment.
        while (status := os.waitpid(self.publisher(bundle, number), 0)[1]) == _BUSY << 8:
            if time.monotonic() - started > 10:
                break
            time.sleep(0.02)
        if status:
            raise SystemExit(f"{self.remote.repo(number)}: publishing ends with {os.waitstatus_to_exitcode(status)}")
        return time.monotonic() - started

    def run(self, points: int) -> tuple[int, int]:
        """Kill until `points` publishers were hit; how many that were, and how often the reader looked."""
        remote = self.remote
        remote.start(0, None)
        self.publish(self.bundle, 0)  # here: what takes long to load is loaded before the children are forked
        ends = {"nothing": remote.end(0)}
        remote.start(1, None)
        whole_s = {"nothing": self.finish(self.older, 1)}
        remote.keep(1)
        known = {"new": ends["nothing"].states[-1], "old": remote.end(1).states[-1]}
        remote.start(2, copy_of=1)
        whole_s["old"] = self.finish(self.bundle, 2)
        ends["old"] = remote.end(2)
        for bundle, state in ((self.bundle, known["new"]), (self.older, known["old"])):
            if {file.path: file.sha256 for file in bundle.files}.items() - state.items():
                raise SystemExit("what was published is not the bundle")
        hit = all_looks = 0
        chance = random.Random(7)
        with Reader(remote, known) as reader:
            for number in range(3, 4 * points + 3):
                if hit == points:
                    break
                before = ("nothing", "old")[number % 2]
                remote.start(number, copy_of=1 if before == "old" else None)
                reader.watch(number)
                if self.kill(number, chance.uniform(0, whole_s[before])):
                    hit += 1
                else:
                    whole_s[before] *= 0.9  # the machine was slower when that was taken
                remote.note_sent(number)
                self.finish(self.bundle, number)
                looks, states = reader.seen()
                all_looks += looks
                if states not in ([before, "new"], ["new"], [before]):
                    raise SystemExit(f"killed at point {number}: a reader saw {states}")
                if remote.end(number) != ends[before]:
                    raise SystemExit(f"killed at point {number}: {remote.end(number)} instead of {ends[before]}")
                if remote.sent_twice(number) > 1:
                    raise SystemExit(f"killed at point {number}: {remote.sent_twice(number)} files arrived twice")
        return hit, all_looks

    def kill(self, number: int, after_s: float) -> bool:
        """Whether the publisher was killed before it had ended."""
        child = self.publisher(self.bundle, number)
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main() -> None:
    name, model, root, points = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    os.environ["DEPLOYTK_CACHE_DIR"] = str(root / "cache")
    bundle = make_bundle(model, root / "bundle", BundleOptions(name="tiny", license="mit"))
    older = make_bundle(_older(model, root / "older-model"), root / "older", BundleOptions(name="tiny"))
    with remote_of(name, root) as remote:
        print(*Killing(remote, bundle, older).run(points))  # noqa: T201


main()
