"""The commands as they are called: exit codes, JSON, two lines for every error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from commands import NAMES, run
from conftest import MODELS

DIALOGS = str(MODELS / "dialogs.json")


def _process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """For what the command does to its own process, and what is loaded into it; `run` does for the rest."""
    return subprocess.run(
        [sys.executable, "-m", "deploytk", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, **environment},
    )


def _json(*arguments: str) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.code == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert isinstance(loaded, dict)
    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example(name: str) -> None:
    done = run(*name.split(), "--help")

    assert done.code == 0
    assert f"Example:  deploytk {name}" in done.stdout


@pytest.mark.parametrize("wrong", [("--no-such-option",), ("--json", "--no-such-option"), ("a", "b", "c", "d", "-o")])
@pytest.mark.parametrize("name", NAMES)
def test_bad_usage_of_every_command_is_two_lines_and_a_value(name: str, wrong: tuple[str, ...]) -> None:
    done = run(*name.split(), *wrong)

    what, hint = done.stderr.splitlines()
    assert (done.code, what[:7], hint[:7]) == (2, "error: ", " hint: ")
    if "--json" in wrong:
        assert json.loads(done.stdout) == {"error": {"what": what[7:], "hint": hint[7:], "exit_code": 2}}
    else:
        assert done.stdout == ""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("doctor", "demo", "config schema")])
def test_a_source_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    needed = {
        "package": ["-o", str(tmp_path / "b")],
        "modernize": ["-o", str(tmp_path / "m")],
        "quantize": ["-o", str(tmp_path / "q")],
        "smoke": ["--wait", "1s"],
    }
    needed |= {"build": ["-t", "a:1"], "publish": ["--target", "local"], "bench": ["-o", str(tmp_path / "r")]}
    needed |= {"scale": ["--on", "ray", "-o", str(tmp_path / "s")]}
    words = [*name.split(), "-q", str(tmp_path / "file" / "nowhere"), *needed.get(name, [])]
    (tmp_path / "file").touch()

    done = run(*words, "--json")

    assert (done.code in (1, 2), "nowhere" in done.stderr, len(done.stderr.splitlines())) == (True, True, 2), done
    error = json.loads(done.stdout)["error"]
    assert (error["exit_code"], "nowhere" in error["what"]) == (done.code, True)


def test_an_error_after_the_value_leaves_one_value_on_stdout(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODELS / "workspace-0.7.3-awq", tmp_path / "w"))
    (model / "triton_models/weights/norm.weight").unlink()

    done = run("inspect", str(model), "--json")

    assert (done.code, "error" in json.loads(done.stdout)) == (1, False)


def test_nothing_asked_for_shows_the_help() -> None:
    done = run()

    assert (done.code, "Usage: deploytk" in done.stdout, done.stderr) == (2, True, "")


@pytest.mark.parametrize("words", [("-q", "plan"), ("plan", "-q"), ("plan", "-v"), ("-v", "plan", "-q")])
def test_quiet_and_verbose_stand_before_or_behind_the_command(words: tuple[str, ...]) -> None:
    assert run(*words, str(MODELS / "hf-awq")).code == 0


def test_verbose_says_every_step_and_quiet_none(tmp_path: Path) -> None:
    package = ["package", str(MODELS / "hf-awq"), "-o"]

    verbose, quiet = run("-v", *package, str(tmp_path / "v")), run("-q", *package, str(tmp_path / "q"))

    assert "done in" in verbose.stderr
    assert quiet.stderr == ""
    assert run("plan", "-q", "-v", str(MODELS / "hf-awq")).code == 2


@pytest.mark.parametrize("words", [["plan", str(MODELS / "hf-awq")], ["plan", "--json", str(MODELS / "hf-awq")]])
def test_a_full_disk_behind_stdout_is_one_error(words: list[str]) -> None:
    for asked in (words, ["--help"], ["--version"], ["plan", "--help"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "deploytk", *asked], stdout=full, stderr=-1, text=True, check=False
            )

        assert done.returncode == 1
        assert done.stderr.startswith("error: the output cannot be written: No space left on device\n hint: ")


@pytest.mark.parametrize("closing", ["| true", ">&-", "2>/dev/full >/dev/null"])
def test_nobody_who_reads_is_no_reason_for_a_traceback(closing: str) -> None:
    line = f"{sys.executable} -m deploytk plan {MODELS / 'hf-awq'} {closing}"

    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)

    assert done.stderr == ""


_ENDLESS = """
import signal, sys, time
import typer
from deploytk.cli.ending import run_to_the_end

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whatever started the tests may ignore some
app = typer.Typer()

