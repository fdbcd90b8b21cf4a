"""What speaks against believing measured times, and which of the budget's checks it could turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from deploytk.smoke.report import BudgetCheck, ClientReport, Identity, Latency
from deploytk.smoke.workload import Workload

MEMORY = ("vram.peak_mib",)  # the metrics that no late client changes
_LEAST_HEADROOM = 3.0  # what the client could do, against what it had to do
_MOST_TTFT_ERROR_MS = 5.0
_MOST_GAP_ERROR_MS = 3.0
_MOST_DISPATCH_DELAY_MS = 10.0
_BUSIEST_CLIENT = 0.9  # of one core


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the times may not be believed, and by how much the true ones may be shorter and longer, in ms."""

    why: str
    shorter_ms: float = math.inf
    longer_ms: float = 0.0

    def could_turn(self, check: BudgetCheck, window_s: float) -> bool:
        """Whether the check would end otherwise with the times as they may be."""
        if check.metric in MEMORY or check.value is None:
            return False
        if check.op == "<=":
            least, most = check.value - self.shorter_ms, check.value + self.longer_ms
        else:  # tokens per second over all of the measurement, which is longer by no more than one such error
            least = check.value * window_s / (window_s + self.longer_ms / 1e3)
            most = check.value * window_s / max(window_s - self.shorter_ms / 1e3, 1e-9)
        return least <= check.limit <= most


def doubts_of(client: ClientReport, latency: Latency, workload: Workload, identity: Identity) -> Iterator[Doubt]:
    """What speaks against believing the times."""
    if client.headroom is not None and client.headroom < _LEAST_HEADROOM:
        yield Doubt(f"the client can read only {client.headroom:.1f} times as fast as the server answered")
    if client.lag_p99_ms is not None and client.lag_p99_ms > _MOST_GAP_ERROR_MS:
        lag_ms = client.lag_p99_ms
        yield Doubt(f"the client was woken up to {lag_ms:.1f} ms late while it measured", lag_ms, lag_ms)
    if client.cpu_frac > _BUSIEST_CLIENT:
        yield Doubt(f"the client itself was busy {client.cpu_frac:.0%} of the time")
    if client.check and client.check.ttft_error_ms > _MOST_TTFT_ERROR_MS:
        off_ms = client.check.ttft_error_ms
        yield Doubt(f"the client saw first tokens {off_ms:.1f} ms late in its self-check", off_ms)
    if client.check and client.check.gap_error_p99_ms > _MOST_GAP_ERROR_MS:
        off_ms = client.check.gap_error_p99_ms
        yield Doubt(f"the client was off by {off_ms:.1f} ms in its self-check", off_ms, off_ms)
    delay = latency.dispatch_delay_ms
    late = delay.p99 if delay.n >= 100 else delay.p90
    if workload.rate and late is not None and late > _MOST_DISPATCH_DELAY_MS:
        # A server that is asked less often than it should be looks quicker than it is.
        yield Doubt(f"requests were sent {late:.0f} ms after they were due", 0.0, math.inf)
    slowed = identity.gpu.slowed_by if identity.gpu else ()
    if slowed:
        yield Doubt(f"the GPU was slowed down: {', '.join(slowed)}")
