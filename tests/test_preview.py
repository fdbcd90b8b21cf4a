"""Endpoints: opened from a model, a bundle or an address, and gone afterwards. LMDeploy is a stub here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import plain_http
import pytest
from apps import MODELS, STUB, is_alive, make_app, running_app, wait_for
from ports import free_port

from deploytk.base.errors import DeployError, EndpointError, UsageError
from deploytk.base.progress import Silent
from deploytk.bundle import SHIPPED_APP, Golden
from deploytk.plan import PlanRequest
from deploytk.serve import ServeOptions, attach, choose_engine, open_endpoint, wait_while_running

STUBBED = ServeOptions(engine="turbomind", request=PlanRequest(gpu="A10"), ready_within_s=30)


@pytest.fixture
def lmdeploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `lmdeploy` that is the stub, first on the path, and the bundle beside it."""
    bundle = make_app(tmp_path / "stub")
    monkeypatch.setenv("PATH", f"{tmp_path / 'stub' / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("STUB_MODEL", "hf-awq")
    return bundle


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def test_a_model_is_packaged_served_and_cleared_away(lmdeploy: Path) -> None:
    with open_endpoint(str(MODELS / "hf-awq"), STUBBED, Silent()) as endpoint:
        assert endpoint.pid is not None
        assert endpoint.bundle is not None
        pids = [endpoint.pid, *children_of(endpoint.pid)]
        body = {"model": endpoint.model, "prompt": "x", "max_tokens": 1}
        answer = plain_http.post(endpoint.url + "/v1/completions", json=body).json()

        assert (endpoint.model, endpoint.engine) == ("hf-awq", "turbomind")
        assert answer["choices"][0]["text"] == "t0 "
        assert len(pids) == 2

    assert not [pid for pid in pids if is_alive(pid)]
    assert not endpoint.bundle.exists()
    assert not list(MODELS.glob(".deploytk-*"))


class Notes(Silent):
    """What was said on the way."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("host", "keys", "is_warned"),
    [("0.0.0.0", "", True), ("0.0.0.0", "k1", False), ("127.0.0.1", "", False), ("localhost", "", False)],
)
def test_an_app_that_listens_to_everybody_without_keys_is_warned_of(
    host: str, keys: str, is_warned: bool, lmdeploy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYTK_API_KEYS", keys)
    notes = Notes()

    with open_endpoint(str(lmdeploy), dataclasses.replace(STUBBED, host=host), notes) as endpoint:
        port = endpoint.url.rpartition(":")[2]

    warning = f"whoever reaches port {port} of this machine may use the app: DEPLOYTK_API_KEYS gives it keys, "
    assert ([one for one in notes.said if one.startswith(warning)] != []) is is_warned


def test_a_bundle_is_served_where_it_lies(lmdeploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_MODEL", "tiny")

    with open_endpoint(str(lmdeploy), STUBBED, Silent()) as endpoint:
        assert endpoint.bundle == lmdeploy
        assert endpoint.model == "tiny"

    assert (lmdeploy / "deploytk.json").is_file()


def test_an_app_that_wants_keys_is_served_all_the_same(lmdeploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYTK_API_KEYS", " first , second")

    with open_endpoint(str(MODELS / "hf-awq"), STUBBED, Silent()) as endpoint:
        models = f"{endpoint.url}/v1/models"
        statuses = [
            plain_http.get(models, headers={"authorization": f"Bearer {key}"}).status_code
            for key in ("first", "second", "third")
        ]

        assert statuses == [200, 200, 401]
        assert endpoint.model == "hf-awq"


def test_an_app_that_wants_keys_says_to_its_owner_why_it_failed(
    lmdeploy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYTK_API_KEYS", "first")
    monkeypatch.setenv("STUB_EXIT", "1")
    monkeypatch.setenv("STUB_SAYS", "CUDA out of memory")

    with (
        pytest.raises(EndpointError, match="CUDA out of memory"),
        open_endpoint(str(MODELS / "hf-awq"), STUBBED, Silent()),
    ):
        pass


def test_a_running_app_is_attached_to_and_left_alone(lmdeploy: Path, tmp_path: Path) -> None:
    with running_app(lmdeploy, tmp_path / "log") as app:
        app.wait("ready")

        with open_endpoint(app.url + "/", ServeOptions(), Silent()) as endpoint:
            assert (endpoint.url, endpoint.engine, endpoint.pid) == (app.url, "turbomind", None)

        assert app.process.poll() is None


def test_any_server_of_the_api_is_attached_to() -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, str(STUB), "--server-port", str(port)], stdout=subprocess.PIPE) as stub:
        assert stub.stdout is not None
        stub.stdout.readline()

        endpoint = attach(f"http://127.0.0.1:{port}")
        stub.kill()

    assert endpoint.model == "tiny"
    assert endpoint.engine is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://", "http://127.0.0.1:99999"])
def test_an_address_without_an_api_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(EndpointError) as caught:
        attach(url)

    assert "\n" not in str(caught.value)


def test_a_taken_port_is_refused_before_anything_is_started(lmdeploy: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        port = listener.getsockname()[1]
        options = ServeOptions(engine="turbomind", port=port)

        taken = pytest.raises(EndpointError, match=f"port {port} of 127.0.0.1 is taken")
        with taken as caught, open_endpoint(str(lmdeploy), options, Silent()):
            pass

        assert "--port" in caught.value.hint


def test_an_engine_that_fails_is_quoted(lmdeploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_SAYS", "RuntimeError: CUDA out of memory")
    monkeypatch.setenv("STUB_EXIT", "1")

    with pytest.raises(EndpointError, match="CUDA out of memory"), open_endpoint(str(lmdeploy), STUBBED, Silent()):
        pass


def test_an_engine_that_takes_too_long_is_ended(lmdeploy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_LOAD_S", "60")
    options = ServeOptions(engine="turbomind", ready_within_s=1.5)

    with pytest.raises(EndpointError, match="not ready within 2 s"), open_endpoint(str(lmdeploy), options, Silent()):
        pass

    assert not [pid for pid in children_of(os.getpid()) if is_alive(pid) and b"app.py" in _command(pid)]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_end_of_the_app_is_noticed(lmdeploy: Path) -> None:
    with open_endpoint(str(lmdeploy), STUBBED, Silent()) as endpoint:
        assert endpoint.pid is not None
        os.kill(endpoint.pid, signal.SIGKILL)

        with pytest.raises(EndpointError, match="ended by itself"):
            wait_while_running(endpoint)


def test_a_change_of_a_template_is_noticed(lmdeploy: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine"
    (template / "app").mkdir(parents=True)
    with open_endpoint(str(lmdeploy), STUBBED, Silent()) as endpoint:
        changed = subprocess.Popen(["sh", "-c", f"sleep 0.3; echo '# mine' > '{template}/app/page.py'"])

        wait_while_running(endpoint, [template])

        changed.wait(5)


def test_templates_of_the_user_are_served(lmdeploy: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine" / "app" / "data" / "openapi.json"
    own.parent.mkdir(parents=True)
    shipped_text = (SHIPPED_APP / "data" / own.name).read_text()
    own.write_text(shipped_text.replace("OpenAI-style API of a deploytk bundle", "My API"))
    options = ServeOptions(engine="turbomind", template=tmp_path / "mine", ready_within_s=30)

    with open_endpoint(str(MODELS / "hf-awq"), options, Silent()) as endpoint:
        described = plain_http.get(endpoint.url + "/openapi.json").json()

        assert described["info"]["title"] == "My API"
        assert described["components"]["schemas"]["sampling"]["properties"]["model"]["enum"] == ["hf-awq"]


def test_auto_takes_what_is_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("lmdeploy", "nvidia-smi"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_engine("auto") == "turbomind"

    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="lmdeploy is not installed"):
        choose_engine("turbomind")


def test_a_broken_model_is_refused_before_anything_is_started(lmdeploy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DeployError), open_endpoint(str(tmp_path / "empty"), STUBBED, Silent()):
        pass


@pytest.mark.engine
def test_the_very_app_answers_from_the_cpu(tmp_path: Path) -> None:
    golden = (Golden("2+2=", "4"),)
    options = ServeOptions(engine="cpu", golden=golden, ready_within_s=100)

    with open_endpoint(str(MODELS / "hf-awq"), options, Silent()) as endpoint:
        body = {"model": endpoint.model, "messages": [{"role": "user", "content": "2+2="}], "temperature": 0}
        answer = plain_http.post(endpoint.url + "/v1/chat/completions", json=body, timeout=60).json()
        too_long = {**body, "messages": [{"role": "user", "content": "你是谁" * 3000}]}
        refused = plain_http.post(endpoint.url + "/v1/chat/completions", json=too_long, timeout=60)

        assert answer["choices"][0]["message"]["content"] == "4"
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert endpoint.pid is not None
        engine = children_of(endpoint.pid)
        os.kill(endpoint.pid, signal.SIGKILL)
        wait_for(lambda: not [pid for pid in engine if is_alive(pid)], 5)
