"""Makes bundles of the tiny models, as the command line does."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from functools import cache
from pathlib import Path

from deploytk.artifact import read_artifact
from deploytk.base.progress import Progress, Silent
from deploytk.bundle import Bundle, BundleOptions, read_bundle, render_bundle, shown_on
from deploytk.plan import PlanRequest, plan_serving
from deploytk.publish.target import target_class

MODELS = Path(__file__).parent / "models"
_COPIES = tempfile.TemporaryDirectory(prefix="deploytk-models-")


class Notes(Silent):
    """Keeps the lines that a user would see."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def make_bundle(
    model: Path,
    out: Path,
    options: BundleOptions | None = None,
    request: PlanRequest | None = None,
    progress: Progress | None = None,
) -> Bundle:
    options = options or BundleOptions(name="tiny")
    artifact = read_artifact(_own_copy(model) if model.is_relative_to(MODELS) else model)
    named = dataclasses.replace(request or PlanRequest(), model_name=options.name)
    return render_bundle(artifact, plan_serving(artifact, named), options, out, progress or Silent())


def given_bundle(model: Path, out: Path, options: BundleOptions | None = None) -> Bundle:
    """The same of a tiny model, for tests that are not about how a bundle is made: a copy of one made once.

    Unless `options` say otherwise it has the app without the page, which has a third of the files.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    return read_bundle(Path(shutil.copytree(_made_once(model, options or BundleOptions(name="tiny", app="api")), out)))


def whole_bundle(model: Path, out: Path) -> Bundle:
    """The same with all that `make_bundle` puts in when nothing is said, the page too."""
    return given_bundle(model, out, BundleOptions(name="tiny"))


@cache
def _made_once(model: Path, options: BundleOptions) -> Path:
    out = Path(tempfile.mkdtemp(dir=_COPIES.name)) / "bundle"
    artifact = read_artifact(_own_copy(model))
    plan = plan_serving(artifact, PlanRequest(model_name=options.name))
    return render_bundle(artifact, plan, options, out, Silent()).path


def _own_copy(model: Path) -> Path:
    """Bundles are hard links: who changes one changes its model, which other tests read at the same time."""
    return Path(shutil.copytree(model, Path(tempfile.mkdtemp(dir=_COPIES.name)) / model.name))


def as_shown_on(bundle: Bundle, target: str, repo: str) -> Bundle:
    """The bundle with the cards of that hub, beside it: what arrives there, byte for byte."""
    card = target_class(target).about.card
    assert card
    with shown_on(bundle, card(repo)) as shown:
        out = bundle.path.with_name(f"{bundle.path.name}-{target}")
        return read_bundle(Path(shutil.copytree(shown.path, out)))
