"""What `doctor` finds, and that it never shows a token."""

from __future__ import annotations

import json

import pytest

from deploytk.base.json import plain
from deploytk.base.settings import Mirrors, Settings
from deploytk.doctor import check_up


@pytest.fixture(autouse=True)
def _no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")


def test_every_check_says_what_it_is_for_and_what_to_do() -> None:
    checks = check_up(Settings()).checks

    assert {"GPU", "LMDeploy", "Docker", "git", "extra cpu"} <= {check.name for check in checks}
    assert all(check.needed_for for check in checks)
    assert all(check.hint for check in checks if check.status != "ok")


def test_what_needs_nothing_works_everywhere() -> None:
    assert any("inspect" in command for command in check_up(Settings()).can)


def test_credentials_are_found_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretverysecret")

    checkup = check_up(Settings())

    found = next(check for check in checkup.checks if check.name == "credentials huggingface")
    assert (found.status, found.detail) == ("ok", "from the environment, HF_TOKEN")
    assert "verysecret" not in json.dumps(plain(checkup))


@pytest.mark.parametrize(
    ("variables", "works"), [({}, False), ({"OPENXLAB_USERNAME": "me", "OPENXLAB_GIT_TOKEN": "t"}, True)]
)
def test_a_hub_works_when_all_that_it_needs_is_there(
    variables: dict[str, str], works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENXLAB_USERNAME", "OPENXLAB_GIT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    can = check_up(Settings()).can

    assert ("publish --target openxlab" in can) is works
    assert "publish --target oci" not in can  # without Docker nothing makes the image


def test_a_mirror_that_does_not_answer_is_said() -> None:
    settings = Settings(mirrors=Mirrors(pip="http://127.0.0.1:9/simple"))

    checks = {check.name: check for check in check_up(settings).checks}

    assert checks["mirror pip"].status == "broken"
    assert "does not answer" in checks["mirror pip"].detail
