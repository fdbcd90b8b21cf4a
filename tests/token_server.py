"""Hands out the tokens that docker-registry accepts, over HTTP: https://distribution.github.io/distribution/spec/auth/"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from quiet_server import QuietServer

_LEEWAY_S = 60  # for which docker-registry accepts a token that has run out


class TokenServer(QuietServer):
    def __init__(self, certificate: Path, user: str, password: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.user, self.password = user, password
        self.lifetime_s = 300
        self.scopes: list[list[str]] = []  # that were asked for
        self._key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "token server of a test")])
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        signed = builder.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        self._chain = [base64.b64encode(signed.public_bytes(serialization.Encoding.DER)).decode()]

    @property
    def settings(self) -> dict[str, str]:
        return {"realm": f"http://127.0.0.1:{self.server_address[1]}/token", "service": "registry", "issuer": "test"}

    def token(self, scopes: list[str]) -> str:
        """A token that docker-registry accepts for `lifetime_s`."""
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":") for scope in scopes)
        ]
        now = int(time.time())
        ends = now + self.lifetime_s - _LEEWAY_S
        claims = {"iss": "test", "aud": "registry", "sub": self.user, "exp": ends, "nbf": now - 120, "access": access}
        signed = ".".join(map(_encoded, ({"alg": "RS256", "typ": "JWT", "x5c": self._chain}, claims)))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        pair = f"{self.server.user}:{self.server.password}".encode()
        is_right = self.headers.get("Authorization") == f"Basic {base64.b64encode(pair).decode()}"
        scopes = " ".join(parse_qs(urlsplit(self.path).query).get("scope", [])).split()
        self.server.scopes.append(scopes)
        # Clients are told that it lasts long: that it has run out, they find out by a 401.
        body = {"token": self.server.token(scopes), "expires_in": 3600} if is_right else {}
        self.send_response(200 if is_right else 401)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


@contextlib.contextmanager
def running_token_server(certificate: Path, user: str, password: str) -> Iterator[TokenServer]:
    with TokenServer(certificate, user, password) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
