"""Who is talked to: scheme, host and port, and whether that is this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is talked to: what a credential is bound to, and where a redirect may lead."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Raises ValueError when `url` is none of a web server."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url} is no address of a server")
        port = parts.port
        return cls(parts.scheme, parts.hostname, _DEFAULT_PORTS[parts.scheme] if port is None else port)

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way reads what is sent there: no other origin ever gets a credential."""
        return self.scheme == "https" or self.is_loopback

    @property
    def netloc(self) -> str:
        """Host and port as an address has them, without the usual port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


def origin_of(url: object) -> Origin | None:
    """The origin of an address that somebody else gave; None for one that is none, or that holds a name or password."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        return Origin.of(str(url)) if parts and parts.username is None and parts.password is None else None
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address without port, is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
