"""A model runs no code: a directory with a file by every name that Python here can import starts nothing, anywhere."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
from apps import running_app
from bundles import make_bundle
from conftest import MODELS

from deploytk.artifact import read_artifact
from deploytk.base.progress import Silent
from deploytk.bundle import SHIPPED_APP, BundleOptions
from deploytk.image.runtime import _context, recipe_for
from deploytk.image.value import BuildOptions
from deploytk.plan import PlanRequest

OWN = {path.stem for path in SHIPPED_APP.glob("*.py")}


@cache
def names() -> list[str]:
    """All that Python here can import, and what bundles are made of."""
    importable = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions(), *OWN}
    ours = ("deploytk", "deploytk_app", "sitecustomize", "usercustomize", "app", "fetch_model", "wheels", "source")
    return sorted(name for name in {*importable, *ours} if name.isidentifier())


FORMS: dict[str, Callable[[Path, str], Path]] = {
    ".py": lambda root, name: root / f"{name}.py",
    "package": lambda root, name: root / name / "__init__.py",
    "library": lambda root, name: root / f"{name}{EXTENSION}",
    ".pth": lambda root, name: root / f"{name}.pth",
    ".pyc": lambda root, name: root / f"{name}.pyc",
}
EXTENSION = importlib.machinery.EXTENSION_SUFFIXES[-1]  # ".so": no library at all, so that its import is an error


def plant(root: Path, form: str, marker: Path, chosen: Sequence[str] = ()) -> None:
    """Every name in that form; whatever is imported writes its name into `marker`. Libraries are none: they fail."""
    for name in chosen or names():
        place = FORMS[form](root, name)
        place.parent.mkdir(exist_ok=True)
        if place.exists() or (form == "package" and (root / name).is_file()):
            continue
        # Only `posix`, which is in the interpreter: nothing else could be imported beside these files.
        code = f"import posix; posix.write(posix.open({str(marker)!r}, 1089, 0o644), {name + chr(10)!r}.encode())\n"
        place.write_text(code)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with every name in every form, for all tests of this file; of several Python takes the package."""
    place = tmp_path_factory.mktemp("everything")
    shutil.copytree(MODELS / "hf-awq", place / "model")
    for form in FORMS:
        plant(place / "model", form, place / "marker")
    return place


@pytest.fixture
def model(everything: Path, tmp_path: Path) -> Path:
    """That model; what it runs would be in `marker` of the test as well."""
    (tmp_path / "marker").symlink_to(everything / "marker")
    return everything / "model"


@pytest.fixture(scope="module")
def api_bundle(everything: Path) -> Path:
    return make_bundle(everything / "model", everything / "bundle", BundleOptions(name="tiny", app="api")).path


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An `lmdeploy` that does what real ones do: it starts Pythons with -c and with -m, and then serves."""
    program = tmp_path / "bin" / "lmdeploy"
    program.parent.mkdir()
    python = f'"{sys.executable}"'
    starts = f'{python} -c "import multiprocessing.spawn, uuid, asyncio" && {python} -m timeit -n1 1'
    stub = Path(__file__).parent / "engine_stub.py"
    program.write_text(f'#!/bin/sh\n{starts} && exec "{sys.executable}" -S "{stub}" "$@"\n')
    program.chmod(0o755)
    return program.parent


CONSOLE = "from deploytk.__main__ import run\nrun()\n"


def deploytk(
    tmp_path: Path, where: Path, *words: str, programs: Path | None = None, script: str = CONSOLE
) -> subprocess.CompletedProcess[str]:
    """The console script in the directory `where`, as pip installs it: a file that imports deploytk."""
    place = tmp_path / "scripts" / "deploytk"
    place.parent.mkdir(exist_ok=True)
    place.write_text(script)
    environment = {**os.environ, "STUB_MODEL": "model", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["PATH"] = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    return subprocess.run(
        [sys.executable, str(place), *words],
        cwd=where, env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def started(tmp_path: Path) -> list[str]:
    """What of the model has run."""
    marker = tmp_path / "marker"
    return marker.read_text().split() if marker.exists() else []


def test_the_files_would_run_where_they_can_be_imported(tmp_path: Path) -> None:
    """The trap works: else the tests below prove nothing."""
    (tmp_path / "model").mkdir()
    plant(tmp_path / "model", ".py", tmp_path / "marker")

    subprocess.run([sys.executable, "-c", "import uvicorn"], cwd=tmp_path / "model", check=True, timeout=30)

    assert "uvicorn" in started(tmp_path)


EACH = """
import sys
from deploytk.__main__ import main
for words in sys.argv[1].split(";"):
    sys.argv[1:] = words.split()
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


