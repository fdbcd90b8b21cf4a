"""The app of a bundle: what deploytk renders it from, and whether a bundle's own is that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploytk import app
from deploytk.artifact import names_code
from deploytk.base.errors import BundleError
from deploytk.bundle.value import ROOM, START, AppKind, Bundle
from deploytk.plan import code_that_runs, refuse_code

SHIPPED_APP = Path(app.__file__).parent

_AGAIN = "package the model again"
_OF_THE_PAGE = ("gradio_app.py", "data/page/")


def app_texts(kind: AppKind, template: Path | None) -> dict[str, str]:
    """Path in a bundle -> text of its app, with the user's templates in the place of shipped ones."""
    return {path: _text(source) for path, source in _app_files(kind, template)}


def require_own_app(bundle: Bundle, template: Path | None) -> None:
    """Raises BundleError unless the app of `bundle` is, byte for byte, what deploytk renders, with those templates.

    Whoever starts an app gives it their rights: that of a bundle of unknown origin may be anything.
    """
    wanted = app_texts(bundle.manifest.app.kind, template)
    there = {f"{ROOM}/{path}" for path in _files_in(bundle.path / ROOM)}
    odd = [path for path, text in wanted.items() if _content(bundle.path / path) != text.encode()]
    found = sorted({*odd, *(there - wanted.keys())})
    if found:
        raise BundleError(
            f"{bundle.path} brings an app that is not the one which deploytk renders: {found[0]} differs",
            hint=f"{_AGAIN}, with your --template if it has one, or say --trust-bundle: its app gets your rights",
        )


def require_trusted_code(bundle: Bundle, *, is_trusted: bool) -> None:
    """Raises TrustError when serving `bundle` as it is planned would run code of its model that nobody trusts."""
    refuse_code(code_of(bundle), is_trusted=is_trusted)


def code_of(bundle: Bundle) -> str:
    """Which code of the model runs where `bundle` is served, in a sentence; "" for none."""
    plan = bundle.manifest.plan
    return code_that_runs(names_code(bundle.path), plan.lmdeploy, str(bundle.path), asks=plan.trusts_remote_code)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _text(source: Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{source} cannot be read: {error}", hint="a template is text in UTF-8") from error


def _app_files(kind: AppKind, template: Path | None) -> Iterator[tuple[str, Path]]:
    """Path -> source of the app's files, user templates before shipped ones; of the requirements those of its kind."""
    own = template / "app" if template and (template / "app").is_dir() else None
    for mine in _files_in(own) if own else ():
        if not (SHIPPED_APP / mine).is_file():
            raise BundleError(f"{own}/{mine} replaces no file of the app", hint="remove it, or correct its name")
    for path in _files_in(SHIPPED_APP):
        source = SHIPPED_APP / path
        chosen = own / path if own and (own / path).is_file() else source
        if source.name.startswith("requirements-"):
            if source.name == f"requirements-{kind}.txt":
                yield "requirements.txt", chosen
        elif source.name == "start.py":
            yield START, chosen
        elif kind == "gradio" or not path.startswith(_OF_THE_PAGE):
            yield f"{ROOM}/{path}", chosen


def _files_in(directory: Path) -> list[str]:
    """Paths of all files in it; hidden ones and Python's caches aside."""
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not any(part.startswith((".", "__pycache__")) for part in path.parts))
