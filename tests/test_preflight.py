"""Pre-flight: an app that its author could not get out of the queue, one fault at a time, and deploytk's own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest
from bundles import make_bundle, whole_bundle
from commands import run
from conftest import MODELS
from ports import free_port
from quiet_server import QuietServer

from deploytk.base.errors import EndpointError, TryAgainError, UsageError
from deploytk.base.progress import Silent
from deploytk.plan import PlanRequest
from deploytk.preflight import Preflight, PreflightOptions, await_app, preflight

QUEUEING = Path(__file__).parent / "data" / "queueing_app"

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.end_headers()
http.server.HTTPServer(("{host}", {port}), Handler).serve_forever()
"""


pytestmark = pytest.mark.usefixtures("hub_port")


def _app(place: Path, source: str, requirements: str = "", packages: str = "") -> Path:
    place.mkdir()
    (place / "app.py").write_text(source)
    (place / "requirements.txt").write_text(requirements)
    (place / "packages.txt").write_text(packages)
    return place


def _check(app: Path, within_s: float = 10.0, **more: object) -> Preflight:
    return preflight(app, PreflightOptions(within_s=within_s, **more), Silent())  # type: ignore[arg-type]


def _codes(found: Preflight) -> set[str]:
    return {finding.code for finding in found.findings}


def test_every_fault_of_the_app_that_stayed_in_the_queue_is_named() -> None:
    found = _check(QUEUEING, within_s=3)

    assert found.status == "fail"
    assert _codes(found) == {
        "downloads-at-start",
        "converts-at-start",
        "windows-only",
        "wrong-host",  # `serve gradio` takes localhost unless it is told otherwise
        "wrong-port",  # 6006, and 23333 for the API
        "builds-at-install",  # flash-attn
        "unpinned",  # lmdeploy, packaging
        "missing-package",  # git and git-lfs are not in packages.txt
        "blocking-start",
    }
    messages = "\n".join(finding.message for finding in found.findings)
    assert "port 6006, the default" in messages
    assert "it was running: git clone https://code.openxlab.org.cn/someone" in messages
    assert found.first_answer_s is None
    assert all(finding.hint for finding in found.findings)


def test_the_app_of_a_bundle_passes(tmp_path: Path) -> None:
    bundle = whole_bundle(MODELS / "workspace-0.4.2-awq", tmp_path / "bundle")

    found = _check(bundle.path, within_s=20)

    assert found.status == "pass", found.findings
    assert found.findings == ()
    assert found.listens_on == ("0.0.0.0:7860",)
    assert found.first_answer_s is not None
    assert found.first_answer_s < 15
    assert found.python_there == "3.9"


@pytest.mark.parametrize(
    ("host", "port", "code"),
    [("0.0.0.0", 7860, None), ("127.0.0.1", 7860, "wrong-host"), ("0.0.0.0", None, "wrong-port")],
)
def test_where_an_app_really_listens_counts(tmp_path: Path, host: str, port: int | None, code: str | None) -> None:
    source = SERVER.format(host=host, port=port or free_port(), status=200)

    found = _check(_app(tmp_path / "app", source), within_s=3)

    assert _codes(found) == ({code} if code else set())


def test_an_error_page_is_no_answer(tmp_path: Path) -> None:
    source = SERVER.format(host="0.0.0.0", port=7860, status=500)

    assert _codes(_check(_app(tmp_path / "app", source))) == {"answers-wrong"}


def test_what_blocks_the_start_is_named_also_when_it_is_hidden(tmp_path: Path) -> None:
    """Nothing in the text says so: only running it does."""
    source = "import os\ncommand = ' '.join(['lmdeploy', 'con' + 'vert', 'x'])\nos.popen(command).read()\n"

    found = _check(_app(tmp_path / "app", source), within_s=2)

    assert _codes(found) == {"blocking-start"}
    assert "it was running: lmdeploy convert x" in found.findings[0].message
    assert found.ran == ("lmdeploy convert x",)


def test_an_app_that_ends_shows_its_last_words(tmp_path: Path) -> None:
    found = _check(_app(tmp_path / "app", "raise SystemExit('no model here')"))

    assert "no model here" in found.findings[0].message
    assert _codes(found) == {"ends-at-start"}


