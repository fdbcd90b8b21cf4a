"""deploytk.toml: what is read, from where, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import COMMANDS, run
from conftest import MODELS

from deploytk.base.errors import SettingsError
from deploytk.base.settings import Settings, file_type, find_settings, load_settings
from deploytk.base.toml import json_schema, line_of
from deploytk.cli.tables import tables
from deploytk.publish.options import declared
from deploytk.publish.target import loadable_targets


def _write(directory: Path, text: str) -> Path:
    path = directory / "deploytk.toml"
    path.write_text(text)
    return path


def _load(directory: Path, text: str) -> Settings:
    return load_settings(_write(directory, text), tables)


def test_options_mirrors_and_budgets_are_read(tmp_path: Path) -> None:
    settings = _load(tmp_path, '[plan]\nsession-len = 512\n[mirrors]\npreset = "cn"\n[budget]\nmax_ttft_ms = 500\n')

    assert settings.commands == {"plan": {"session-len": 512}}
    assert settings.budget.max_ttft_ms == 500
    assert settings.mirrors.address("huggingface") == "https://hf-mirror.com"


def test_dashes_and_underscores_are_the_same(tmp_path: Path) -> None:
    settings = _load(tmp_path, "[plan]\nsession_len = 512\n[budget]\nmax-ttft-ms = 500\n")

    assert (settings.commands["plan"], settings.budget.max_ttft_ms) == ({"session-len": 512}, 500)


def test_an_address_beats_the_preset(tmp_path: Path) -> None:
    mirrors = _load(tmp_path, '[mirrors]\npreset = "cn"\npip = "https://index.example/simple"\n').mirrors

    assert mirrors.address("pip") == "https://index.example/simple"


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings(None)

    assert settings.mirrors.address("pip") is None
    assert settings.commands == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[mirrors]\n\npresent = 'cn'\n", "line 3: .mirrors. has no option 'present'"),
        ("[budget]\nmax_ttft_ms = -1\n", "line 2: budget.max_ttft_ms: -1 is not more than 0"),
        ("gpu = 'T4'\n", "line 1: 'gpu' stands outside a table"),
        ("[plan\n", "at line 1"),
        ("[plann]\na = 1\n", "line 1: there is no table or command 'plann'"),
        ("[plan]\nsesion_len = 1\n", "line 2: .plan. has no option 'sesion-len'"),
        ("[plan]\n# the GPU\ngpu = 24\n", "line 3: plan.gpu: 24 is not text"),
        ("[plan]\nsession-len = '24'\n", "line 2: plan.session-len: '24' is not a whole number"),
        ("[plan]\nsession-len = 1.5\n", "line 2: plan.session-len: 1.5 is not a whole number"),
        ("[plan]\ntp = 0\n", "line 2: plan.tp: 0 is less than 1"),
        ("[serve]\nport = 65536\n", "line 2: serve.port: 65536 is more than 65535"),
        ("[publish]\npublic = 'yes'\n", "line 2: publish.public: 'yes' is not true or false"),
        ("[build]\nbuild-arg = 'A=b'\n", "line 2: build.build-arg: 'A=b' is not a list"),
        ("plan.kv = 'int2'\n", "line 1: plan.kv: 'int2' is not one of none, int8, int4"),
        ("[publish]\nlicense_ = 'mit'\n", "line 2: .publish. has no option 'license_'"),
        ("[plan]\nmodel = 'm'\n", "line 2: .plan. has no option 'model'"),
        ("[plan]\njson = true\n", "line 2: .plan. has no option 'json'"),
        ("[plan]\ngpu = 2026-01-01\ntp = 'x'\n", "line 3: plan.tp"),
    ],
)
def test_a_wrong_file_names_line_and_key(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=rf"deploytk\.toml.*{named}"):
        _load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "words", "named"),
    [
        ("[plan]\ngpu = 'abacus'\n", ["plan", "MODEL"], "line 2: gpu: no GPU 'abacus'"),
        ("[publish]\n\nwait = 'soon'\n", ["publish", "MODEL", "--target", "huggingface"], "line 3: wait: 'soon'"),
        ("[package]\ngolden = 'nowhere.json'\n", ["package", "MODEL", "-o", "b"], "line 2: golden: "),
    ],
)
def test_a_value_that_fails_later_names_the_file_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: list[str], named: str
) -> None:
    _write(tmp_path, text)
    monkeypatch.chdir(tmp_path)

    done = run(*(str(MODELS / "hf-awq") if word == "MODEL" else word for word in words))

    assert done.code == 1
    assert f"deploytk.toml, {named}" in done.stderr


def test_the_line_of_a_key_is_found_however_it_is_written() -> None:
    text = 'a.b = 1\n[c]\n"d-e" = 2\nf = {g = 3}\n[ h.i ]\nj_k = 4\n[[l]]\n'

    lines = [("a", "b"), ("c", "d_e"), ("c", "f", "g"), ("h", "i", "j-k"), ("h", "i"), ("l",), ("m",)]
    assert [line_of(text, keys) for keys in lines] == [1, 3, 4, 6, 5, 7, None]


def test_every_option_of_every_command_can_be_set_by_the_name_it_has_there() -> None:
    schema: dict[str, Any] = json_schema(file_type(tables()))
    of_targets = {name.replace("_", "-") for one in loadable_targets() for name in declared(one.about.options)}

    for path, command in COMMANDS.items():
        options = [one for one in command.params if one.param_type_name == "option"]
        long = {max(one.opts, key=len).removeprefix("--") for one in options} - {"json", "quiet", "verbose"}
        if len(path) == 1 and long:
            name = schema["properties"][path[0]]["$ref"].rpartition("/")[2]
            long |= of_targets if path == ("publish",) else set()
            assert schema["$defs"][name]["properties"].keys() == long
    assert '"default"' not in str(schema).replace("'", '"')


def test_the_file_beside_the_model_is_found_and_one_inside_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    _write(model, "[publish]\npublic = true\n")
    beside = _write(model.parent, "")

    assert find_settings([model]) == beside
    monkeypatch.chdir(model)
    assert find_settings([Path()]) == beside
    beside.unlink()
    assert find_settings([model]) is None
    assert find_settings([Path()]) is None
    (model / "parts").mkdir()
    _write(model / "parts", "")
    monkeypatch.chdir(model / "parts")
    assert find_settings([model]) is None


def test_the_file_beside_the_output_or_another_value_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _write(tmp_path / "there", "[package]\nname = 'theirs'\n")

    done = run("package", str(MODELS / "hf-awq"), "-o", str(tmp_path / "there" / "b"), "--json")

    assert done.code == 0
    assert "theirs" not in (tmp_path / "there" / "b" / "deploytk.json").read_text()


def test_the_command_line_beats_the_file_and_the_file_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, "[plan]\nsession-len = 256\nkv = 'int8'\n")
    monkeypatch.chdir(tmp_path)

    done = run("plan", str(MODELS / "hf-awq"), "--session-len", "128", "--json")

    assert '"session_len": 128' in done.stdout
    assert '"kv_policy": "int8"' in done.stdout


def _model_in(place: Path) -> Path:
    place.mkdir(parents=True)
    (place / "config.json").write_text('{"model_type": "llama"}')
    return place


@pytest.mark.parametrize("kind", ["model", "workspace", "bundle"])
@pytest.mark.parametrize("where", [".", "sub"])
@pytest.mark.parametrize("source", ["", "other/model", "http://127.0.0.1:7860"])
def test_the_working_directory_gives_nothing_when_it_is_a_model_that_somebody_brought(
    kind: str, where: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is acted on from there: a server that is asked with a key, another model that is published."""
    brought = _model_in(tmp_path / "brought") if kind == "model" else tmp_path / "brought"
    (brought / where).mkdir(exist_ok=True, parents=True)
    if kind == "workspace":
        (brought / "triton_models").mkdir()
    if kind == "bundle":
        (brought / "deploytk.json").write_text("{}")
    _write(brought, "[smoke]\napi-key-env = 'HF_TOKEN'\n")
    _write(brought / where, "[smoke]\napi-key-env = 'HF_TOKEN'\n")
    _model_in(tmp_path / "other" / "model")
    monkeypatch.chdir(brought / where)

    assert find_settings([tmp_path / source if source.startswith("other") else Path(source)] if source else []) is None


