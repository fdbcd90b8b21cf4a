"""Runtime images made by hand, as OCI layouts: what `--base oci:DIR` takes, without Docker."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path


def layer_tar(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_base(
    directory: Path, files: dict[str, bytes] | None = None, *, is_docker: bool = False, name: str = "runtime:1"
) -> Path:
    """An OCI layout with one image of two layers, the second one compressed."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def keep(content: bytes) -> tuple[str, int]:
        (blobs / digest_of(content).removeprefix("sha256:")).write_bytes(content)
        return digest_of(content), len(content)

    tars = [layer_tar(files or {"bin/python": b"#!"}), layer_tar({"etc/passwd": b"root:x:0:0::/:/bin/sh\n"})]
    packed = [tars[0], gzip.compress(tars[1], mtime=0)]
    kind = "application/vnd.docker.image.rootfs.diff.tar" if is_docker else "application/vnd.oci.image.layer.v1.tar"
    suffix = ".gzip" if is_docker else "+gzip"
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin", "HOME=/root"], "Cmd": ["sh"], "Labels": {"vendor": "example"}},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [{"created_by": "base"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "passwd"}],
    }
    config_digest, config_size = keep(json.dumps(config).encode())
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
