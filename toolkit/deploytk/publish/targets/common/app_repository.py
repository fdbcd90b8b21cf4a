"""The app as a repository of its own, without the model, for hubs that start app.py with an old Python.

It does without Gradio, and fetches the model's repository by git when it starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from deploytk import lmdeploy
from deploytk.base.digests import hash_file
from deploytk.base.errors import ReleaseError
from deploytk.base.files import disk_errors, remove
from deploytk.base.shipped import shipped
from deploytk.bundle import MANIFEST, ROOM, Bundle, Manifest, to_text_of_app
from deploytk.publish.edited import mark_edited
from deploytk.publish.plan import Change, changes_between
from deploytk.publish.superseded import LARGEST_MANIFEST_BYTES, Named, named_in

UVICORN = "uvicorn==0.30.6"

_LEFT_OUT = ("Dockerfile", f"{ROOM}/gradio_app.py", "requirements.txt")
_AT_ROOT = ("packages.txt",)


def write_app(bundle: Bundle, out: Path, url: str, revision: str, deleted: Collection[str] = ()) -> Path:
    """Write the complete app repository `out`, which fetches `revision` of the model repository `url` when it starts.

    The same bundle, url and revision give the same files. What else is in `out`, such as .git, stays, but for the
    files `deleted`. Raises ReleaseError when `out` is something else.
    """
    refuse_other_directory(out)
    staging = out.with_name(f".{out.name}.partial")
    with disk_errors(out, ReleaseError):
        remove(staging)
        files = app_files(bundle, url, revision)
        for path, content in files.items():
            (staging / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).write_bytes(content)
        for path in files:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (staging / path).replace(out / path)
        for path in deleted:
            (out / path).unlink(missing_ok=True)
        remove(staging)
    return out


def refuse_other_directory(out: Path) -> None:
    """Raises ReleaseError when `out` is there and is no app repository."""
    if out.exists() and not (out / "model_source.json").is_file() and any(out.iterdir()):
        raise ReleaseError(f"{out} is there and is no app repository", hint="move it away, then run again")


def changes_in_directory(out: Path, wanted: Mapping[str, bytes], *, is_mirror: bool) -> tuple[Change, ...]:
    """What writing the app there would do. A .git is nobody's file."""
    found = [path for path in out.rglob("*") if path.is_file() and ".git" not in path.relative_to(out).parts]
    there = {str(path.relative_to(out)): (path.stat().st_size, hash_file(path)) for path in found}
    return app_changes(wanted, there, named_in(read_small(out, MANIFEST) or b""), is_mirror=is_mirror)


def read_small(out: Path, path: str) -> bytes | None:
    """A small file of a directory; None where there is none."""
    place = out / path
    is_small = place.is_file() and not place.is_symlink() and place.stat().st_size <= LARGEST_MANIFEST_BYTES
    return place.read_bytes() if is_small else None


def app_files(bundle: Bundle, url: str, revision: str) -> dict[str, bytes]:
    """The whole app repository, path -> content, which fetches `revision` of the model repository `url`."""
    template = shipped("templates") / "hosted"
    texts = {
        source.name if source.name in _AT_ROOT else f"{ROOM}/{source.name}": source.read_bytes()
        for source in template.iterdir()
        if source.is_file()
    }
    for file in bundle.files:
        if file.kind in ("app", "card") and file.path not in _LEFT_OUT:
            texts[file.path] = (bundle.path / file.path).read_bytes()
    texts["requirements.txt"] = f"lmdeploy=={hosted_lmdeploy(bundle)}\n{UVICORN}\n".encode()
    texts["model_source.json"] = (json.dumps({"url": url, "revision": revision}, indent=1) + "\n").encode()
    texts[".gitignore"] = b".credential\n.model.git/\n*.partial\n__pycache__/\n"
    manifest = to_text_of_app(_hosted(bundle), texts, bundle.manifest.card.generated)
    return texts | {MANIFEST: manifest.encode()}


def _hosted(bundle: Bundle) -> Manifest:
    """What the app is told, which has only the features of the LMDeploy that the hub installs."""
    manifest, version = bundle.manifest, hosted_lmdeploy(bundle)
    engine = manifest.plan.engine
    assert engine != "cpu"  # noqa: S101 (that has no LMDeploy)
    there = {*lmdeploy.api_features(version, engine), "tools", "images"}
    tools = lmdeploy.tool_call_parser(version, manifest.model.tool_format, manifest.model.architecture)
    there |= {"required_tools"} if lmdeploy.forces_tool_calls(version, tools) else set()
    features = tuple(name for name in manifest.plan.features if name in there)
    return replace(manifest, plan=replace(manifest.plan, features=features))


def app_changes(wanted: Mapping[str, bytes], there: Named, ours: Named, *, is_mirror: bool) -> tuple[Change, ...]:
    """What writing these files would do to those that are `there`; `ours` is what an earlier release wrote."""
    sizes = {path: (hashlib.sha256(content).hexdigest(), len(content)) for path, content in wanted.items()}
    deleted = there.keys() if is_mirror else {path for path, facts in there.items() if ours.get(path) == facts}
    digests = {path: sha256 for path, (_, sha256) in there.items()}
    return mark_edited(changes_between(sizes, digests, deleted), ours, there.get)


def hosted_lmdeploy(bundle: Bundle) -> str:
    """The LMDeploy that the app installs: the planned one, or the newest for the hub's Python that serves it alike."""
    planned, first = bundle.manifest.plan.lmdeploy, bundle.manifest.model.lmdeploy.min
    if planned is None or first is None:
        raise ReleaseError(
            f"{bundle.path} is planned for the CPU engine",
            hint="package the model: `deploytk package` plans for LMDeploy",
        )
    has_wheel = lmdeploy.has_wheel_for_python_3_9(planned)
    serves = lmdeploy.has_wheel_for_python_3_9(first)
    flags = [word for word in bundle.manifest.plan.argv if word.startswith("--")]
    takes = all(lmdeploy.has_flag(lmdeploy.NEWEST_FOR_PYTHON_3_9, flag) for flag in flags) and _parses(bundle.manifest)
    return lmdeploy.NEWEST_FOR_PYTHON_3_9 if not has_wheel and serves and takes else planned


def _parses(manifest: Manifest) -> bool:
    """Whether that LMDeploy has the parsers of the planned command, by the names that are in it."""
    version, plan, model = lmdeploy.NEWEST_FOR_PYTHON_3_9, manifest.plan, manifest.model
    tools = lmdeploy.tool_call_parser(version, model.tool_format, model.architecture)
    has_tools = "--tool-call-parser" not in plan.argv or tools in plan.argv
    return has_tools and plan.reasoning_parser in (None, *lmdeploy.reasoning_parsers(version))