@app.command()
def work():
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("cleaning", flush=True)
        time.sleep(60 if sys.argv[2] == "2" else 0)  # the second signal does not wait for that

sys.exit(run_to_the_end(lambda: app([], standalone_mode=False), ["--json"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_ends_a_run_without_a_traceback(number: signal.Signals, times: int) -> None:
    command = [sys.executable, "-c", _ENDLESS, "x", str(times)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(number)
        assert child.stdout.readline() == "cleaning\n"
        if times == 2:
            time.sleep(0.7)  # sooner is the same wish, passed on twice
            child.send_signal(number)
        out, err = child.stdout.read(), child.stderr.read()

    assert (child.returncode, err) == (128 + number, "")
    if times == 1:
        assert json.loads(out)["error"]["exit_code"] == 128 + number


def test_the_version_is_printed() -> None:
    assert _process("--version").stdout.startswith("deploytk 0.")


def test_inspect_has_the_keys_of_the_contract() -> None:
    found = _json("inspect", str(MODELS / "workspace-0.4.2-awq"))

    keys = (
        "layout architecture weight_format weight_bits group_size weights_bytes layers hidden_size heads kv_heads "
        "head_dim vocab_size session_len kv_policy tensor_parallel chat_template made_by lmdeploy problems"
    )
    assert set(keys.split()) <= found.keys()
    assert {"min", "max", "pin"} <= found["lmdeploy"].keys()
    assert {"level", "message", "hint"} <= found["problems"][0].keys()


def test_plan_has_the_keys_of_the_contract() -> None:
    found = _json("plan", str(MODELS / "hf-awq"), "--gpu", "A10", "--kv", "int8", "--session-len", "512")

    keys = (
        "engine lmdeploy argv session_len max_batch_size kv_policy quant_policy cache_max_entry_count fits "
        "kv_bytes_per_token kv_capacity_tokens vram"
    )
    assert set(keys.split()) <= found.keys()
    assert {"weights_bytes", "kv_pool_bytes", "overhead_bytes", "total_bytes"} <= found["vram"].keys()
    assert (found["session_len"], found["kv_policy"], found["quant_policy"]) == (512, "int8", 8)


def test_package_and_publish_have_the_keys_of_the_contract(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    packaged = _json("package", str(MODELS / "hf-awq"), "-o", str(bundle), "--golden", DIALOGS)
    published = _json("publish", str(bundle), "--target", "local", "--repo", str(tmp_path / "hub"))

    assert {"path", "digest", "files", "bytes"} <= packaged.keys()
    keys = "target repo revision url uploaded_files uploaded_bytes unchanged_files verified steps_left"
    assert set(keys.split()) <= published.keys()
    assert published["verified"] is True


def test_a_broken_model_is_shown_and_then_refused(tmp_path: Path) -> None:
    model = Path(shutil.copytree(MODELS / "workspace-0.7.3-awq", tmp_path / "w"))
    with (model / "triton_models/weights/norm.weight").open("r+b") as file:
        file.truncate(511)

    done = _process("inspect", str(model), "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["problems"][0]["level"] == "error"
    assert "norm.weight has 511 bytes, 512 expected" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "named"),
    [
        (["inspect", "nowhere"], 1, "nowhere"),
        (["plan", str(MODELS / "hf-awq"), "--gpu", "abacus"], 2, "abacus"),
        (["plan", str(MODELS / "workspace-0.9.2-awq")], 1, "modernize"),
        (["plan", str(MODELS / "hf-awq"), "--kv", "int2"], 2, "int2"),
        (["publish", str(MODELS / "hf-awq"), "--target", "huggingface", "--wait", "soon"], 2, "soon"),
        (["smoke", "http://127.0.0.1:9", "--wait", "1s"], 1, "127.0.0.1:9"),
        (["smoke", "x", "--max-ttft-ms", "-1"], 2, "max_ttft_ms"),
        (["smoke", "x", "-o", "report.pdf"], 2, "report.pdf"),
        (["package", str(MODELS / "hf-awq"), "-o", "b", "--name", "a\nb"], 2, "a\\nb"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_say_what_and_what_to_do(
    arguments: list[str], exit_code: int, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    done = run(*arguments)

    assert done.code == exit_code
    assert named in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_published_as_it_is(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    _json("package", str(MODELS / "hf-awq"), "-o", str(bundle))

    done = run("publish", str(bundle), "--target", "local", "--license", "mit", "--repo", str(tmp_path / "hub"))

    assert (done.code, "is a bundle already" in done.stderr) == (2, True)
    assert not (tmp_path / "hub").exists()


def test_an_argument_of_any_length_is_no_reason_to_crash() -> None:
    assert run("inspect", "x" * 5000).code == 1


def test_options_come_from_deploytk_toml_and_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploytk.toml").write_text('[plan]\nsession-len = 256\ngpu = "T4"\n')
    model = str(MODELS / "hf-awq")

    from_file = _json("plan", model)
    from_option = _json("plan", model, "--session-len", "512")

    assert (from_file["session_len"], from_file["gpu"]["name"]) == (256, "T4")
    assert from_option["session_len"] == 512


def test_a_misspelt_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploytk.toml").write_text("[plan]\nsesion-len = 256\n")

    done = run("plan", str(MODELS / "hf-awq"))

    assert (done.code, "line 2: [plan] has no option 'sesion-len'" in done.stderr) == (1, True)


def test_templates_can_be_exported_and_used(tmp_path: Path) -> None:
    assert run("template", "export", str(tmp_path / "mine")).code == 0
    (tmp_path / "mine" / "README.md.j2").write_text("{{ plan.sesion_len }}\n")

    done = run("package", str(MODELS / "hf-awq"), "-o", str(tmp_path / "b"), "--template", str(tmp_path / "mine"))

    assert done.code == 1
    assert "README.md.j2, line 1" in done.stderr


@pytest.mark.engine
def test_smoke_judges_the_awq_model_on_the_cpu(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    options = ["--engine", "cpu", "--golden", DIALOGS, "--requests", "3", "-o", str(report)]
    done = _process("smoke", str(MODELS / "hf-awq"), *options)

    assert done.returncode == 0, done.stderr
    findings = {f["check"]: f["detail"] for f in json.loads(report.read_text())["correctness"]}
    assert findings["golden answers"] == "8 of 8 right"


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_and_leaves_no_process(number: signal.Signals, tmp_path: Path) -> None:
    from urllib.request import urlopen

    from ports import free_port

    port = free_port()
    command = [sys.executable, "-m", "deploytk", "serve", str(MODELS / "hf-awq"), "--engine", "cpu", "--app", "api"]
    mark = {**os.environ, "DEPLOYTK_TEST_MARK": str(tmp_path)}
    child = subprocess.Popen([*command, "--port", str(port)], env=mark, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("curl"):
            break
    with urlopen(f"http://127.0.0.1:{port}/ready", timeout=10) as answer:
        assert answer.status == 200

    child.send_signal(number)

    assert child.wait(60) == 0
    child.stdout.close()
    time.sleep(0.2)
    assert not _marked(str(tmp_path))


def _marked(mark: str) -> list[str]:
    """The processes whose environment has the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


@pytest.mark.engine
def test_the_demo_goes_the_whole_way(tmp_path: Path) -> None:
    found = json.loads(_process("demo", "--json", TMPDIR=str(tmp_path)).stdout)

    assert found["report"]["verdict"]["status"] == "pass"
    assert found["workspace_release"]["verified"] is True
    assert Path(found["report_path"]).is_file()


def test_the_demo_of_the_bare_package_goes_the_way_without_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uvx deploytk demo` has no torch."""
    place = tmp_path / "a place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setitem(sys.modules, "torch", None)

    done = run("demo")

    assert (done.code, done.stdout.count("published and verified")) == (0, 2)
    assert "nothing is served: the CPU engine needs torch" in done.stderr
    assert "uvx --from 'deploytk[cpu,ui]' deploytk demo" in done.stdout


def test_a_plan_that_does_not_fit_exits_3_and_says_what_would() -> None:
    model, wish = str(MODELS / "hf-fp16"), ["--gpu", "2G", "--session-len", "8192", "--max-batch-size", "4000"]
    refused = run("plan", model, *wish)
    as_json = run("plan", model, *wish, "--json")
    fits = run("plan", model, "--gpu", "A10")

    assert refused.code == as_json.code == 3
    assert "Start it with" not in refused.stdout
    assert "lmdeploy serve" not in refused.stdout
    assert "What would fit:" in refused.stdout
    found = json.loads(as_json.stdout)
    assert found["fits"] is False
    assert found["alternatives"]
    assert {"change", "option", "max_batch_size", "session_len", "kv_capacity_tokens"} == set(found["alternatives"][0])
    assert fits.code == 0
    assert "Start it with" in fits.stdout
    assert "--server-name 127.0.0.1" in fits.stdout


def test_modernize_ends_with_lines_to_paste_and_shows_no_list_of_python(tmp_path: Path) -> None:
    out = tmp_path / "my model"

    shown = run("modernize", str(MODELS / "workspace-0.4.2-awq"), "-o", str(out)).stdout

    assert shown.splitlines()[-3:] == ["Next:", f"deploytk package '{out}' -o BUNDLE", f"deploytk serve '{out}'"]
    assert "['" not in shown