@pytest.mark.parametrize("form", FORMS)
def test_no_command_that_reads_a_model_runs_anything_of_it(
    tmp_path: Path, form: str, record_property: Callable[[str, object], None]
) -> None:
    """One Python for all four, started in the model: what the first of them imports the others have."""
    model = Path(shutil.copytree(MODELS / "hf-awq", tmp_path / "model"))
    plant(model, form, tmp_path / "marker")
    record_property("inputs", 4 * len(names()))
    bundle = tmp_path / "bundle"

    done = deploytk(tmp_path, model, f"inspect .;plan .;package . -o {bundle};inspect {bundle}", script=EACH)

    assert done.returncode == 0, done.stderr
    assert (bundle / "deploytk.json").is_file()
    assert started(tmp_path) == []


def test_modernize_runs_nothing_of_the_workspace(tmp_path: Path) -> None:
    root = Path(shutil.copytree(MODELS / "workspace-0.7.3-awq", tmp_path / "model", symlinks=True))
    for form in FORMS:
        plant(root, form, tmp_path / "marker")

    done = deploytk(tmp_path, root, "modernize", ".", "-o", str(tmp_path / "out"))

    assert done.returncode == 0, done.stderr
    assert started(tmp_path) == []


def test_smoke_runs_nothing_of_the_model_and_neither_does_what_the_engine_starts(
    model: Path, tmp_path: Path, engine: Path
) -> None:
    words = ["smoke", ".", "--engine", "turbomind", "--requests", "1", "--output-tokens", "2", "--json"]

    done = deploytk(tmp_path, model, *words, programs=engine)

    assert json.loads(done.stdout)["latency"], done.stderr
    assert started(tmp_path) == []


BENCH = """
import sys
from dataclasses import replace
from pathlib import Path
from deploytk.base.import_path import leave_working_directory
leave_working_directory()
from deploytk.bench import make_matrix
from deploytk.bench.engines import running_engine
from deploytk.bench.matrix import expand
from deploytk.hardware.catalogue import find_gpu
from deploytk.plan import PlanRequest

matrix = make_matrix({"engines": ("turbomind",), "kv": ("none",)})
here = (replace(find_gpu("H200"), is_here=True),)
(deployment, *_), _ = expand([Path(".")], matrix, PlanRequest(here=here))
with running_engine(deployment, 1, Path(sys.argv[1]), 60) as endpoint:
    print(endpoint.model)
"""


def test_engines_of_bench_run_nothing_of_the_directory_that_it_is_started_in(
    model: Path, tmp_path: Path, engine: Path
) -> None:
    """Without a GPU the command itself starts no such engine: its room does."""
    script = tmp_path / "bench.py"
    script.write_text(BENCH)
    environment = {**os.environ, "PATH": f"{engine}:{os.environ['PATH']}", "STUB_MODEL": "model"}

    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "log")],
        cwd=model, env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip

    assert done.stdout == "model\n", done.stderr
    assert started(tmp_path) == []


def test_preflight_runs_nothing_of_the_model(model: Path, tmp_path: Path, hub_port: None) -> None:
    bundle = make_bundle(model, tmp_path / "bundle", BundleOptions(name="tiny"))

    done = deploytk(tmp_path, model, "preflight", str(bundle.path), "--json")

    assert json.loads(done.stdout).get("first_answer_s") is not None, done.stdout + done.stderr
    assert started(tmp_path) == []


@pytest.mark.parametrize("where", ["bundle", "elsewhere"])
def test_the_published_app_runs_nothing_of_the_model(
    model: Path, api_bundle: Path, tmp_path: Path, engine: Path, where: str
) -> None:
    """Started as hubs do, with its own Python and every module that it imports."""
    bundle = api_bundle
    environment = {"PATH": f"{engine}:{os.environ['PATH']}"}

    with running_app(bundle, tmp_path / "log", environment, cwd=bundle if where == "bundle" else model) as app:
        app.wait("ready", within_s=60)

        assert app.chat(max_tokens=2).status_code == 200
    assert started(tmp_path) == []


