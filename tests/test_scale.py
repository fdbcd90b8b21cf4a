"""scale: from a bundle or an image to the files of several replicas, for every platform."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundles import given_bundle, make_bundle, whole_bundle
from commands import run
from conftest import MODELS
from hypothesis import given
from hypothesis import strategies as st
from odd_registry import Odd, odd_registry
from replicas import DIGEST, IMAGE, REPLICA, replica, wishes

from deploytk.base.errors import ImageError, UsageError
from deploytk.base.names import dns_label, is_dns_label
from deploytk.base.progress import Silent
from deploytk.base.yaml import dump_yaml
from deploytk.bundle import Bundle, BundleOptions
from deploytk.image.config import plan_image
from deploytk.image.registry.push import push_image
from deploytk.image.value import Base, BuildOptions
from deploytk.plan import PlanRequest
from deploytk.scale import PLATFORMS, Replicas
from deploytk.scale.contract import GIB, replica_of
from deploytk.scale.haproxy import Backend, haproxy_config
from deploytk.scale.kubernetes import lint, objects_of
from deploytk.scale.source import manifest_inside, read_source
from deploytk.scale.wishes import Wishes, node_list, share_of

GOLDEN = Path(__file__).parent / "golden" / "scale"
HOSTILE = [
    "no",
    "1e3",
    'it\'s: "a" # b',
    "书生·浦语",
    "- a",
    "0x10",
    "a" * 96,
    "null",
    "a\u00a0b",
    "{x: 1}",
    "&a *a",
    "!!str",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return whole_bundle(MODELS / "hf-awq", tmp_path_factory.mktemp("scale") / "bundle")


def scaled(bundle: Bundle, out: Path, *words: str) -> Any:
    done = run("scale", str(bundle.path), *words, "-o", str(out), "--json", "-q")
    return done.code, json.loads(done.stdout)


# What a replica is


def test_a_replica_is_what_its_plan_says(bundle: Bundle) -> None:
    plan = bundle.manifest.plan

    made = replica_of(bundle.manifest, Wishes(digest=bundle.digest), IMAGE, "layers")

    weights_bytes = sum(file.size for file in bundle.files if file.kind == "weights")
    assert (made.gpus, made.max_running, made.port) == (plan.tensor_parallel, plan.max_batch_size, 7860)
    assert made.vram_bytes == plan.vram.total_bytes
    assert made.cpus == 4  # 2 + 2 for one GPU
    assert made.memory_bytes == 5 * GIB  # 4 GiB for one GPU and some hundred kB of weights, in whole GiB
    assert weights_bytes < GIB
    assert made.start_s == 180  # 120 s, and some kB at 50 MB/s: in whole minutes
    assert made.leaves_within_s == 60  # 10 s until all have heard of it, 30 s to drain, 20 s for the engine to end


def test_a_measured_start_beats_the_guess(bundle: Bundle) -> None:
    made = replica_of(bundle.manifest, Wishes(load_s=95.0), None, "layers")

    assert made.start_s == 300  # 3 x 95 = 285, in whole minutes
    assert "95 s that were measured" in made.start_from


def test_a_bundle_for_the_cpu_needs_no_gpu(tmp_path: Path) -> None:
    made = make_bundle(MODELS / "hf-fp16", tmp_path / "b", request=PlanRequest(serving_engine="cpu"))

    found = replica_of(made.manifest, Wishes(), None, "layers")

    assert (found.gpus, found.gpu, found.cpus) == (0, None, 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_any_title_becomes_a_name_that_kubernetes_takes(name: str) -> None:
    label = dns_label(name, room=15)

    assert is_dns_label(label)
    assert len(label) <= 63 - 15


def test_names_are_readable_where_they_can_be_and_differ_where_they_were_cut() -> None:
    assert dns_label("Qwen2.5-7B_Instruct") == "qwen2-5-7b-instruct"
    assert dns_label("7B") == "m-7b"  # a letter first, for Services
    assert dns_label("书生一") != dns_label("书生二")
    assert dns_label("a" * 80 + "1") != dns_label("a" * 80 + "2")


@given(st.text(max_size=120))
def test_no_text_makes_a_label_that_is_none(text: str) -> None:
    assert is_dns_label(dns_label(text, room=15))


@given(st.text(max_size=60))
def test_every_text_is_the_same_text_again_in_yaml(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert yaml.safe_load(dump_yaml({"a": text, text: ["b"]})) == {"a": text, text: ["b"]}


@pytest.mark.parametrize(
    "word", ["no", "On", "1e3", "0x1f", "0o17", "1_000", "12:30:45", "~", "=", ".5", "+1", "y", "2026-11-27", ""]
)
def test_words_that_some_parser_takes_for_something_else_are_quoted(word: str) -> None:
    assert dump_yaml({"a": word}) == f'a: "{word}"\n'


# What is asked for


def test_numbers_of_replicas_are_read() -> None:
    assert Replicas.parsed("3") == Replicas(3, 3)
    assert Replicas.parsed("1:8") == Replicas(1, 8)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "3:1", "0:2", "1:", ":2", "1:2:3", "a", "1e3", "99999999999", "１", "1 :2", "10001"]
)
def test_numbers_of_replicas_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Replicas.parsed(text)


@pytest.mark.parametrize(
    "text", ["", "a b", "x;reboot", "10.0.0.1,", "a\nserver b", "h/../x", "10.0.0.1,10.0.0.1", "-a", "$(id)"]
)
def test_nodes_that_are_no_addresses_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        node_list(text)


@pytest.mark.parametrize("text", ["10", "0%", "51%", "100%", "-1%", "ten%", "%", "1e1%", "nan%"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        share_of(text)
    assert share_of("12.5%") == 12.5


# The command


def test_the_files_of_ray_are_written_and_told(bundle: Bundle, tmp_path: Path) -> None:
    code, value = scaled(bundle, tmp_path / "out", "--on", "ray", "--replicas", "1:3", "--nodes", "10.0.0.1,10.0.0.2")

    assert code == 0
    assert value["files"] == ["haproxy.cfg", "head.sh", "serve.yaml", "worker.sh"]
    config = yaml.safe_load((tmp_path / "out" / "serve.yaml").read_text())
    [application] = config["applications"]
    assert application["args"]["bundle"] == str(bundle.path.resolve())
    assert application["deployments"][0]["autoscaling_config"]["max_replicas"] == 3
    assert "Redis" in value["warnings"][0]
    balancer = (tmp_path / "out" / "haproxy.cfg").read_text()
    assert servers(balancer) == {"replica-1": "10.0.0.2:8000", "spare": "10.0.0.1:8000"}
    assert re.search(r"server spare .* backup$", balancer, re.MULTILINE)


def servers(balancer: str) -> dict[str, str]:
    return dict(re.findall(r"^ +server (\S+) (\S+)", balancer, re.MULTILINE))


@pytest.mark.parametrize("words", [(), ("--nodes", "10.0.0.9")])
def test_a_head_that_is_the_only_node_is_asked(bundle: Bundle, tmp_path: Path, words: tuple[str, ...]) -> None:
    code, _ = scaled(bundle, tmp_path / "out", "--on", "ray", *words)

    assert code == 0
    assert list(servers((tmp_path / "out" / "haproxy.cfg").read_text())) == ["replica-1"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--on", "ray", "--replicas", "3:1"), 2),
        (("--on", "ray", "--replicas", "no"), 2),
        (("--on", "ray", "--tp", "2"), 2),  # the bundle is planned for one
        (("--on", "ray", "--gpu", "512M"), 3),
        (("--on", "ray", "--gpu", "no such GPU"), 2),
        (("--on", "kubernetes"), 2),  # no image
        (("--on", "compose", "--replicas", "1:2", "--image", "x"), 2),
        (("--on", "ray", "--namespace", "a"), 2),  # does nothing there
        (("--on", "baseten", "--monitoring"), 2),
        (("--on", "elsewhere"), 2),
        (("--on", "baseten", "--apply", "--image", "x"), 2),
        (("--on", "ray", "--report", "README.md"), 2),
        (("--on", "ray", "--nodes", "a b"), 2),
        (("--on", "kubernetes", "--image", "x y"), 2),
    ],
)
def test_what_makes_no_sense_ends_with_the_code_of_the_contract(
    bundle: Bundle, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    done = run("scale", str(bundle.path), *words, "-o", str(tmp_path / "out"))

    assert done.code == code
    assert not (tmp_path / "out").exists()
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("error: ") if code == 2 else "does not fit" in done.stdout


def test_more_gpus_than_a_node_has_do_not_fit(tmp_path: Path) -> None:
    made = make_bundle(MODELS / "hf-awq", tmp_path / "b", request=PlanRequest(tensor_parallel=2))

    code, value = scaled(made, tmp_path / "out", "--on", "ray", "--gpus-per-node", "1")

    assert code == 3
    assert value["misfits"] == ["a replica needs 2 GPUs of one node, which has 1 (--gpus-per-node)"]
    assert not (tmp_path / "out").exists()


def test_a_second_run_replaces_the_files_of_the_first_and_keeps_a_persons_overlay(
    bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scaled(bundle, out, "--on", "ray")
    (out / "overlays" / "mine").mkdir(parents=True)
    (out / "overlays" / "mine" / "kustomization.yaml").write_text("resources: []\n")
    (out / "left-over").write_text("x")

    code, _ = scaled(bundle, out, "--on", "ray", "--replicas", "2")

    assert code == 0
    assert (out / "overlays" / "mine" / "kustomization.yaml").read_text() == "resources: []\n"
    assert not (out / "left-over").exists()


def test_a_directory_of_others_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")

    done = run("scale", str(bundle.path), "--on", "ray", "-o", str(tmp_path / "out"))

    assert done.code == 2
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_model_directory_is_told_to_be_packaged_first(tmp_path: Path) -> None:
    done = run("scale", str(MODELS / "hf-awq"), "--on", "ray", "-o", str(tmp_path / "out"))

    assert done.code == 2
    assert "deploytk package" in done.stderr


# Images


def _pushed(bundle: Bundle, server: Odd, name: str = "me/chat:1", **options: Any) -> str:
    plan = plan_image(bundle, Base("nothing", DIGEST, (), b"{}"), BuildOptions(name, **options), Silent())
    push_image(plan, f"{server.host}/{name}", Silent(), takes_over=True)
    return f"{server.host}/{name.rpartition(':')[0]}@{plan.digest}"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr("deploytk.image.config._check_base", lambda base: None)
    monkeypatch.setenv("DEPLOYTK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with odd_registry() as server:
        yield server


def test_an_image_is_deployed_by_the_digest_that_its_registry_tells(
    bundle: Bundle, registry: Odd, tmp_path: Path
) -> None:
    by_digest = _pushed(bundle, registry)

    for words in ([f"{registry.host}/me/chat:1"], [str(bundle.path), "--image", f"{registry.host}/me/chat:1"]):
        done = run("scale", *words, "--on", "kubernetes", "-o", str(tmp_path / "out"), "--json", "-q")

        assert done.code == 0, done.stderr
        assert json.loads(done.stdout)["replica"]["image"] == by_digest
        assert json.loads(done.stdout)["replica"]["bundle"] == bundle.digest
        deployed = yaml.safe_load((tmp_path / "out" / "base" / "deployment.yaml").read_text())
        assert deployed["spec"]["template"]["spec"]["containers"][0]["image"] == by_digest


def test_the_image_of_another_bundle_is_refused(bundle: Bundle, registry: Odd, tmp_path: Path) -> None:
    _pushed(bundle, registry)
    other = given_bundle(MODELS / "hf-awq", tmp_path / "other", BundleOptions(name="other"))

    with pytest.raises(ImageError, match="was not made of this bundle"):
        read_source(str(other.path), f"{registry.host}/me/chat:1", Silent())


def test_a_registry_that_is_away_is_said_with_what_it_is_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("deploytk.base.retry.pause", lambda _: None)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))

    # Port 9 is nobody's. Its digest tells neither which bundle is in an image nor where that has its weights.
    for words in (["--image", f"127.0.0.1:9/me/chat@{DIGEST}"], ["--image", "127.0.0.1:9/me/chat:1"]):
        done = run("scale", str(bundle.path), *words, "--on", "kubernetes", "-o", str(tmp_path / "out"))

        assert done.code == 75
        assert "127.0.0.1:9 does not answer" in done.stderr
        assert "which bundle the image is of" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_image_without_a_bundle_is_refused() -> None:
    with pytest.raises(ImageError, match="holds no bundle"):
        manifest_inside(Base("busybox", DIGEST, (), b"{}"))


def test_an_image_without_its_bundle_needs_a_place_for_it(bundle: Bundle, registry: Odd, tmp_path: Path) -> None:
    _pushed(bundle, registry, weights="mount")
    words = [str(bundle.path), "--image", f"{registry.host}/me/chat:1", "--on", "kubernetes", "-o", str(tmp_path / "o")]

    assert run("scale", *words).code == 2
    assert run("scale", *words, "--claim", "weights", "--volume", IMAGE).code == 2
    assert run("scale", *words, "--volume", "ghcr.io/me/weights:1").code == 2  # not by its digest
    assert run("scale", *words, "--claim", "weights").code == 0


# Files of every platform


def _files(on: str, **changes: Any) -> dict[str, str]:
    given = {name: changes.pop(name) for name in list(changes) if name in Wishes.__dataclass_fields__}
    return dict(PLATFORMS[on].files(replica(**changes), wishes(**given)))


CASES: dict[str, dict[str, str]] = {
    "ray": _files("ray", nodes=("10.0.0.1", "10.0.0.2"), bundle_place="/srv/no: 1e3"),
    "kubernetes": _files("kubernetes", replicas=Replicas(1, 4), autoscaler="keda", has_monitoring=True),
    "compose": _files("compose", gpus_per_node=4),
    "inference-endpoints": _files("inference-endpoints", repository="me/internlm-chat-7b-awq"),
    "baseten": _files("baseten"),
    "gpustack": _files("gpustack"),
}


@pytest.mark.parametrize("on", CASES)
def test_the_files_are_those_that_were_read_by_a_person(on: str, request: pytest.FixtureRequest) -> None:
    assert set(CASES) == set(PLATFORMS)
    if request.config.getoption("--rewrite-golden"):
        for path, text in CASES[on].items():
            (GOLDEN / on / path).parent.mkdir(parents=True, exist_ok=True)
            (GOLDEN / on / path).write_text(text, encoding="utf-8")
    there = {
        str(one.relative_to(GOLDEN / on)): one.read_text("utf-8") for one in (GOLDEN / on).rglob("*") if one.is_file()
    }

    assert there == CASES[on], "run `make golden`, and read the difference"


@pytest.mark.parametrize("on", CASES)
@pytest.mark.parametrize("title", HOSTILE)
def test_no_title_changes_the_shape_of_a_file(on: str, title: str) -> None:
    """What is not text is the same, and as many texts are there, whatever it is called."""
    usual = _files(on, repository="me/chat", gpus_per_node=4)
    found = _files(on, repository="me/chat", gpus_per_node=4, title=title, name=dns_label(title, room=15))

    assert found.keys() == usual.keys()
    for path in usual:
        if path.endswith((".yaml", ".json")):
            assert _shape(yaml.safe_load(found[path])) == _shape(yaml.safe_load(usual[path]))
        else:
            assert len(found[path].splitlines()) == len(usual[path].splitlines())


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return type(value) if isinstance(value, str) else value


@pytest.mark.parametrize("on", CASES)
def test_no_secret_is_in_any_file(on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEPLOYTK_API_KEYS", "HF_TOKEN", "RAY_AUTH_TOKEN", "RAY_REDIS_ADDRESS"):
        monkeypatch.setenv(name, "canary-c0ffee")

    files = _files(on, repository="me/chat", gpus_per_node=4, weights="layers")

    assert not any("canary-c0ffee" in text for text in files.values())


def test_a_replica_of_compose_has_gpus_of_its_own() -> None:
    services = yaml.safe_load(CASES["compose"]["compose.yaml"])["services"]
    ids = [
        services[name]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name in ("replica-1", "replica-2")
    ]

    assert ids == [["0", "1"], ["2", "3"]]
    assert services["balancer"]["ports"] == ["127.0.0.1:7860:8080"]


def test_more_gpus_than_the_machine_has_are_refused_for_compose() -> None:
    with pytest.raises(UsageError, match="4 GPUs of the 3"):
        _files("compose", gpus_per_node=3)


def test_compose_files_pass_the_schema_of_compose(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(CASES["compose"]["compose.yaml"])
    check = pytest.importorskip("check_jsonschema").main  # in this process: it takes a second to load

    with contextlib.redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        check(["--builtin-schema", "vendor.compose-spec", str(tmp_path / "compose.yaml")])

    assert ended.value.code == 0, said.getvalue()


def test_the_load_balancer_gives_a_server_no_more_than_it_can_hold() -> None:
    text = haproxy_config(REPLICA, Backend(("10.0.0.1:8000",), "/ready", 72), 8080)

    assert "server replica-1 10.0.0.1:8000 maxconn 72" in text
    assert re.search(r"retry-on .*500 502 503", text)
    assert "option redispatch" in text


def test_the_port_of_baseten_is_not_the_one_of_its_proxy() -> None:
    assert yaml.safe_load(CASES["baseten"]["config.yaml"])["docker_server"]["server_port"] != 8080


def test_what_was_not_run_says_so() -> None:
    for on in ("inference-endpoints", "baseten", "gpustack"):
        assert all("not run there" in text for text in CASES[on].values())


def test_an_endpoint_starts_the_bundle_of_its_repository_where_the_image_has_none() -> None:
    files = _files("inference-endpoints", repository="me/chat", weights="mount")

    assert json.loads(files["endpoint.json"])["container_command"][-1] == "/repository/app.py"
    assert json.loads(CASES["inference-endpoints"]["endpoint.json"])["container_command"][-1] == "/bundle/app.py"


def test_the_app_listens_where_its_command_line_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploytk.app.server import _address

    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setattr("sys.argv", ["app.py", "--port", "9001", "--whatever", "x"])
    assert _address({"host": "0.0.0.0", "port": 7860}) == ("0.0.0.0", 9001)
    monkeypatch.setattr("sys.argv", ["app.py"])
    assert _address({"host": "0.0.0.0", "port": 7860}) == ("0.0.0.0", 9000)


def test_objects_of_every_kind_of_deployment_are_free_of_faults() -> None:
    for asked in (
        {},
        {"replicas": Replicas(1, 1)},
        {"replicas": Replicas(1, 8)},
        {"replicas": Replicas(1, 8), "autoscaler": "keda", "has_monitoring": True},
        {"volume": IMAGE, "runtime_class": "nvidia", "pull_secret": "registry"},
        {"claim": "weights", "keys": False},
    ):
        for changes in ({}, {"weights": "download"}, {"gpus": 0, "gpu": None, "gpu_bytes": None, "engine": "cpu"}):
            assert lint(list(objects_of(replica(**changes), wishes(**asked)).values())) == (), (asked, changes)
