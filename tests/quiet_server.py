"""An HTTP server in the tests' process that does not talk of clients that went away.

socketserver prints a traceback of them, and a test that looks into what a command prints takes it for the command's.
"""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any

from ports import free_port


class QuietServer(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """At port 0 any of this worker's."""
        host, port = self.server_address[:2]
        self.server_address = (host, port or free_port())
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