@pytest.mark.parametrize(
    ("requirements", "code", "status"),
    [("nosuchmodule==1.0\n", "cannot-start-here", "inconclusive"), ("", "ends-at-start", "fail")],
)
def test_a_module_that_is_not_here_is_an_error_only_when_nobody_installs_it(
    tmp_path: Path, requirements: str, code: str, status: str
) -> None:
    found = _check(_app(tmp_path / "app", "import nosuchmodule\n", requirements))

    assert _codes(found) == {code}
    assert found.status == status


def test_no_gpu_tool_is_there_and_home_is_empty(tmp_path: Path) -> None:
    source = (
        "import os, pathlib, shutil\n"
        "assert not shutil.which('nvidia-smi')\n"
        "assert not list(pathlib.Path.home().iterdir())\n"
        "assert 'OPENXLAB_GIT_TOKEN' not in os.environ\n"
        "assert os.system('python -c \"import httpx\"') == 0\n"
    ) + SERVER.format(host="0.0.0.0", port=7860, status=200)

    assert _check(_app(tmp_path / "app", source)).status == "pass"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("flash-attn==2.4.2", "builds-at-install"),
        ("flash_attn", "builds-at-install"),
        ("gradio", "unpinned"),
        ("gradio>=3", "unpinned"),
        ("git+https://example.com/x.git", "unpinned"),
        ("gradio==6.1.0", "needs-newer-python"),
        ("lmdeploy==0.18.0", "needs-newer-python"),
        ("gradio = 3", "malformed"),
        ("two words", "malformed"),
    ],
)
def test_each_kind_of_bad_requirement_is_named(tmp_path: Path, line: str, code: str) -> None:
    source = SERVER.format(host="0.0.0.0", port=7860, status=200)

    assert code in _codes(_check(_app(tmp_path / "app", source, line + "\n")))


@pytest.mark.parametrize(
    "line", ["gradio==3.50.2", "lmdeploy[all]==v0.1.0", "gradio>=3,<4", "x==1; python_version<'4'"]
)
def test_a_good_requirement_is_left_alone(tmp_path: Path, line: str) -> None:
    source = SERVER.format(host="0.0.0.0", port=7860, status=200)

    assert _codes(_check(_app(tmp_path / "app", source, line + "\n"))) == set()


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("demo.launch()", {"wrong-host"}),
        ("demo.launch(server_name='0.0.0.0', server_port=8000)", {"wrong-port"}),
        ("demo.launch(server_name='0.0.0.0', server_port=7860)", set()),
        ("import os\nos.system('pip install gradio')", {"installs-at-start"}),
        ("from openxlab.model import download\ndownload(model_repo='a/b')", {"downloads-at-start"}),
        ("from openxlab.model import download\ndef later():\n    download(model_repo='a/b')", set()),
        ("import subprocess\nsubprocess.run(['lmdeploy', 'lite', 'auto_awq', 'x'])", {"converts-at-start"}),
        ("match 1:\n    case 1:\n        pass", {"needs-newer-python"}),
    ],
)
def test_what_the_text_of_an_app_says(tmp_path: Path, source: str, codes: set[str]) -> None:
    app = _app(tmp_path / "app", "raise SystemExit(0)\n" + source)

    assert _codes(_check(app)) - {"ends-at-start"} == codes


@pytest.mark.parametrize("source", ["\0", "(" * 500, "x = " + "-" * 5000 + "1"])
def test_source_that_is_none_is_a_finding(tmp_path: Path, source: str) -> None:
    assert _check(_app(tmp_path / "app", source)).status == "fail"


def test_a_model_that_the_tier_cannot_hold_is_an_error(tmp_path: Path) -> None:
    # 32 MiB of weights would fit anywhere; a KV pool for 200 000 tokens at batch 512 does not.
    request = PlanRequest(gpu="A100-80G", max_batch_size=8192)
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle", request=request)

    found = _check(bundle.path, within_s=20, gpu="1G")

    assert "too-little-memory" in _codes(found)


def test_requirements_that_no_index_was_asked_about_are_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")

    source = SERVER.format(host="0.0.0.0", port=7860, status=200)
    found = _check(_app(tmp_path / "app", source, "fastapi==0.115.0\n"), with_network=True)

    assert _codes(found) == {"not-checked"}
    assert (found.status, found.resolved_by_pip) == ("inconclusive", False)


