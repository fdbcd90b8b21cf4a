"""Stage 7: what a person names, a URL, image, bundle or model directory, -> Endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from deploytk.base.progress import Progress
from deploytk.bundle import is_bundle
from deploytk.serve.asking import key_for
from deploytk.serve.endpoint import Endpoint, ServeOptions, attach_when_ready
from deploytk.serve.local import running_locally

SourceKind = Literal["url", "image", "bundle", "model"]
_IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._/:-]*(@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}")


@contextmanager
def open_endpoint(source: str, options: ServeOptions, progress: Progress) -> Iterator[Endpoint]:
    """A server for `source`: attached to when it is a URL, else started for the bundle or model directory.

    What is started is the very app that is published, on this machine. Raises EndpointError, with the end of the
    log, when it is not ready in time; at the end of the context nothing of it is left running.
    """
    kind = source_kind(source)
    if kind == "url":
        url = source.rstrip("/")
        yield attach_when_ready(url, key_for(url, options.api_key), options.attach_within_s)
    elif kind == "image":
        from deploytk.serve.container import running_image

        with running_image(source, options, progress) as endpoint:
            yield endpoint
    else:
        with running_locally(_path(source), options, progress) as endpoint:
            yield endpoint


def source_kind(source: str) -> SourceKind:
    """What `source` is; a model directory when it is nothing else."""
    if source.startswith(("http://", "https://")):
        return "url"
    path = _path(source)
    if not os.path.exists(path) and _is_image(source):  # noqa: PTH110 (Path.exists raises for a name that is too long)
        return "image"
    return "bundle" if is_bundle(path) else "model"


def _path(source: str) -> Path:
    return Path(source.removeprefix("file://"))


def _is_image(source: str) -> bool:
    """Whether the Docker daemon has an image of that name, asked only for what can be one."""
    if not _IMAGE_NAME.fullmatch(source):
        return False
    from deploytk.serve.container import is_image

    return is_image(source)
