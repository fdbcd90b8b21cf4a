"""Options: which groups they come in, and that none without effect is taken in silence."""

from __future__ import annotations

import ast
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from bundles import make_bundle
from conftest import MODELS
from typer.testing import CliRunner
from workspaces import write_workspace

from deploytk import cli
from deploytk.base.errors import UsageError
from deploytk.cli import app
from deploytk.cli.command import command
from deploytk.cli.lazily import commands
from deploytk.cli.session import unused
from deploytk.plan import PlanRequest

ROOM = Path(cli.__file__).parent


@dataclass(frozen=True, slots=True)
class _Group:
    size: Annotated[int, typer.Option("--size", "-s")]
    tint: str = "red"


def _call(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command of two groups' worth of options."""

    @command("deploytk paint WALL")
    def paint(wall: Path, group: _Group, deep: bool = False) -> None:
        unused(_Group, because="the wall is wet") if deep else None
        typer.echo(f"{wall} {group.size} {group.tint}")

    painter = typer.Typer()
    paint.add_to(painter)
    done = CliRunner().invoke(painter, arguments)
    return done.exit_code, str(done.exception) if isinstance(done.exception, UsageError) else done.output


def test_a_group_is_spread_over_the_command_and_put_together_again() -> None:
    assert _call("wall", "-s", "3") == (0, "wall 3 red\n")
    assert _call("wall", "--size", "3", "--tint", "blue", "--json") == (0, "wall 3 blue\n")
    assert _call("wall")[0] == 2  # a field without a default is required


def test_an_unused_option_is_named_as_it_was_written() -> None:
    assert _call("wall", "-s", "3", "--deep")[1] == "--size does nothing here: the wall is wet"


def test_no_command_has_more_than_eight_parameters() -> None:
    for one in commands():
        assert len(inspect.signature(one.function).parameters) <= 8, one.name


def test_nothing_in_the_commands_is_called_with_a_positional_none() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path in sorted(ROOM.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) not in ("getattr", "next", "type")
        if any(isinstance(argument, ast.Constant) and argument.value is None for argument in node.args)
    ]

    assert calls == []


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One of each kind of source."""
    root = tmp_path_factory.mktemp("sources")
    bundle = make_bundle(MODELS / "hf-awq", root / "bundle")
    cpu = make_bundle(MODELS / "hf-awq", root / "cpu", request=PlanRequest(serving_engine="cpu"))
    legacy = make_bundle(MODELS / "workspace-0.4.2-awq", root / "legacy")
    app = root / "app"
    app.mkdir()
    (app / "app.py").write_text("")
    bench = root / "bench"
    bench.mkdir()
    return {
        "MODEL": str(MODELS / "hf-awq"),
        "BUNDLE": str(bundle.path),
        "CPU": str(cpu.path),
        "LEGACY": str(legacy.path),
        "FP16": str(write_workspace(root / "fp16", "0.4.2")),
        "APP": str(app),
        "BENCH": str(bench),
        "URL": "http://127.0.0.1:9",
        "OUT": str(root / "out"),
    }


_OF_A_GPU = ("--gpu A10", "--max-batch-size 2", "--kv int8", "--tp 1", "--cache-max-entry-count 0.5")
_PLANNING = (*_OF_A_GPU, "--session-len 9")
_PACKAGING = ("--name a", "--base-model a/b", "--license mit", f"--golden {MODELS / 'dialogs.json'}", "--template .")
_MAKING = ("--variant pip", "--build-arg A=b", "--ca-cert /dev/null", "--wheels .", "--host-network")
_DIMENSIONS = ("--engines cpu", "--kv none", "--concurrency 1", "--input-tokens 8", "--output-tokens 8")
_WHOLE = ("--gpu A10", "--tp 2", "--cache-max-entry-count 0.5", "--slo ttft=1s", "--objective latency")
_BENCH = (*_DIMENSIONS, *_WHOLE, "--repetitions 1", "--session-len 9", "-o OUT")

WITHOUT_EFFECT = [
    (
        "plan MODEL --engine cpu",
        (
            "--gpu A10",
            "--max-batch-size 2",
            "--kv none",
            "--tp 1",
            "--cache-max-entry-count 0.5",
            "--reasoning-parser default",
        ),
    ),
    ("modernize FP16 -o OUT", ("--to-fp16",)),
    ("serve BUNDLE --engine cpu", (*_PLANNING, "--app api", "--template .", "--reload")),
    ("serve MODEL --engine cpu", (*_OF_A_GPU, "--trust-bundle")),
    ("smoke URL --wait 1s", (*_PLANNING, "--engine cpu", "--trust-bundle")),
    ("smoke BUNDLE --engine cpu", _PLANNING),
    ("smoke MODEL --engine cpu", _OF_A_GPU),
    ("smoke URL --wait 1s --rate 2", ("--concurrency 2",)),
    ("build BUNDLE -t a:1", (*_PLANNING, *_PACKAGING, "--app api", "--engine cpu", "--offline")),
    ("build MODEL -t a:1 --engine cpu", (*_OF_A_GPU, "--trust-bundle")),
    ("package MODEL -o OUT", ("--trust-bundle",)),
    ("build BUNDLE -t a:1 --base oci:x", _MAKING),
    ("build CPU -t a:1", ("--variant pip", "--variant official", "--build-arg NOPE=1")),
    ("build BUNDLE -t a:1", ("--build-arg LMDEPLOY_VERSION=0.1.0", "--build-arg TORCH=torch")),
    ("build LEGACY -t a:1", ("--variant official", "--variant pip")),
    ("publish BUNDLE --target local --repo OUT", (*_PLANNING, *_PACKAGING, "--app-kind api")),
    ("preflight APP", ("--gpu A10", "--network", "--template .", "--trust-bundle")),
    ("bench --compare BENCH BENCH", (*_BENCH, "MODEL")),
    ("report BENCH", ("-o OUT.html",)),
    ("calibrate --forget 1", ("BENCH",)),
]


@pytest.mark.parametrize(("line", "option"), [(line, option) for line, options in WITHOUT_EFFECT for option in options])
def test_an_option_without_effect_is_refused_with_the_reason(line: str, option: str, sources: dict[str, str]) -> None:
    words = [sources.get(word, word) for word in f"{line} {option}".split()]

    done = CliRunner().invoke(app, words)

    assert isinstance(done.exception, UsageError), (done.output, done.exception)
    assert "does nothing here" in str(done.exception)
    assert not Path(sources["OUT"]).exists()


def test_a_running_server_is_not_served(sources: dict[str, str]) -> None:
    done = CliRunner().invoke(app, ["serve", sources["URL"]])

    assert isinstance(done.exception, UsageError)
    assert "smoke" in done.exception.hint


def test_a_default_of_deploytk_toml_is_left_aside_where_it_does_not_apply(
    sources: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploytk.toml").write_text("[plan]\ngpu = 'A10'\n")
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["plan", sources["MODEL"], "--engine", "cpu", "--json"])

    assert json.loads(done.stdout)["engine"] == "cpu"
