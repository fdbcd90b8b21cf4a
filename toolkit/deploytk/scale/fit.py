"""Whether the replica goes onto the GPUs and nodes that were asked for: the plan again, for that GPU."""

from __future__ import annotations

from deploytk.bundle.value import Manifest
from deploytk.hardware.catalogue import find_gpu
from deploytk.scale.wishes import Wishes


def misfits(manifest: Manifest, wishes: Wishes) -> tuple[str, ...]:
    """Why it does not fit, a sentence each; () where it does, or nobody knows of what GPU."""
    plan = manifest.plan
    if plan.engine == "cpu":
        return ()
    found = []
    if plan.tensor_parallel > wishes.gpus_per_node:
        found.append(
            f"a replica needs {plan.tensor_parallel} GPUs of one node, which has {wishes.gpus_per_node}"
            " (--gpus-per-node)"
        )
    if wishes.gpu is not None and plan.cache_max_entry_count <= 1:  # a share, not a number of blocks
        from deploytk.smoke.prediction import plan_on

        planned = plan_on(find_gpu(wishes.gpu), manifest.model, plan, ())
        if planned.fits is False:
            needs, has = planned.vram.total_bytes / 2**30, find_gpu(wishes.gpu).usable_bytes / 2**30
            found.append(f"the plan takes {needs:.1f} GiB of each GPU, a {find_gpu(wishes.gpu).name} has {has:.1f}")
    elif plan.fits is False:
        found.append("the plan of the bundle does not fit the GPU it was made for")
    return tuple(found)