def test_a_model_inside_of_a_model_brings_no_settings_either(tmp_path: Path) -> None:
    outer = _model_in(tmp_path / "outer")
    inner = _model_in(outer / "onnx")
    _write(outer, "[plan]\n")

    assert find_settings([inner]) is None


def test_a_settings_file_beside_a_model_is_read_whatever_else_lies_there(tmp_path: Path) -> None:
    model = _model_in(tmp_path / "model")
    (tmp_path / "config.json").write_text('{"name": "some other program"}')
    written = _write(tmp_path, "[plan]\n")

    assert find_settings([model]) == written


@pytest.mark.parametrize("option", ["allow-pickle = true", "template = '{}'"])
def test_a_file_that_gives_rights_is_named_with_its_line(
    option: str, model_copy: Callable[[str], Path], tmp_path: Path
) -> None:
    model = model_copy("hf-awq")
    (tmp_path / "template" / "app").mkdir(parents=True)
    written = _write(tmp_path, f"[package]\n{option.format(tmp_path / 'template')}\n")

    done = run("-q", "package", str(model), "-o", str(tmp_path / "bundle"))

    assert done.code == 0, done.stderr
    assert done.stderr.startswith(f"{written}, line 2, says --{option.partition(' ')[0]}: see that you wrote it")
