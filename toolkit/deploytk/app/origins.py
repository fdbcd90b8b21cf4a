"""Which page a browser's request comes from, and which name it has for this server: both can be an attacker's."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from typing import Mapping  # noqa: UP035 (Python 3.8 in old images)
from urllib.parse import urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Hosts:
    """The names by which this server may be called.

    On loopback every other name is refused: a page of an attacker whose name suddenly means 127.0.0.1 (DNS rebinding)
    would else read all that a local user can.
    """

    listening_at: str
    allowed: frozenset[str]  # beside those that every server has; "*" for any

    @classmethod
    def of(cls, listening_at: str) -> Hosts:
        names = os.environ.get("DEPLOYTK_ALLOWED_HOSTS", "").split(",")
        return cls(listening_at, frozenset(name_of(name) for name in names if name.strip()))

    @property
    def is_loopback(self) -> bool:
        return self.listening_at in LOOPBACK or _is_loopback_address(self.listening_at)

    def know(self, host: str) -> bool:
        """Whether a Host header is one of ours. Without one no browser is asking."""
        name = name_of(host)
        if not host or name in LOOPBACK or name in self.allowed or "*" in self.allowed:
            return True
        if self.is_loopback:
            return name == self.listening_at
        # An address is no name that can be made to mean another; probes of an orchestrator ask by address.
        return not self.allowed or _is_address(name)


def name_of(host: str) -> str:
    """The name in a Host header or in an origin, without port, brackets and a dot at the end."""
    try:
        return (urlsplit("//" + host.strip()).hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_cross_site(method: str, headers: Mapping[str, str], hosts: Hosts) -> bool:
    """Whether a page of another site asks for something to be done.

    Browsers say so in Sec-Fetch-Site (over https and on localhost) and in Origin; what says neither is no browser.
    A proxy may have changed Host; X-Forwarded-Host is no header that a page may set.
    """
    if method in SAFE:
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    authority = origin.partition("://")[2].lower()
    asked = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    ours = {name.strip().lower() for name in asked if name.strip()}
    return authority not in ours and name_of(authority) not in hosts.allowed


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback_address(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
