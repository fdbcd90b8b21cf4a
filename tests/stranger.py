"""A server that nobody meant to talk to: it keeps what it is sent, and asks everybody for a login.

with stranger() as other:
    other.url                # http://127.0.0.1:PORT
    other.answers[:] = [(200, {}, b"")]    # what the next requests are answered; then 401 again
    other.requests           # Request(method, path, headers, body), each as it came
    other.logins             # every header by which something secret may have come

With a certificate it speaks https: stranger(certificate=make_certificate(directory)).
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from quiet_server import QuietServer

Answer = tuple[int, dict[str, str], bytes]
CHALLENGE: Answer = (401, {"WWW-Authenticate": 'Basic realm="other"'}, b"")
_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "private-token", "x-auth-token")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Stranger(QuietServer):
    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http"
        self.answers: list[Answer] = []
        self.always: Answer = CHALLENGE
        self.requests: list[Request] = []
        if certificate:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def logins(self) -> list[str]:
        return [one.headers[name] for one in self.requests for name in _SECRET_HEADERS if name in one.headers]

    def saw(self, secret: str) -> bool:
        """Whether a secret came in any part of any request."""
        texts = (f"{one.path} {one.headers} {one.body!r}" for one in self.requests)
        return any(secret in text for text in texts)


class _Handler(BaseHTTPRequestHandler):
    server: Stranger
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *arguments: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers, body))
        status, more, content = self.server.answers.pop(0) if self.server.answers else self.server.always
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


@contextlib.contextmanager
def stranger(certificate: Path | None = None) -> Iterator[Stranger]:
    server = Stranger(certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, its key beside it; give it as SSL_CERT_FILE to be trusted."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    place = directory / "certificate.pem"
    place.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    place.with_suffix(".key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return place
