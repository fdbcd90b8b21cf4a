"""Keeps what a client library sends where it belongs: its credentials with one server, its uploads encrypted."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping

from deploytk.base.errors import ReleaseError
from deploytk.base.origin import Origin, origin_of

_SECRETS = ("authorization", "cookie")


def keep_at_home(url: str, headers: MutableMapping[str, str], home: Origin, friends: Collection[Origin] = ()) -> None:
    """Before each request, redirected ones too: takes the credentials out when it goes elsewhere than to `home`.

    Raises ReleaseError for an address where others could read what is sent, or, for a server that is not on this
    machine, one that is.
    """
    origin = origin_of(url)
    if origin == home or origin in friends:
        return
    if not origin or not origin.is_private or (origin.is_loopback and not home.is_loopback):
        raise ReleaseError(
            f"{home.netloc} sends us to {origin or 'no web address'}, without encryption or on this machine",
            hint="nothing was sent there: its administrator must set its external addresses to https",
        )
    for name in [name for name in headers if name.lower() in _SECRETS]:
        del headers[name]