@pytest.mark.parametrize(("requirements", "code"), [("nosuchmodule==1.0\n", 4), ("", 1)])
def test_the_exit_code_tells_what_failed_from_what_was_not_tried(tmp_path: Path, requirements: str, code: int) -> None:
    done = run("preflight", str(_app(tmp_path / "app", "import nosuchmodule\n", requirements)))

    assert done.code == code


def test_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    with QuietServer(("0.0.0.0", 7860), BaseHTTPRequestHandler), pytest.raises(TryAgainError, match="7860"):
        _check(_app(tmp_path / "app", "pass"))


def test_the_app_is_started_by_the_python_that_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python3.9"
    python.write_text(f'#!/bin/sh\ntest "$1" = --version && echo "Python 3.9.18" || exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    app = _app(tmp_path / "app", SERVER.format(host="0.0.0.0", port=7860, status=200))

    found = _check(app, python=python)

    assert found.status == "pass"
    assert found.python_here == "3.9.18"
    with pytest.raises(UsageError, match="is no Python"):
        _check(app, python=tmp_path / "nothing")


def test_a_directory_without_an_app_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        _check(tmp_path / "nothing")

    assert "no-start-file" in _codes(_check(tmp_path))


def test_nothing_of_the_app_is_left_running(tmp_path: Path) -> None:
    source = "import subprocess\nsubprocess.Popen(['sleep', '3333'])\nsubprocess.run(['git', 'clone'])\n"

    _check(_app(tmp_path / "app", source), within_s=1)

    alive = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 3333" not in alive


def test_the_command_prints_the_value_and_fails_for_a_bad_app() -> None:
    command = [sys.executable, "-m", "deploytk", "preflight", str(QUEUEING), "--within", "2s", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "fail"


def test_an_app_that_could_not_be_started_here_ends_the_command_with_4(tmp_path: Path) -> None:
    app = _app(tmp_path / "app", "import nosuchmodule\n", "nosuchmodule==1.0\n")

    done = subprocess.run([sys.executable, "-m", "deploytk", "preflight", str(app)], capture_output=True, timeout=60)

    assert done.returncode == 4
    assert b"passed" not in done.stdout + done.stderr


@contextlib.contextmanager
def _hosted(states: list[dict[str, object] | None]) -> Iterator[str]:
    """A hub's app that answers /ready with these states in turn, the last one for ever; None: 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/ready":
                state = states.pop(0) if len(states) > 1 else states[0]
                self._send(404 if state is None else 200, state or {})
            else:
                self._send(200, {"data": [{"id": "tiny", "owned_by": "x"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._send(200, {"choices": [{"message": {"content": "2"}}]})

        def _send(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.preflight.hosted._PAUSE_S", 0.05)


@pytest.mark.usefixtures("_impatient")
def test_an_app_that_gets_ready_is_smoked() -> None:
    with _hosted([None, {"state": "fetching"}, {"state": "loading"}, {"state": "ready"}]) as url:
        endpoint = await_app(url, 10, Silent(), preflight_passed=True)

    assert endpoint.model == "tiny"


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("passed", "says"), [(True, "the queue is the platform's"), (False, "run `deploytk preflight`")]
)
def test_an_app_that_still_queues_exits_75_with_the_next_step(passed: bool, says: str) -> None:
    with _hosted([None]) as url, pytest.raises(TryAgainError, match=says) as caught:
        await_app(url, 0.3, Silent(), preflight_passed=passed)

    assert caught.value.exit_code == 75
    assert "run the same command again" in caught.value.hint


@pytest.mark.usefixtures("_impatient")
def test_an_app_that_says_it_failed_is_an_error() -> None:
    states: list[dict[str, object] | None] = [{"state": "failed", "detail": "x.weight is a git-lfs pointer"}]

    with _hosted(states) as url, pytest.raises(EndpointError, match="git-lfs pointer"):
        await_app(url, 5, Silent(), preflight_passed=True)


@pytest.mark.network
@pytest.mark.timeout(400)
def test_pip_can_install_what_the_app_of_a_bundle_asks_for(tmp_path: Path) -> None:
    bundle = make_bundle(MODELS / "hf-awq", tmp_path / "bundle")

    found = _check(bundle.path, within_s=20, with_network=True)

    assert found.findings == ()
    assert found.resolved_by_pip