def test_a_pythonpath_that_has_the_bundle_is_cleaned_for_the_app_and_its_engine(tmp_path: Path, engine: Path) -> None:
    """What Python itself imports before the app is out of its reach: those names are not planted."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    model = Path(shutil.copytree(MODELS / "hf-awq", tmp_path / "model"))
    free = set(names()) - {name.partition(".")[0] for name in loaded} - {"sitecustomize", "usercustomize"}
    plant(model, ".py", tmp_path / "marker", sorted(free))
    bundle = make_bundle(model, tmp_path / "bundle", BundleOptions(name="tiny", app="api")).path
    environment = {"PATH": f"{engine}:{os.environ['PATH']}", "PYTHONPATH": f"{tmp_path}:{bundle}::."}

    with running_app(bundle, tmp_path / "log", environment) as app:
        app.wait("ready", within_s=60)

        assert app.chat(max_tokens=2).status_code == 200
    assert len(free) > 200
    assert started(tmp_path) == []


def _pythons() -> Iterator[str]:
    """Every Python here that apps meet: 3.8 in old images, 3.9 on OpenXLab."""
    roots = [Path(sys.executable).resolve().parent, *Path("~/.pyenv/versions").expanduser().glob("*/bin")]
    roots += [Path("/usr/bin"), Path("/usr/local/bin")]
    found = {}
    for root in roots:
        for path in sorted(root.glob("python3.*")):
            if re.fullmatch(r"python3\.(8|9|1\d)", path.name):
                found.setdefault(path.name, str(path))
    yield from found.values()


@pytest.fixture(scope="module", params=FORMS)
def start_only(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every name in one form, and an app that only starts: the real one needs uvicorn."""
    tmp_path, form = tmp_path_factory.mktemp("start"), request.param
    bundle = tmp_path / "bundle"
    (bundle / "deploytk_app").mkdir(parents=True)
    shutil.copy(SHIPPED_APP / "start.py", bundle / "app.py")
    plant(bundle, form, tmp_path / "marker")
    for path in (bundle / "deploytk_app").iterdir():
        path.unlink()
    (bundle / "deploytk_app" / "__init__.py").write_text("")
    (bundle / "deploytk_app" / "relay.py").write_text("import uuid, email, http.client\n")
    say = "print(place, [p for p in sys.path if p == place])"
    server = f"from . import relay\nimport asyncio, json, ssl, sys\ndef main(place): {say}\n"
    (bundle / "deploytk_app" / "server.py").write_text(server)
    # Neither a library nor a cache in the room is taken for a module of it.
    (bundle / "deploytk_app" / f"relay{EXTENSION}").write_bytes(b"no library")
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "form").write_text(form)
    return tmp_path


@pytest.mark.parametrize("python", list(_pythons()), ids=lambda path: Path(path).name)
def test_the_start_file_leaves_the_path_on_every_python(python: str, start_only: Path) -> None:
    bundle, link = start_only / "bundle", start_only / "link"
    ways: list[tuple[list[str], Path]] = [
        (["app.py"], bundle),
        ([str(bundle / "app.py")], bundle),
        ([str(link / "app.py")], start_only),
        (["bundle/app.py"], start_only),
        (["-I", "app.py"], bundle),
    ]
    # Every way with modules, which every Python takes; of the other forms the one in which hubs start it, and another.
    form, pythons = list(FORMS).index((start_only / "form").read_text()), list(_pythons())
    taken = ways if form == 0 else [ways[0], ways[1 + (form + pythons.index(python)) % 4]]

    for argv, cwd in taken:
        done = subprocess.run([python, *argv], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)

        assert done.stdout.endswith(" []\n"), done.stderr
        assert started(start_only) == []


@pytest.mark.parametrize("python", list(_pythons()), ids=lambda path: Path(path).name)
def test_the_start_file_leaves_a_working_directory_that_pythonpath_names(python: str, tmp_path: Path) -> None:
    """Elsewhere than the bundle; what Python itself loads before the app is out of its reach."""
    bundle, here = tmp_path / "bundle", tmp_path / "here"
    (bundle / "deploytk_app").mkdir(parents=True)
    here.mkdir()
    shutil.copy(SHIPPED_APP / "start.py", bundle / "app.py")
    plant(here, ".py", tmp_path / "marker", ("uuid", "email", "asyncio", "json", "ssl"))
    (bundle / "deploytk_app" / "__init__.py").write_text("")
    say = (
        "def main(place):\n"
        " here = [p for p in sys.path if os.path.realpath(p) == os.getcwd()]\n"
        " print(here, os.environ.get('PYTHONPATH'), os.environ['PYTHONSAFEPATH'])"
    )
    server = f"import asyncio, email, json, os, ssl, sys, uuid\n{say}\n"
    (bundle / "deploytk_app" / "server.py").write_text(server)

    for path, left in ((str(here), None), (".:", None), (f"{tmp_path}:../here", tmp_path)):
        environment = {**os.environ, "PYTHONPATH": path}
        command = [python, str(bundle / "app.py")]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=60)

        assert done.stdout == f"[] {left} 1\n", done.stderr
        assert started(tmp_path) == []


