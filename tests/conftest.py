"""Fixtures that several tests share."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hostile
import pytest
from hypothesis import settings
from pages import browser, hosted  # noqa: F401 (fixtures of the tests with a browser)

if TYPE_CHECKING:
    from git_server import GitServer
    from modelscope_server import ModelScopeServer
    from odd_registry import Odd
    from xdist.scheduler import WorkStealingScheduling

# What is compiled is kept, whatever the environment says: hundreds of tests start a process of the same modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pytest.register_assert_rewrite("remotes")  # which some tests import and have as a plugin, for its fixtures

# Started in the background of a shell, a process ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

MODELS = Path(__file__).parent / "models"
MARKERS = {"engine", "services", "docker", "gpu", "network"}  # each is run by a command of its own

# What the person who runs the tests has measured on this machine is not theirs to plan with.
os.environ["DEPLOYTK_DATA_DIR"] = str(Path(tempfile.gettempdir()) / f"deploytk-tests-{os.getpid()}")

# How long an example takes is the machine's, and the tests have to hold on a busy one.
settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")


def require(*programs: str) -> None:
    """Skip the test where one of them is not installed; fail where all services are required."""
    for program in programs:
        if not shutil.which(program):
            if os.environ.get("CI") or os.environ.get("DEPLOYTK_REQUIRE_SERVICES"):
                pytest.fail(f"{program} is not installed")
            pytest.skip(f"needs {program}")


@pytest.fixture
def git_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitServer]:
    """A git server with the empty repository me/tiny, which stands for OpenXLab's; the account may write."""
    from git_server import WRITER, git_server

    require("git", "git-lfs")
    with git_server(tmp_path / "server") as server:
        server.create("me/tiny")
        monkeypatch.setenv("OPENXLAB_GIT_ENDPOINT", server.url)
        monkeypatch.setenv("OPENXLAB_USERNAME", WRITER[0])
        monkeypatch.setenv("OPENXLAB_GIT_TOKEN", WRITER[1])
        yield server


@pytest.fixture
def modelscope_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeServer]:
    """A server that stands for ModelScope's; the account may write."""
    pytest.importorskip("modelscope_hub")
    from modelscope_server import WRITER, modelscope_server

    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with modelscope_server() as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", WRITER)
        yield hub


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    """A registry that a test may make odd; no credentials of the user's."""
    from odd_registry import odd_registry

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with odd_registry() as server:
        yield server


@pytest.fixture
def model_copy(tmp_path: Path) -> Callable[[str], Path]:
    """Copies one of the tiny models to a place where it can be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(MODELS / name, tmp_path / name))

    return copy


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A directory on another file system than the temporary directory of the tests."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=memory) as place:
        yield Path(place)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        if os.environ.get("CI"):
            pytest.fail("a tmpfs cannot be mounted here")
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def one_at_a_time(what: str) -> Iterator[None]:
    """Waits until no other process that runs tests here uses `what`."""
    with (Path(tempfile.gettempdir()) / f"deploytk-tests-{what}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture
def hub_port() -> Iterator[None]:
    """One test at a time may try an app on port 7860, whatever other processes run tests here."""
    with one_at_a_time("7860"):
        yield


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test` runs the hostile suites once, where they are counted."""
    files = {file for suite in hostile.SUITES.values() for file in suite}
    return True if config.getoption("--without-hostile") and collection_path.stem in files else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with a browser is one of services: `make test` has neither Playwright nor Chromium."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            assert {mark.name for mark in item.iter_markers()} & MARKERS == {"services"}, (
                f"{item.nodeid}: mark it services"
            )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Two fixtures of one name, of this file and of a plugin such as `remotes`: this file's would be used, unsaid."""
    for name, found in getattr(item, "_fixtureinfo").name2fixturedefs.items():  # noqa: B009 (pytest has no other way)
        assert len({one.baseid for one in found if not Path(one.baseid).suffix}) < 2, (
            f"{item.nodeid}: there are {len(found)} fixtures named {name}"
        )


def pytest_collection_finish() -> None:
    """What is loaded by now stays: garbage, which each measurement collects before it begins, is found without it."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: many tests wait, for a server, a process or a pause (on two cores 403 s instead of 594 s)."""
    return 2 * (os.cpu_count() or 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WorkStealingScheduling:
    """The tests of a file stay with one worker as long as each has work: what a file starts is not started by all."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-hostile", action="store_true", help="Leave out what tests/hostile.py runs.")
    parser.addoption("--rewrite-golden", action="store_true", help="Rewrite the golden files from what is rendered.")


Reviewed = Callable[[str, Path], None]


@pytest.fixture
def reviewed(request: pytest.FixtureRequest) -> Reviewed:
    """Holds a text to a golden file, which `make golden` rewrites."""

    def compare(made: str, place: Path) -> None:
        if request.config.getoption("--rewrite-golden"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(made, encoding="utf-8")
        assert made == place.read_text(encoding="utf-8"), "run `make golden`, and review the difference"

    return compare


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests remember digests in a place of their own."""
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
