"""Stage 7: a URL, image, bundle or model directory -> Endpoint."""

from deploytk.serve.asking import require_key
from deploytk.serve.endpoint import Endpoint, EngineChoice, Served, ServeOptions, attach, completes, wait_while_running
from deploytk.serve.local import choose_engine
from deploytk.serve.source import SourceKind, open_endpoint, source_kind

__all__ = [
    "Endpoint",
    "EngineChoice",
    "ServeOptions",
    "Served",
    "SourceKind",
    "attach",
    "choose_engine",
    "completes",
    "open_endpoint",
    "require_key",
    "source_kind",
    "wait_while_running",
]