def test_docker_build_takes_nothing_of_the_model(model: Path, tmp_path: Path) -> None:
    """Neither in the context that deploytk makes, nor by a name that the Dockerfile of a bundle has."""
    model = Path(shutil.copytree(model, tmp_path / "model"))
    for path in ("wheels/evil.whl", "ca-certificate.crt", "lmdeploy-lock.txt", "source/deploytk/__init__.py"):
        (model / path).parent.mkdir(parents=True, exist_ok=True)
        (model / path).write_bytes(b"evil")
    bundle = make_bundle(model, tmp_path / "bundle", request=PlanRequest(serving_engine="cpu"))
    options = BuildOptions(tag="a:1")

    with _context(recipe_for(bundle, options), options) as file, tarfile.open(fileobj=file) as archive:
        found = [content.read() for entry in archive.getmembers() if (content := archive.extractfile(entry))]
    copies = re.findall(r"^COPY (?!--from)(.*) \./$", (bundle.path / "Dockerfile").read_text(), re.MULTILINE)
    early = {word for copy in copies[:-1] for word in copy.split()}

    assert found
    assert not any(content == b"evil" or b"posix.open" in content for content in found)
    assert copies[-1] == "."
    assert {word for word in early if not word.startswith("deploytk_app/")} == {"requirements.txt"}
    ours = {path.name for path in SHIPPED_APP.iterdir()}
    assert {path.name for path in (bundle.path / "deploytk_app").iterdir()} <= ours


def test_inspect_names_every_kind_of_code(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    for path in ("a.py", "b.pyc", "c.so", "d.cpython-312-x86_64-linux-gnu.so", "e/__init__.py", "g.whl"):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(b"x")
    (root / "f.pth").write_text("import f\n")
    (root / "h.dist-info").mkdir()
    (root / "h.dist-info" / "entry_points.txt").write_text("")

    messages = [problem.message for problem in read_artifact(root).problems if problem.level == "warning"]

    assert [message for message in messages if "comes with the model" in message] == [
        "a.py is Python code that comes with the model (and 1 more like it)",
        "b.pyc is compiled Python code that comes with the model",
        "c.so is a compiled library, which Python imports as a module that comes with the model (and 1 more like it)",
        "f.pth is a path file, of which Python runs lines where it is installed that comes with the model",
        "g.whl is an archive of Python code that comes with the model",
        "e/ is a package of code that comes with the model",
        "h.dist-info/entry_points.txt tells Python of an installed package that comes with the model",
    ]


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK\x03\x04"])
def test_a_path_file_that_begins_as_tensors_do_is_named_all_the_same(
    start: bytes, model_copy: Callable[[str], Path]
) -> None:
    """Python runs its lines that begin with "import", whatever else is in it."""
    root = model_copy("hf-awq")
    (root / "weights.pth").write_bytes(start + b"\nimport os; os.system('id')\n")

    assert any("weights.pth is a path file" in problem.message for problem in read_artifact(root).problems)


def test_a_manifest_of_the_models_own_hides_no_code(model_copy: Callable[[str], Path]) -> None:
    root = model_copy("hf-awq")
    (root / "uvicorn.py").write_text("")
    (root / "app.py").write_text("")
    files = {"uvicorn.py": {"kind": "app"}, "app.py": {"kind": "app"}}
    (root / "deploytk.json").write_text(json.dumps({"files": files}))

    assert any("app.py is Python code" in problem.message for problem in read_artifact(root).problems)


def test_the_app_of_a_bundle_is_not_named_as_code_of_the_model(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", progress=Silent())

    assert not [problem for problem in read_artifact(bundle.path).problems if "code" in problem.message]


@pytest.mark.engine
@pytest.mark.parametrize("command", ["smoke", "bench"])
def test_the_cpu_engine_and_transformers_run_nothing_of_the_model(model: Path, tmp_path: Path, command: str) -> None:
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "torch.Config", "AutoModelForCausalLM": "torch.Model"}
    (model / "config.json").write_text(json.dumps(config))
    own = ["--engine", "cpu", "--requests", "1"]
    if command == "bench":
        own = ["--engines", "cpu", "--concurrency", "1", "--repetitions", "1", "-o", str(tmp_path / "out")]

    done = deploytk(tmp_path, model, command, ".", *own, "--output-tokens", "2", "--json")

    assert json.loads(done.stdout)["latency" if command == "smoke" else "rows"], done.stderr
    assert started(tmp_path) == []
