"""A server that answers what a test wants, byte for byte: it need not be HTTP, and may go on for ever."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ports import free_port


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    head: bytes
    body: bytes


Script = Callable[[Asked, Callable[[bytes], None]], None]
"""Called for every request with a function that sends bytes; that raises OSError once the client has gone."""


def plain(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole answer with its length."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode("latin-1") + body


@contextmanager
def lying(script: Script) -> Iterator[str]:
    """The URL at which `script` answers; one request per connection."""
    listener = socket.create_server(("127.0.0.1", free_port()), backlog=64)
    is_over = threading.Event()

    def send_to(connection: socket.socket) -> Callable[[bytes], None]:
        def send(data: bytes) -> None:
            if is_over.is_set():
                raise ConnectionError("the test is over")
            connection.sendall(data)

        return send

    def answer(connection: socket.socket) -> None:
        connection.settimeout(30)
        with connection, suppress(OSError, ValueError):
            asked = _read(connection)
            if asked is not None:
                script(asked, send_to(connection))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        is_over.set()
        # Closed while somebody waits in it, accept() goes on with whatever has the descriptor's number next.
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return None
        body += piece
    method, path, *_ = head.decode("latin-1").split(" ")
    return Asked(method, path, head, body)
