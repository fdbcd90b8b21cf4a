"""Renders the model card: front matter by a serializer, prose by Jinja."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.base.errors import BundleError, UsageError
from deploytk.base.shipped import shipped
from deploytk.bundle.chinese import in_chinese
from deploytk.bundle.hub_card import EMPTY_DOWNLOAD
from deploytk.bundle.prompt_format import prompt_format
from deploytk.bundle.provenance import provenance_of
from deploytk.bundle.value import CARDS, BundleOptions, Measured
from deploytk.hardware.catalogue import MIB
from deploytk.plan import ServingPlan

# What transformers needs beside itself for weights of a format. Source: transformers 5, quantizers/.
_FOR_TRANSFORMERS = {
    "none": ("accelerate",),
    "awq": ("accelerate", "gptqmodel"),
    "gptq": ("accelerate", "gptqmodel", "optimum"),
    "fp8": ("accelerate",),
    "compressed-tensors": ("accelerate", "compressed-tensors"),
}


def render_card(artifact: Artifact, plan: ServingPlan, options: BundleOptions) -> dict[str, str]:
    """File name -> text of the card in English and in Chinese.

    Raises BundleError naming file and line when a user's template has a misspelt variable or broken syntax.
    """
    environment = _environment(options.template)
    facts = {
        "artifact": artifact,
        "plan": plan,
        "options": options,
        "measured": options.measured,
        "notes": plan.notes,
        "notes_zh": in_chinese(plan.notes),
        "provenance": provenance_of(artifact),
        "prompt": prompt_format(artifact),
        "install": _install(plan),
        "app_fits": _app_fits(plan, options),
        "transformers": _transformers(artifact),
        "download": EMPTY_DOWNLOAD,
        "mib": _mib,
        "figure": _figure,
        "docker_arguments": _docker_arguments(plan),
        "code": _code(artifact),
    }
    front_matter = yaml.dump(
        _front_matter(artifact, options), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000
    )
    words = options.notes or {}
    cards = {
        name: _render(environment, f"{name}.j2", facts | {"words": words.get(name) or words.get(CARDS[0], "")})
        for name in CARDS
    }
    return {name: f"---\n{front_matter}---\n\n{text}" if name == "README.md" else text for name, text in cards.items()}


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some YAML reader could take for anything else: hubs read 1.2, PyYAML writes 1.1."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_word = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) or re.fullmatch(r"[0-9]+-bit", text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_word else '"')


_Dumper.add_representer(str, _represent_text)


def _front_matter(artifact: Artifact, options: BundleOptions) -> dict[str, Any]:
    """As hubs read it. Source: huggingface/hub-docs, modelcard.md."""
    front: dict[str, Any] = {"license": options.license or "unknown"}
    if options.languages:
        front["language"] = list(options.languages)
    if options.license == "other":
        front |= {"license_name": "custom", "license_link": _license_file(artifact)}
    if options.base_model:
        front["base_model"] = options.base_model
        front["base_model_relation"] = "quantized" if artifact.is_quantized else "finetune"
    front["pipeline_tag"] = "text-generation"
    front["library_name"] = "transformers" if artifact.layout == "huggingface" else "lmdeploy"
    tags = ["lmdeploy", "turbomind", "deploytk"]
    if artifact.is_quantized:
        tags += [artifact.weight_format, f"{artifact.weight_bits}-bit"]
        front["quantization"] = {"method": artifact.weight_format, "bits": artifact.weight_bits}
        if artifact.group_size:
            front["quantization"]["group_size"] = artifact.group_size
    front["tags"] = tags
    if options.measured:
        front["model-index"] = [{"name": options.title, "results": [_results(options.measured)]}]
    return front


def _results(measured: Measured) -> dict[str, Any]:
    """As hubs read it. Source: huggingface/hub-docs, modelcard.md, model-index."""
    work = f"{measured.requests} requests, {measured.concurrency} at once, {measured.output_tokens} tokens at most"
    figures = [
        ("ttft_p50_ms", "time to first token, median, ms", measured.ttft_p50_ms),
        ("ttft_p95_ms", "time to first token, 95th percentile, ms", measured.ttft_p95_ms),
        ("tpot_p50_ms", "time per output token, median, ms", measured.tpot_p50_ms),
        ("output_tps", "output tokens per second", measured.output_tps),
        ("vram_ready_mib", "GPU memory in use when ready, MiB", _in_mib(measured.vram_ready_bytes)),
        ("vram_peak_mib", "GPU memory in use at most, MiB", _in_mib(measured.vram_peak_bytes)),
    ]
    where = measured.gpu or measured.cpu or "CPU"
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": "deploytk-smoke", "name": f"deploytk smoke on {where}: {work}"},
        "metrics": [{"type": key, "name": name, "value": round(v, 3)} for key, name, v in figures if v is not None],
    }


def _in_mib(count: int | None) -> float | None:
    return None if count is None else count / MIB


def _license_file(artifact: Artifact) -> str:
    """The file with the licence's text, which hubs want to be linked to for a licence that they do not know."""
    for file in artifact.files:
        if re.fullmatch(r"(LICEN[CS]E|COPYING)(\.(txt|md))?", file.path, re.IGNORECASE):
            return file.path
    raise UsageError(
        "--license other needs the licence's text in the model directory",
        hint="put it there as LICENSE, or give --license the name of a licence that hubs know",
    )


