"""Who may come in: keys of programs, sessions of browsers, and how often somebody may try."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from typing import Callable, Iterable  # noqa: UP035 (Python 3.8 in old images)

SESSION_S = 12 * 3600.0
TRIES, TRIES_WITHIN_S = 10, 60.0
MOST_CLIENTS = 4096


class Keys:
    """The keys that are accepted; without any, everybody is."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys if key]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def fit(self, given: bytes) -> bool:
        """Every key is compared, each in constant time: how long it takes says nothing about them."""
        found = _digest(given)
        return bool(sum(hmac.compare_digest(found, known) for known in self._digests))


class Sessions:
    """Tokens for browsers that have shown a key. They end with their time, or with this process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._secret = secrets.token_bytes(32)
        self._clock = clock

    def open(self) -> str:
        text = f"{int(self._clock() + SESSION_S)}.{secrets.token_urlsafe(16)}"
        return f"{text}.{self._signature(text)}"

    def is_open(self, token: str) -> bool:
        text, _, signature = token.rpartition(".")
        # What is not ASCII cannot be compared as text.
        if not hmac.compare_digest(signature.encode(), self._signature(text).encode()):
            return False
        return int(text.partition(".")[0]) > self._clock()

    def _signature(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


class Attempts:
    """Wrong keys that came from an address lately; of clients beyond thousands the oldest are forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def may_try(self, address: str) -> bool:
        return len(self._recent(_network(address))) < TRIES

    def note_failure(self, address: str) -> None:
        network = _network(address)
        self._failures[network] = [*self._recent(network), self._clock()]
        self._failures.move_to_end(network)
        if len(self._failures) > MOST_CLIENTS:
            self._failures.popitem(last=False)

    def _recent(self, network: str) -> list[float]:
        return [at for at in self._failures.get(network, []) if at > self._clock() - TRIES_WITHIN_S]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _network(address: str) -> str:
    """One client has many IPv6 addresses: those of a /64 are one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
