"""Shows what a model is, how it is served, what was made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from deploytk.base.json import plain, to_json
from deploytk.base.terminal import console, quoted
from deploytk.display.rows import amount, mib, plain_line, show_notes, show_rows

if TYPE_CHECKING:
    from deploytk.artifact import Artifact
    from deploytk.bundle import Bundle, Exported
    from deploytk.modernize import Modernized
    from deploytk.plan import ServingPlan
    from deploytk.plan.calibration import Calibration

_LEVEL_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def show_fields(value: object) -> None:
    """Any value as a two-column table, a row per field."""
    fields = plain(value)
    rows = fields.items() if isinstance(fields, dict) else [("value", fields)]
    show_rows((name.replace("_", " "), amount(name, item)) for name, item in rows)


def show_artifact(artifact: Artifact) -> None:
    quantized = f"{artifact.weight_format}, {artifact.weight_bits} bit, group {artifact.group_size}"
    attention = f"{artifact.heads} heads of {artifact.head_dim}, {artifact.kv_heads} for keys and values"
    latent, kept = artifact.attention.latent, artifact.attention.kv_layers
    if latent:
        attention = f"{artifact.heads} heads, latent attention of {latent.rank} + {latent.rope_dim}"
    if kept != artifact.layers:
        attention += f", {kept} layers keep them"
    versions = artifact.lmdeploy
    served = f"{versions.min} to {versions.max}, best {versions.pin}" if versions.pin else "none"
    show_rows(
        [
            ("directory", str(artifact.root)),
            ("layout", f"{artifact.layout}, made by {artifact.made_by}"),
            ("architecture", artifact.architecture),
            ("weights", quantized if artifact.is_quantized else artifact.weight_dtype),
            *_quantized_rows(artifact),
            ("size on disk", f"{mib(artifact.weights_bytes)}, {artifact.parameters / 1e6:,.1f} million parameters"),
            ("shape", f"{artifact.layers} layers, hidden {artifact.hidden_size}, {attention}"),
            ("vocabulary", f"{artifact.vocab_size:,}"),
            ("session length", f"{artifact.session_len:,} tokens"),
            ("KV cache", "not quantized" if artifact.kv_policy == "none" else artifact.kv_policy),
            ("tensor parallel", str(artifact.tensor_parallel)),
            ("chat template", artifact.chat_template or "none"),
            ("LMDeploy", served),
            ("", versions.reason),
        ]
    )
    for problem in artifact.problems:
        text = Text.assemble((f"{problem.level}: ", _LEVEL_STYLE[problem.level]), problem.message)
        console().print(text)
        console().print(Text(f"  {problem.hint}", style="dim"))


def _quantized_rows(artifact: Artifact) -> list[tuple[str, str]]:
    """What `deploytk quantize` has recorded."""
    by = artifact.quantized_by
    if by is None:
        return []
    increase = f", perplexity {by.cost.perplexity_increase:+.2f} %" if by.cost else ""
    return [("quantized by", f"{by.tool} {by.tool_version} ({', '.join((by.method, *by.arguments))}){increase}")]


def show_plan(plan: ServingPlan) -> None:
    vram = plan.vram
    where = f" on {plan.gpu.name}" if plan.gpu else ""
    verdict = {
        True: f"fits{where}",
        False: f"does not fit{where}",
        None: "not judged: no --gpu given",
    }[plan.fits]
    policy = "not quantized" if plan.kv_policy == "none" else f"{plan.kv_policy} (quant_policy {plan.quant_policy})"
    show_rows(
        [
            ("engine", f"{plan.engine}, LMDeploy {plan.lmdeploy}" if plan.lmdeploy else plan.engine),
            *_gpu_rows(plan),
            ("sessions", f"{plan.max_batch_size} at once, {plan.session_len:,} tokens each"),
            ("KV cache", f"{policy}, {plan.kv_bytes_per_token:,} bytes per token"),
            ("KV capacity", f"{plan.kv_capacity_tokens:,} tokens, cache_max_entry_count {plan.cache_max_entry_count}"),
            ("VRAM: weights", mib(vram.weights_bytes)),
            ("VRAM: KV pool", mib(vram.kv_pool_bytes)),
            ("VRAM: overhead", mib(vram.overhead_bytes)),
            ("VRAM: total", mib(vram.total_bytes)),
            *([("overhead by", vram.overhead_source)] if vram.overhead_source else []),
            ("verdict", verdict),
            *_bound_rows(plan),
            ("largest session", f"{plan.largest_session_len:,} tokens" if plan.largest_session_len else "-"),
            ("largest batch", str(plan.largest_batch or "-")),
            *((f"config.ini: {key}", value) for key, value in plan.config_ini),
        ]
    )
    show_notes(plan.notes)
    if plan.fits is False:
        _show_alternatives(plan)
        return
    console().print("\nStart it with:", style="dim")
    plain_line(plan.command_line)


def _gpu_rows(plan: ServingPlan) -> list[tuple[str, str]]:
    gpu, ranks = plan.gpu, plan.tensor_parallel
    shared = [("GPUs", f"{ranks} share the model; VRAM is that of each")] if ranks > 1 else []
    if gpu is None:
        return shared
    if gpu.is_here:
        free = f"{mib(gpu.usable_bytes)} of {mib(gpu.total_bytes)} free now"
        return [("GPU", f"{gpu.name} of this machine, {free}"), *shared]
    return [("GPU", f"{gpu.name}, {mib(gpu.total_bytes)}"), *shared]


def _bound_rows(plan: ServingPlan) -> list[tuple[str, str]]:
    bound = plan.decode_bound
    if bound is None:
        return []
    speed, full = (f"{value:,.0f}" for value in (bound.tokens_per_s, bound.full_session_tokens_per_s))
    read = f"{mib(bound.read_bytes)} of weights per token at {bound.bandwidth_gb_s:,} GB/s"
    return [
        ("speed, a bound", f"at most {speed} tokens/s for one conversation, {full} at its end with its KV cache read"),
        ("", f"what the memory allows, no prediction: {read}{' on each GPU' if plan.tensor_parallel > 1 else ''}"),
    ]


def _show_alternatives(plan: ServingPlan) -> None:
    """What would fit, a line each, with the tokens that the KV pool then holds."""
    if not plan.alternatives:
        console().print("\nNothing that deploytk knows would make it fit.")
        return
    console().print("\nWhat would fit:")
    for one in plan.alternatives:
        plain_line(f"  {one.change} ({one.option}): {one.sessions}, {one.kv_capacity_tokens:,} in the KV pool")


def show_calibration(calibration: Calibration) -> None:
    show_rows([("kept in", str(calibration.path)), ("measured servers", str(len(calibration.measured)))])
    for number, one in enumerate(calibration.measured, 1):
        overhead = f"{mib(one.beside_pool_bytes)} beside the KV pool"
        gpus = f", {one.ranks} GPUs" if one.ranks > 1 else ""
        console().print(Text(f"\n{number}. {one.gpu}, LMDeploy {one.lmdeploy} ({one.engine}){gpus}, {one.measured_on}"))
        console().print(Text(f"   {one.shape}"))
        console().print(Text(f"   {overhead}, steps of {one.step_tokens:,} tokens"))
    if calibration.measured:
        console().print("\ndeploytk calibrate --forget NUMBER, or all, drops them", style="dim")


def show_bundle(bundle: Bundle) -> None:
    weights = sum(file.size for file in bundle.files if file.kind == "weights")
    show_rows(
        [
            ("bundle", str(bundle.path)),
            ("digest", bundle.digest),
            ("files", f"{len(bundle.files)}, {mib(bundle.bytes)}, {mib(weights)} of it weights"),
            ("copied", mib(bundle.copied_bytes) if bundle.copied_bytes else "no weight: they are hard links"),
        ]
    )
    console().print("\nNext:", style="dim")
    plain_line(f"deploytk publish {quoted(bundle.path)} --help")
    plain_line(f"deploytk serve {quoted(bundle.path)}")


_TEMPLATES = {"own": "the tokenizer's own", "none": "none: chats get a plain concatenation"}


def show_modernized(done: Modernized) -> None:
    kept = f", {mib(done.kept_bytes)} of it from an interrupted run" if done.kept_bytes else ""
    show_rows(
        [
            ("directory", str(done.path)),
            ("architecture", done.architecture),
            ("weights", "16 bits" if done.weight_format == "none" else done.weight_format),
            ("files", f"{', '.join(done.files)}; {mib(done.bytes)}{kept}"),
            ("chat template", _TEMPLATES.get(done.chat_template, done.chat_template)),
            ("took", f"{done.seconds:,.1f} s"),
        ]
    )
    console().print("\nNext:", style="dim")
    plain_line(f"deploytk package {quoted(done.path)} -o BUNDLE")
    plain_line(f"deploytk serve {quoted(done.path)}")


def show_exported(exported: Exported) -> None:
    for path in exported.files:
        plain_line(str(exported.path / path))


def show_json(value: object) -> None:
    plain_line(to_json(value, indent=2))
