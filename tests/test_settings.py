"""deploytk.toml: what is read, from where, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploytk.base.errors import SettingsError
from deploytk.base.settings import check_commands, find_settings, load_settings


def _write(directory: Path, text: str) -> Path:
    path = directory / "deploytk.toml"
    path.write_text(text)
    return path


def test_options_mirrors_and_budgets_are_read(tmp_path: Path) -> None:
    path = _write(tmp_path, '[plan]\nsession-len = 512\n[mirrors]\npreset = "cn"\n[budget]\nmax_ttft_ms = 500\n')

    settings = load_settings(path)

    assert check_commands(settings, {"plan": {"session_len"}}) == {"plan": {"session_len": 512}}
    assert settings.budget.max_ttft_ms == 500
    assert settings.mirrors.address("huggingface") == "https://hf-mirror.com"


def test_an_address_beats_the_preset(tmp_path: Path) -> None:
    path = _write(tmp_path, '[mirrors]\npreset = "cn"\npip = "https://index.example/simple"\n')

    mirrors = load_settings(path).mirrors

    assert mirrors.address("pip") == "https://index.example/simple"


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings(None)

    assert settings.mirrors.address("pip") is None
    assert settings.commands == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[mirrors]\npresent = 'cn'\n", "present"),
        ("[budget]\nmax_ttft_ms = -1\n", "max_ttft_ms"),
        ("gpu = 'T4'\n", "gpu"),
        ("[plan\n", "deploytk.toml"),
    ],
)
def test_a_wrong_file_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = _write(tmp_path, text)

    with pytest.raises(SettingsError, match=named):
        load_settings(path)


@pytest.mark.parametrize(("text", "named"), [("[plann]\na = 1\n", "plann"), ("[plan]\nsesion_len = 1\n", "sesion_len")])
def test_unknown_commands_and_options_are_refused(tmp_path: Path, text: str, named: str) -> None:
    settings = load_settings(_write(tmp_path, text))

    with pytest.raises(SettingsError, match=named):
        check_commands(settings, {"plan": {"session_len"}})


def test_the_file_beside_the_model_is_found_and_one_inside_it_is_not(tmp_path: Path) -> None:
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    _write(model, "[publish]\npublic = true\n")
    beside = _write(model.parent, "")

    assert find_settings(["inspect", str(model)]) == beside
    beside.unlink()
    assert find_settings(["inspect", str(model)]) != model / "deploytk.toml"
