"""Ray's dashboard, which deploys: what is there, and what shall be. It never sees a token that is not its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploytk.base.errors import ScaleError, UsageError
from deploytk.base.net import Answer, Key, ask
from deploytk.base.origin import Origin
from deploytk.base.pause import pause
from deploytk.base.terminal import one_line

_APPLICATIONS = "/api/serve/applications/"
_PAUSES_S = (2.0, 5.0, 10.0)
_GET_WITHIN_S, _PUT_WITHIN_S = 30.0, 120.0  # the first deployment starts the controller
_LARGEST_BYTES = 16 * 2**20
_LARGEST_TOKEN_BYTES = 4096
_TOKEN_FILE = "~/.ray/auth_token"  # noqa: S105 (Ray's own default)


@dataclass(frozen=True, slots=True)
class Dashboard:
    url: str
    key: Key | None

    @classmethod
    def at(cls, address: str) -> Dashboard:
        """The dashboard at an address; UsageError for what is none, or would be asked over the network without a token.

        Whoever reaches a dashboard can run programs on the cluster.
        """
        url = address.rstrip("/")
        try:
            origin = Origin.of(url)
        except ValueError as error:
            raise UsageError("--address is no address of a dashboard", hint="write http://127.0.0.1:8265") from error
        token = _token()
        if not origin.is_loopback and token is None:
            hint = "set RAY_AUTH_TOKEN_PATH to the file of the token, or tunnel the dashboard to this machine"
            raise UsageError(f"{origin} is asked over the network, and there is no token", hint=hint)
        if token is not None and not origin.is_private:
            hint = "tunnel it: ssh -L 8265:127.0.0.1:8265 HEAD, and leave --address out"
            raise UsageError(f"the token would go to {origin} in clear text", hint=hint)
        try:
            return cls(url, Key.bound_to(url, token) if token is not None else None)
        except ValueError as error:
            raise UsageError(f"the token of Ray cannot be used: {error}", hint="write the file anew") from error

    def details(self) -> dict[str, Any]:
        """All applications and their states."""
        found = self._ask(None, _GET_WITHIN_S).json()
        if not isinstance(found, dict) or not isinstance(found.get("applications"), dict):
            raise self._refusal("gives no list of applications")
        return found

    def deploy(self, config: Mapping[str, object]) -> None:
        """Asks for exactly these applications; returns before they are there.

        A head that is busy fails to start its controller in time, and has it a moment later: that is asked again.
        """
        for pause_s in (*_PAUSES_S, None):
            answer = self._asked(config, _PUT_WITHIN_S)
            if answer.status < 500 or pause_s is None:
                break
            pause(pause_s)
        self._checked(answer)

    def _ask(self, body: Mapping[str, object] | None, within_s: float) -> Answer:
        return self._checked(self._asked(body, within_s))

    def _asked(self, body: Mapping[str, object] | None, within_s: float) -> Answer:
        try:
            return ask(
                self.url + _APPLICATIONS, within_s, body=body, method="PUT", key=self.key, largest_bytes=_LARGEST_BYTES
            )
        except ConnectionError as error:
            raise self._refusal(f"does not answer: {error}") from error

    def _checked(self, answer: Answer) -> Answer:
        if answer.status in (401, 403):
            hint = "RAY_AUTH_TOKEN_PATH names the file with the token of the cluster"
            raise ScaleError(f"Ray's dashboard at {self.url} wants another token", hint=hint)
        if answer.status != 200:
            said = one_line(answer.body.decode("utf-8", "replace"))[:300]
            raise self._refusal(f"answers {answer.status}: {said}")
        return answer

    def _refusal(self, what: str) -> ScaleError:
        return ScaleError(f"Ray's dashboard at {self.url} {what}", hint="check that the head runs, and its address")


def _token() -> str | None:
    """That of the cluster, where Ray itself looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    place = Path(named or _TOKEN_FILE).expanduser()
    try:
        return place.read_bytes()[:_LARGEST_TOKEN_BYTES].decode("ascii").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        if named:
            raise UsageError(
                "the file of RAY_AUTH_TOKEN_PATH cannot be read", hint="check its place and mode"
            ) from error
        return None
