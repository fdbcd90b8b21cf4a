"""Renders the model card: front matter by a serializer, prose by Jinja."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from deploytk import lmdeploy
from deploytk.artifact import Artifact
from deploytk.base.errors import BundleError, UsageError
from deploytk.base.shipped import shipped
from deploytk.bundle.value import BundleOptions, Measured
from deploytk.hardware.catalogue import MIB
from deploytk.plan import ServingPlan

_LANGUAGES = {"README.md": "README.md.j2", "README_zh.md": "README_zh.md.j2"}


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
        "mib": _mib,
        "figure": _figure,
        "docker_arguments": _docker_arguments(plan),
        "code": _code(artifact),
    }
    front_matter = yaml.dump(
        _front_matter(artifact, options), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000
    )
    cards = {name: _render(environment, template, facts) for name, template in _LANGUAGES.items()}
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
    where = measured.gpu or "CPU"
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
        "--license other needs the licence's text in the model directory", hint="put it there as LICENSE, or name it"
    )


def _code(artifact: Artifact) -> list[str]:
    """Python files that --trust-remote-code would run; those of a workspace come from LMDeploy itself."""
    return [f.path for f in artifact.files if f.path.endswith(".py")] if artifact.layout == "huggingface" else []


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
    shipped_card = shipped("templates") / "card"
    if template:
        _check_names(template)
    # A misspelt variable must fail here, not appear as a blank in a published card. Sandboxed: templates get shared.
    environment = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader([*([template] if template else []), shipped_card]),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML: the filter `markdown` escapes what comes from a model
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"markdown": _markdown}
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


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f}"


def _figure(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
