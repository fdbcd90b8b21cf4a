"""Runtime images made by hand, as OCI layouts: what `--base oci:DIR` takes, without Docker."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LOADER = "/lib64/ld-linux-x86-64.so.2"


@dataclass(frozen=True)
class Special:
    """What is no plain file that everybody may run: a link, a directory, a file with another mode."""

    link: str | None = None
    is_hard: bool = False
    is_directory: bool = False
    mode: int = 0o755
    content: bytes = b""


def layer_tar(files: Mapping[str, bytes | Special]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, given in files.items():
            special = given if isinstance(given, Special) else Special(content=given)
            info = tarfile.TarInfo(name)
            info.mode, info.size = special.mode, len(special.content)
            if special.link is not None:
                info.type, info.linkname = tarfile.LNKTYPE if special.is_hard else tarfile.SYMTYPE, special.link
            elif special.is_directory:
                info.type = tarfile.DIRTYPE
            tar.addfile(info, io.BytesIO(special.content))
    return content.getvalue()


def elf(machine: int = 62, loader: str = LOADER, libraries: tuple[str, ...] = ("libc.so.6",)) -> bytes:
    """A program of 64 bits that says what it needs, and does nothing."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    starts = [strings.index(name.encode() + b"\0") for name in libraries]
    headers = 64 + 3 * 56
    name = loader.encode() + b"\0"
    dynamic_at = headers + len(name)
    # NEEDED (1) for each library, where the strings are (5), the end (0)
    dynamic = b"".join(struct.pack("<qQ", 1, start) for start in starts)
    strings_at = dynamic_at + len(dynamic) + 32
    dynamic += struct.pack("<qQqQ", 5, 0x400000 + strings_at, 0, 0)
    whole = strings_at + len(strings)
    segments = [(1, 0, whole), (2, dynamic_at, len(dynamic)), (3, headers, len(name))]
    described = b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, at, 0x400000 + at, 0, size, size, 1) for kind, at, size in segments
    )
    start = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head = start + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    return head + described + name + dynamic + strings


def python_files(version: str = "3.11") -> dict[str, bytes | Special]:
    """A Python as Debian has it: /bin is a link, and so is python."""
    return {
        "bin": Special(link="usr/bin"),
        "lib64": Special(link="usr/lib64"),
        "usr/bin/python": Special(link="python3"),
        "usr/bin/python3": Special(link=f"/bin/python{version}"),
        f"usr/bin/python{version}": elf(),
        "usr/lib64/ld-linux-x86-64.so.2": b"a loader",
        "usr/lib/x86_64-linux-gnu/libc.so.6": b"a libc",
    }


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_base(
    directory: Path,
    files: Mapping[str, bytes | Special] | None = None,
    *,
    is_docker: bool = False,
    name: str = "runtime:1",
    upper: Mapping[str, bytes | Special] | None = None,
    compress: Callable[[bytes], bytes] = lambda tar: gzip.compress(tar, mtime=0),
    compression: str = "gzip",
    config: Mapping[str, object] | None = None,
) -> Path:
    """An OCI layout with one image of two layers, the second one compressed; by default it has a Python."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(content: bytes) -> tuple[str, int]:
        (blobs / digest_of(content).removeprefix("sha256:")).write_bytes(content)
        return digest_of(content), len(content)

    tars = [layer_tar(python_files() if files is None else files)]
    tars.append(layer_tar({"etc/passwd": b"root:x:0:0::/:/bin/sh\n", **(upper or {})}))
    packed = [tars[0], compress(tars[1])]
    kind = "application/vnd.docker.image.rootfs.diff.tar" if is_docker else "application/vnd.oci.image.layer.v1.tar"
    suffix = f".{compression}" if is_docker else f"+{compression}"
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin", "HOME=/root"], "Cmd": ["sh"], "Labels": {"vendor": "example"}},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [{"created_by": "base"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "passwd"}],
        **(config or {}),
    }
    config_digest, config_size = keep(json.dumps(described).encode())
    layers = [dict(zip(("digest", "size"), keep(content), strict=True)) for content in packed]
    layers[0]["mediaType"], layers[1]["mediaType"] = kind, kind + suffix
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest,
            "size": config_size,
        },
        "layers": layers,
    }
    digest, size = keep(json.dumps(manifest).encode())
    annotations = {"org.opencontainers.image.ref.name": name}
    entry = {"mediaType": manifest_type, "digest": digest, "size": size, "annotations": annotations}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory
