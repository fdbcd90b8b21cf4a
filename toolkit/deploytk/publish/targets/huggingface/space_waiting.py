"""Waits for a Space, and tells apart what keeps it from running."""

from __future__ import annotations

import re
import time
from collections import deque
from contextlib import suppress

from deploytk.base.errors import ReleaseError, TryAgainError
from deploytk.base.json import parse_json
from deploytk.base.net import Key, ask
from deploytk.base.origin import origin_of
from deploytk.base.pause import pause
from deploytk.base.progress import Progress
from deploytk.publish.targets.huggingface.client import Client

_BUSY = re.compile(
    r"scheduling failure|unable to schedule|not enough (?:hardware )?capacity|no capacity", re.IGNORECASE
)
_FAILED = ("BUILD_ERROR", "CONFIG_ERROR", "RUNTIME_ERROR", "NO_APP_FILE", "DELETING")
_ASLEEP = ("PAUSED", "STOPPED", "SLEEPING")
_LOG_LINES = 15
_LOG_WITHIN_S = 10.0
_LARGEST_LOG_BYTES = 2**23
_PROBE_WITHIN_S = 10.0
_RESTART_EVERY_S = 60.0


class Waiting:
    """Asks the hub how a Space is, and the app itself once the hub says that it runs."""

    def __init__(self, client: Client, name: str, commit: str, host: str, *, is_changed: bool) -> None:
        self._client, self._name, self._commit, self._host = client, name, commit, host
        self._progress: Progress = client.progress
        self._is_ours = not is_changed  # whether what the hub says is about this commit
        self._restarted_at: float | None = None
        self._last = ""

    def wait(self, limit_s: float, poll_s: float) -> None:
        started = time.monotonic()
        while True:
            state = self._look()
            if state == "ready":
                return
            if state != self._last:
                self._progress.note(f"the Space is {state}")
                self._last = state
            left = limit_s - (time.monotonic() - started)
            if left <= 0:
                raise self._too_long(state, limit_s)
            pause(min(poll_s, left))

    def _look(self) -> str:
        """building, starting, loading, waiting for hardware or ready; raises ReleaseError when it failed."""
        runtime = self._client.ask(lambda: self._client.api.get_space_runtime(self._name), self._name)
        stage, sha = str(runtime.stage), runtime.raw.get("sha")
        # Right after the commit the hub still shows the stage of the one before.
        self._is_ours |= sha == self._commit or (sha is None and "BUILDING" in stage)
        if not self._is_ours or (sha is not None and sha != self._commit):
            return "building"
        said = " ".join(str(runtime.raw.get("errorMessage") or "").split())
        if _BUSY.search(said):
            self._restart()
            return "waiting for hardware"
        if stage in _FAILED:
            which = "build" if stage in ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE") else "run"
            raise ReleaseError(
                f"the Space {self._name} failed: {stage} {said}".rstrip() + f"\n{self._log(which)}",
                hint="the lines above are the end of its log",
            )
        if stage in _ASLEEP:
            self._restart()
            return "starting"
        if stage != "RUNNING":
            return "building" if "BUILDING" in stage else "starting"
        return self._probe()

    def _restart(self) -> None:
        now = time.monotonic()
        if self._restarted_at is None or now - self._restarted_at > _RESTART_EVERY_S:
            self._restarted_at = now
            self._client.ask(lambda: self._client.api.restart_space(self._name), self._name)

    def _probe(self) -> str:
        try:
            facts = ask(f"{self._host}/ready", _PROBE_WITHIN_S, key=self._key()).json()
            state, detail = str(facts["state"]), str(facts.get("detail", ""))  # type: ignore[index, attr-defined]
        except (ConnectionError, ValueError, KeyError, TypeError, AttributeError):
            return "starting"
        if state == "failed":
            raise ReleaseError(
                f"the app of the Space {self._name} failed: {detail}\n{self._log('run')}",
                hint="the lines above are the end of its log",
            )
        return "ready" if state == "ready" else "loading the model"

    def _key(self) -> Key | None:
        """A private Space wants the token of the hub; it goes to the hub's own hosts alone."""
        hub, host = self._client.hub, origin_of(self._host)
        is_ours = host and host.scheme == "https" and host.port == 443 and host.host.endswith(".hf.space")
        return Key(host, hub.token) if host and (host == hub.origin or (is_ours and hub.is_official)) else None

    def _log(self, which: str) -> str:
        hub = self._client.hub
        lines: deque[str] = deque(maxlen=_LOG_LINES)
        url = f"{hub.endpoint}/api/spaces/{self._name}/logs/{which}"
        with suppress(ConnectionError, ValueError, KeyError, TypeError):
            # It goes on for as long as the Space runs.
            key = Key(hub.origin, hub.token)
            answer = ask(url, _LOG_WITHIN_S, key=key, largest_bytes=_LARGEST_LOG_BYTES, takes_start=True)
            for line in answer.body.split(b"\n"):
                if line.startswith(b"data:"):
                    lines.append(str(parse_json(line[5:])["data"]).rstrip()[:300])  # type: ignore[index]
        return "\n".join(f"  {hub.redact(line)}" for line in lines) or "  (no log)"

    def _too_long(self, state: str, limit_s: float) -> TryAgainError:
        if state == "waiting for hardware":
            return TryAgainError(
                f"the hub has no hardware free for the Space {self._name}, after {limit_s:.0f} s",
                hint="run the same command again later, or with another --app-hardware; meanwhile: deploytk serve",
            )
        return TryAgainError(
            f"the Space {self._name} is still {state} after {limit_s:.0f} s",
            hint="run the same command again, with a longer --wait",
        )
