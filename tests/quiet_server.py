"""An HTTP server in the tests' process that does not talk of clients that went away.

socketserver prints a traceback of them, and a test that looks into what a command prints takes it for the command's.
"""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
