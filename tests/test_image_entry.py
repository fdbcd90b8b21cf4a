"""An image that would not start is refused before anything of it is sent."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from bases import LOADER, Special, elf, python_files, write_base
from bundles import given_bundle
from conftest import MODELS

from deploytk.base.errors import ImageError
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle
from deploytk.image.build import build_image
from deploytk.image.entry import ENTRY, check_entry, entry_of
from deploytk.image.oci import read_layout
from deploytk.image.program import read_program
from deploytk.image.tree import read_tree
from deploytk.image.value import USER, BuildOptions
from deploytk.publish.options import PublishOptions
from deploytk.publish.targets.oci import Oci

PATH = {"config": {"Env": ["PATH=/opt/app/bin:/usr/bin"]}}
LIBC = {name: data for name, data in python_files().items() if "lib" in name}


def _without(*names: str) -> dict[str, bytes | Special]:
    return {name: data for name, data in python_files().items() if name not in names}


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


def _check(tmp_path: Path, files: Mapping[str, bytes | Special], upper: Mapping[str, bytes | Special] = {}) -> None:
    base = read_layout(write_base(tmp_path / "base", files, upper=upper, config=PATH))
    check_entry(base, entry_of(base, ENTRY, USER), Silent())


@pytest.mark.parametrize(
    "files",
    [
        python_files(),
        python_files("3.8"),
        {**LIBC, "opt/app/bin/python": Special(link="../lib/py"), "opt/app/lib/py": elf()},
        {**LIBC, "usr/bin/python": Special(link="../../../usr/lib/py"), "usr/lib/py": elf()},
        {**LIBC, "a/py": elf(), "usr/bin/python": Special(link="a/py", is_hard=True)},
        {**python_files(), "opt/app/bin/python": b"#!/usr/bin/env python3\n", "usr/bin/env": elf()},
        {"usr/bin/python": elf(loader="/lib/ld-musl-x86_64.so.1", libraries=()), "lib/ld-musl-x86_64.so.1": b"musl"},
        {**python_files(), "opt/app/bin/python": Special(is_directory=True)},  # execvp goes on
    ],
)
def test_a_python_in_any_place_that_works_is_found(tmp_path: Path, files: dict[str, bytes | Special]) -> None:
    _check(tmp_path, files)


@pytest.mark.parametrize(
    ("files", "upper", "message", "hint"),
    [
        ({"a": b"1"}, {}, r"has no python on its PATH \(/opt/app/bin:/usr/bin\)", "install it"),
        (_without("usr/bin/python"), {}, "has no python on its PATH", "it has /usr/bin/python3: add a link called"),
        ({**LIBC, "opt/conda/bin/python": elf()}, {}, "has no python on its PATH", "it has /opt/conda/bin/python"),
        (python_files(), {"usr/bin/.wh.python": b""}, "has no python on its PATH", "it has /usr/bin/python3"),
        (python_files(), {"usr/bin/.wh..wh..opq": b""}, "has no python on its PATH", "install it"),
        ({**LIBC, "usr/bin/python": Special(link="python")}, {}, "has no python on its PATH", "install it"),
        (_without("usr/bin/python3.11"), {}, "has no python on its PATH", "install it"),
        (python_files("2.7"), {}, r"has Python 2\.7, and the app needs 3\.8", "another image"),
        (python_files("3.6"), {}, r"has Python 3\.6, and the app needs 3\.8", "another image"),
        ({**LIBC, "usr/bin/python": elf(machine=183)}, {}, "is for arm64, and the image says amd64", "another image"),
        (_without("usr/lib64/ld-linux-x86-64.so.2"), {}, f"needs {LOADER}, not in the image", "install the packages"),
        (_without("usr/lib/x86_64-linux-gnu/libc.so.6"), {}, r"needs libc\.so\.6, not in the image", "the packages"),
        (
            {**LIBC, "usr/bin/python": elf(libraries=("libc.so.6", "libpython3.12.so.1.0"))},
            {},
            r"needs libpython3\.12\.so\.1\.0, not in the image",
            "install the packages",
        ),
        ({"usr/bin/python": b"#!"}, {}, "is no program that Linux starts", "another image"),
        ({"usr/bin/python": b""}, {}, "is no program that Linux starts", "another image"),
        ({"usr/bin/python": b"MZ\x90"}, {}, "is no program that Linux starts", "another image"),
        ({"usr/bin/python": elf()[:100]}, {}, "is no program that Linux starts", "another image"),
        ({"usr/bin/python": b"#!/bin/sh\n"}, {}, "needs /bin/sh, not in the image", "install the packages"),
        ({"usr/bin/python": b"#!/usr/bin/python\n"}, {}, "script of a script", "another image"),
        ({**LIBC, "usr/bin/python": Special(content=elf(), mode=0o644)}, {}, "is not executable", "every user"),
        (
            {
                **LIBC,
                "root": Special(is_directory=True, mode=0o700),
                "root/py": elf(),
                "usr/bin/python": Special(link="/root/py"),
            },
            {},
            "cannot be run by user 10001: /root is closed to it",
            "every user",
        ),
    ],
)
def test_what_would_end_before_its_first_line_is_refused(
    tmp_path: Path, files: dict[str, bytes | Special], upper: dict[str, bytes | Special], message: str, hint: str
) -> None:
    with pytest.raises(ImageError, match=message) as raised:
        _check(tmp_path, files, upper)

    assert hint in raised.value.hint


def test_nothing_is_written_of_an_image_that_would_not_start(bundle: Bundle, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {"a": b"1"})
    options = BuildOptions("tiny:1", f"oci:{tmp_path / 'out'}", base=f"oci:{base}")

    with pytest.raises(ImageError, match="has no python"):
        build_image(bundle, options, Silent())

    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob("bundle.*")) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "arm64"}, "is an image for linux/arm64"),
        ({"os": "windows"}, "is an image for windows"),
    ],
)
def test_a_base_for_another_platform_is_refused(
    bundle: Bundle, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    base = write_base(tmp_path / "base", config=config)
    options = BuildOptions("tiny:1", f"oci:{tmp_path / 'out'}", base=f"oci:{base}")

    with pytest.raises(ImageError, match=message):
        build_image(bundle, options, Silent())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"config": {"Cmd": ["serve"]}}, r"has no serve on its PATH \(/usr/local/sbin:"),
        ({"config": {"Entrypoint": ["/entrypoint.sh"]}}, r"has no /entrypoint\.sh"),
        ({"config": {"Entrypoint": ["./run"], "WorkingDir": "/app"}}, "has no /app/./run"),
        ({"config": {}}, "has neither ENTRYPOINT nor CMD"),
    ],
)
@pytest.mark.parametrize("is_preview", [True, False])
def test_an_image_of_somebody_is_published_when_what_it_runs_is_in_it(
    tmp_path: Path, config: dict[str, object], message: str, is_preview: bool
) -> None:
    place = f"oci:{write_base(tmp_path / 'image', config=config)}"
    options = PublishOptions(repo="registry.invalid/me/tiny:1")

    with pytest.raises(ImageError, match=message):
        Oci().preview_image(place, options) if is_preview else Oci().publish_image(place, options, Silent())


def test_what_was_looked_at_once_is_not_read_again(tmp_path: Path) -> None:
    base = read_layout(write_base(tmp_path / "base"))
    entry = entry_of(base, ENTRY, USER)
    check_entry(base, entry, Silent())
    unreadable = tuple(dataclasses.replace(layer, read=lambda _: iter([b"x"])) for layer in base.layers)

    check_entry(dataclasses.replace(base, layers=unreadable), entry, Silent())


def test_a_damaged_layer_is_said(tmp_path: Path) -> None:
    base = read_layout(write_base(tmp_path / "base"))
    damaged = tuple(dataclasses.replace(layer, read=lambda _: iter([b"x" * 2000])) for layer in base.layers)

    with pytest.raises(ImageError, match="cannot be read"):
        read_tree(damaged)


def test_the_python_that_runs_this_says_what_it_needs() -> None:
    program = read_program(Path(sys.executable).resolve().read_bytes())

    assert program
    assert any(name.startswith("libc.") for name in program.libraries)
    assert len(program.interpreter) == 1


def test_every_cut_of_a_program_is_read_or_refused() -> None:
    whole = elf()

    assert read_program(whole) == read_program(whole + b"\0" * 100)
    assert json.dumps([repr(read_program(whole[:size])) for size in range(len(whole))])


def _zstd(tar: bytes, **more: int) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.ZstdCompressor(**more).compress(tar))


ZSTD: dict[str, Callable[[bytes], bytes]] = {
    "one frame": _zstd,
    "several frames": lambda tar: _zstd(tar[:700]) + _zstd(tar[700:]),
    "a frame that is to be skipped": lambda tar: _zstd(tar[:9]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + _zstd(tar[9:]),
}


@pytest.mark.parametrize("how", ZSTD)
def test_layers_that_zstd_compressed_are_read(bundle: Bundle, tmp_path: Path, how: str) -> None:
    place = write_base(tmp_path / "base", {}, upper=python_files(), compress=ZSTD[how], compression="zstd")

    image = build_image(bundle, BuildOptions("a:1", f"oci:{tmp_path / 'out'}", base=f"oci:{place}"), Silent())

    assert image.layers


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (lambda tar: _zstd(tar)[:-20], "damaged|cannot be read"),
        (lambda tar: _zstd(tar)[:8] + bytes(100), "damaged"),
        (lambda tar: _zstd(tar) + b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "damaged"),
        # A window of 2 GiB: the header (magic, no size, window 2**31) of a frame that would be unpacked into one
        (lambda _: b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00", "damaged: .*memory"),
    ],
)
def test_damaged_zstd_and_one_that_wants_too_much_memory_are_said(
    tmp_path: Path, packed: Callable[[bytes], bytes], says: str
) -> None:
    place = write_base(tmp_path / "base", {}, upper=python_files(), compress=packed, compression="zstd")

    with pytest.raises(ImageError, match=says):
        read_tree(read_layout(place).layers)


def test_without_the_package_it_is_said_what_reads_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_base(tmp_path / "base", compress=_zstd, compression="zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(ImageError, match="zstd, which nothing here reads") as caught:
        read_tree(read_layout(place).layers)

    assert "deploytk[zstd]" in caught.value.hint
