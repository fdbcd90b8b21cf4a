"""Renders the model card: front matter by a serializer, prose by Jinja."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import yaml

from deploytk.artifact import Artifact
from deploytk.bundle.value import BundleOptions
from deploytk.errors import BundleError
from deploytk.gpus import MIB
from deploytk.plan import ServingPlan
from deploytk.shipped import shipped

_LANGUAGES = {"README.md": "README.md.j2", "README_zh.md": "README_zh.md.j2"}


def render_card(artifact: Artifact, plan: ServingPlan, options: BundleOptions) -> dict[str, str]:
    """File name -> text of the card in English and in Chinese.

    Raises BundleError naming file and line when a user's template has a misspelt variable or broken syntax.
    """
    environment = _environment(options.template)
    facts = {"artifact": artifact, "plan": plan, "options": options, "mib": _mib}
    front_matter = yaml.safe_dump(_front_matter(artifact, options), sort_keys=False, allow_unicode=True)
    cards = {name: _render(environment, template, facts) for name, template in _LANGUAGES.items()}
    return {name: f"---\n{front_matter}---\n\n{text}" if name == "README.md" else text for name, text in cards.items()}


def _front_matter(artifact: Artifact, options: BundleOptions) -> dict[str, Any]:
    """As hubs read it. Source: huggingface/hub-docs, modelcard.md."""
    front: dict[str, Any] = {"license": options.license or "unknown"}
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
    return front


def _environment(template: Path | None) -> jinja2.Environment:
    places = [*([template] if template else []), shipped("templates") / "card"]
    # A misspelt variable must fail here, not appear as a blank in a published card.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(places),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 (Markdown, not HTML: `markdown` escapes what comes from a model)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown"] = _markdown
    return environment


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
            hint="templates may use artifact, plan, options and mib, as those of `deploytk template export` do",
        ) from error


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