def _code(artifact: Artifact) -> list[str]:
    """Python files that --trust-remote-code would run; those of a workspace come from LMDeploy itself."""
    return [f.path for f in artifact.files if f.path.endswith(".py")] if artifact.layout == "huggingface" else []


def _install(plan: ServingPlan) -> tuple[str, ...]:
    """What brings the engine to a machine that has none."""
    what = f"lmdeploy=={plan.lmdeploy}" if plan.lmdeploy else "deploytk[cpu]"
    return ("pip", "install", what)


def _app_fits(plan: ServingPlan, options: BundleOptions) -> bool:
    """Whether app and engine can share an environment; where they cannot, an image has one for each."""
    return plan.lmdeploy is None or options.app == "api" or lmdeploy.goes_with_gradio_6(plan.lmdeploy)


def _transformers(artifact: Artifact) -> tuple[str, ...] | None:
    """What to install to load the model with transformers; None where that does not read it, or runs its code."""
    needed = _FOR_TRANSFORMERS.get(artifact.weight_format)
    is_read = artifact.layout == "huggingface" and artifact.architecture.endswith("ForCausalLM")
    return ("pip", "install", "transformers", *needed) if needed and is_read and not artifact.remote_code else None


def _docker_arguments(plan: ServingPlan) -> tuple[str, ...]:
    """What `docker build` must be told about LMDeploy and the image below it."""
    if plan.lmdeploy is None:
        return ()
    base = lmdeploy.legacy_base(plan.lmdeploy)
    return (
        *(("--build-arg", f"BASE_IMAGE={base}") if base else ()),
        *("--build-arg", f"LMDEPLOY_VERSION={plan.lmdeploy}"),
    )


def _environment(template: Path | None) -> jinja2.Environment:
    if template:
        _check_names(template)
    return _made_environment(template)


@cache
def _made_environment(template: Path | None) -> jinja2.Environment:
    """Kept with what it has compiled, which takes longer than rendering it; a template that changes is read again."""
    shipped_card = shipped("templates") / "card"
    # A misspelt variable must fail here, not appear as a blank in a published card. Sandboxed: templates get shared.
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader([*([template] if template else []), shipped_card]),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML: the filter `markdown` escapes what comes from a model
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"markdown": _markdown, "shell": shlex.join, "fenced": _fenced}
    return environment


def _check_names(template: Path) -> None:
    """A misspelt file name would silently leave the shipped template in its place."""
    known = {path.name for path in (shipped("templates") / "card").iterdir()}
    for path in sorted(template.glob("*.j2")):
        if path.name not in known and not path.name.startswith("_"):
            raise BundleError(
                f"{path} replaces no template",
                hint=f"templates are {', '.join(sorted(known))}; one to include starts with _",
            )


def _render(environment: jinja2.Environment, template: str, facts: dict[str, Any]) -> str:
    try:
        return environment.get_template(template).render(facts)
    except jinja2.TemplateSyntaxError as error:
        raise BundleError(
            f"{error.filename}, line {error.lineno}: {error.message}", hint="correct the template"
        ) from error
    except jinja2.UndefinedError as error:
        raise BundleError(
            f"{_place(error, template)}: {error.message}",
            hint=f"templates may use {', '.join(facts)}, as the shipped ones do",
        ) from error
    # What a user's template can do wrong: 1 / 0, a forbidden attribute, an include that is not there, not UTF-8.
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{_place(error, template)}: {error}", hint="correct the template") from error


def _place(error: BaseException, template: str) -> str:
    """File and line of the template where `error` arose: Jinja puts them into the traceback."""
    place, traceback = template, error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename.endswith(".j2"):
            place = f"{traceback.tb_frame.f_code.co_filename}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _markdown(text: object) -> str:
    """`text` as plain words inside Markdown: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~$])", r"\\\1", " ".join(str(text).split()))


def _fenced(text: str) -> str:
    """`text` as it is, in a block that nothing in it ends."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f}"


def _figure(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
