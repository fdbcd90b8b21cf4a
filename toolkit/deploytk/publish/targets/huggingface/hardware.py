"""What a Space can run on."""

from __future__ import annotations

from dataclasses import dataclass

from deploytk.base.errors import UsageError
from deploytk.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Gpus:
    count: int
    gib: int  # memory of each


# The cheapest first. Source: hub-docs, docs/hub/spaces-gpus.md (2026-08); the last ones are not in its table.
_GPUS = {
    "t4-small": Gpus(1, 16),
    "t4-medium": Gpus(1, 16),
    "l4x1": Gpus(1, 24),
    "a10g-small": Gpus(1, 24),
    "a10g-large": Gpus(1, 24),
    "l40sx1": Gpus(1, 48),
    "a100-large": Gpus(1, 80),
    "a10g-largex2": Gpus(2, 24),
    "l4x4": Gpus(4, 24),
    "a10g-largex4": Gpus(4, 24),
    "l40sx4": Gpus(4, 48),
    "a100x4": Gpus(4, 80),
    "a100x8": Gpus(8, 80),
    "l40sx8": Gpus(8, 48),
    "rtx-pro-6000": Gpus(1, 96),
    "rtx-pro-6000x2": Gpus(2, 96),
    "rtx-pro-6000x4": Gpus(4, 96),
    "rtx-pro-6000x8": Gpus(8, 96),
}
_USABLE = 0.9  # a tenth of the memory is never free


def needs_gpu(bundle: Bundle) -> bool:
    return bundle.manifest.plan.engine != "cpu"


def suggested_hardware(bundle: Bundle) -> str:
    """The cheapest with as many GPUs as the plan shares the model among, each with the memory of the plan."""
    return next((name for name in _GPUS if _fits(bundle, name)), "a100x8")


def check_hardware(name: str, bundle: Bundle) -> str | None:
    """A doubt about running the bundle on `name`, None when there is none; raises UsageError for an unknown name."""
    from huggingface_hub import SpaceHardware

    known = [hardware.value for hardware in SpaceHardware]
    if name not in known:
        raise UsageError(f"Spaces have no hardware {name!r}", hint=f"there is {', '.join(known)}")
    if not needs_gpu(bundle):
        return None
    if name == "zero-a10g":
        return "zero-a10g lends a GPU for seconds only: a server that keeps its model there cannot run"
    if name not in _GPUS:
        return f"{name} has no GPU; take {suggested_hardware(bundle)}"
    if _fits(bundle, name):
        return None
    gib = bundle.manifest.plan.vram.total_bytes / 2**30
    each = f", on each of {_shares(bundle)} GPUs" if _shares(bundle) > 1 else ""
    return f"{name} is too small: the plan takes {gib:.1f} GiB{each}; take {suggested_hardware(bundle)}"


def _fits(bundle: Bundle, name: str) -> bool:
    gpus = _GPUS.get(name)
    needed_gib = bundle.manifest.plan.vram.total_bytes / 2**30
    return gpus is not None and gpus.count >= _shares(bundle) and needed_gib <= _USABLE * gpus.gib


def _shares(bundle: Bundle) -> int:
    return bundle.manifest.plan.tensor_parallel
