"""What an engine does not have is refused with the name of the field, never ignored; the plan says who has what."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

import plain_http
import pytest
from apps import App, make_app, running_app
from artifacts import internlm_7b

from deploytk import lmdeploy
from deploytk.app.features import CPU, FEATURES, NAMES, RENAMED, refuse_missing, renamed
from deploytk.app.refused import RefusedError
from deploytk.artifact.chat_templates import tool_format
from deploytk.base.errors import DeployError, PlanError, UsageError
from deploytk.plan import PlanRequest, plan_serving

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TOOL = {"type": "function", "function": {"name": "f"}}
OTHER = {"type": "function", "function": {"name": "g"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}}


def said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}, {"role": role, "content": content, **more}]}


# A request that asks for it -> the field that is to blame.
ASKED = [
    ("tools", CHAT, {"tools": [TOOL]}, "tools"),
    ("tools", CHAT, {"tool_choice": "required"}, "tool_choice"),
    ("tools", CHAT, {"tool_choice": {"type": "function"}}, "tool_choice"),
    ("required_tools", CHAT, {"tool_choice": "required", "tools": [TOOL]}, "tool_choice"),
    ("required_tools", CHAT, {"tool_choice": TOOL, "tools": [TOOL]}, "tool_choice"),
    ("required_tools", CHAT, {"tool_choice": ALLOWED, "tools": [TOOL]}, "tool_choice"),
    ("tools", CHAT, said(None, "assistant", tool_calls=[{}]), "messages.1.tool_calls"),
    ("tools", CHAT, said("x", "tool"), "messages.1.role"),
    ("response_format", CHAT, {"response_format": {"type": "json_object"}}, "response_format"),
    ("logprobs", CHAT, {"logprobs": True}, "logprobs"),
    ("logprobs", CHAT, {"top_logprobs": 2}, "top_logprobs"),
    ("completion_logprobs", TEXT, {"logprobs": 2}, "logprobs"),
    ("completion_logprobs", TEXT, {"logprobs": 0}, "logprobs"),  # those of the tokens that were chosen
    ("choices", CHAT, {"n": 2}, "n"),
    ("completion_choices", TEXT, {"n": 2}, "n"),
    ("completion_choices", TEXT, {"best_of": 2}, "best_of"),
    ("prompts", TEXT, {"prompt": ["a"]}, "prompt"),
    ("streamed_prompts", TEXT, {"prompt": ["a", "b"], "stream": True}, "prompt"),
    ("echo", TEXT, {"echo": True}, "echo"),
    ("suffix", TEXT, {"suffix": "x"}, "suffix"),
    ("images", CHAT, said([{"type": "text", "text": "x"}, {"type": "image_url"}]), "messages.1.content.1.type"),
    ("speech", CHAT, said([{"type": "input_audio"}]), "messages.1.content.0.type"),
    ("speech", CHAT, {"modalities": ["text", "audio"]}, "modalities"),
    ("speech", CHAT, {"audio": {"voice": "x"}}, "audio"),
    ("reasoning_effort", CHAT, {"reasoning_effort": "high"}, "reasoning_effort"),
    ("seed", TEXT, {"seed": 0}, "seed"),
    ("min_p", CHAT, {"min_p": 0.1}, "min_p"),
    ("logit_bias", CHAT, {"logit_bias": {"1": 5}}, "logit_bias"),
    ("penalties", CHAT, {"presence_penalty": 0.5}, "presence_penalty"),
    ("penalties", TEXT, {"frequency_penalty": -0.5}, "frequency_penalty"),
    ("lmdeploy_fields", TEXT, {"min_new_tokens": 3}, "min_new_tokens"),
    ("lmdeploy_fields", CHAT, {"skip_special_tokens": False}, "skip_special_tokens"),
    ("functions", CHAT, {"functions": [{"name": "f"}]}, "functions"),
    ("prediction", CHAT, {"prediction": {"type": "content"}}, "prediction"),
    ("web_search", CHAT, {"web_search_options": {}}, "web_search_options"),
    ("verbosity", CHAT, {"verbosity": "low"}, "verbosity"),
]  # fmt: skip


def refused(path: str, fields: dict[str, Any], has: tuple[str, ...], engine: str = "turbomind") -> str | None:
    try:
        refuse_missing(path, fields, has, engine)
    except RefusedError as error:
        return f"{error.status} {error.code} {error.param}" if error.param in error.message else error.message
    return None


@pytest.mark.parametrize(("feature", "path", "fields", "param"), ASKED)
def test_what_an_engine_has_not_is_refused_by_the_name_of_the_field(
    feature: str, path: str, fields: dict[str, Any], param: str
) -> None:
    others = tuple(name for name in NAMES if name != feature)

    assert refused(path, fields, others) == f"400 unsupported_parameter {param}"
    assert refused(path, fields, NAMES) is None


def test_every_feature_is_asked_for_here() -> None:
    assert {feature for feature, *_ in ASKED} == set(NAMES)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {name: None for feature in FEATURES for name in feature.fields}),
        (CHAT, {"tools": [], "tool_choice": "auto", "n": 1, "logprobs": False, "response_format": {"type": "text"}}),
        (CHAT, {"tool_choice": "none", "parallel_tool_calls": True, "modalities": ["text"], "logit_bias": {}}),
        (CHAT, {"presence_penalty": 0.0, "frequency_penalty": 0, "user": "u", "metadata": {}, "store": False}),
        (CHAT, {"echo": True, "suffix": "x", "best_of": 2, "prompt": ["a", "b"]}),  # no fields of a chat
        (TEXT, {"tools": [TOOL], "messages": [{"role": "tool"}]}),  # none of a completion
        (TEXT, {"n": 1, "best_of": 1, "echo": False, "suffix": "", "logprobs": None, "stream": True, "prompt": "a"}),
        (CHAT, said([{"type": "text", "text": "x"}])),
    ],
)
def test_fields_that_ask_for_nothing_are_taken(path: str, fields: dict[str, Any]) -> None:
    assert refused(path, fields, (), "cpu") is None


def test_a_field_goes_by_the_name_that_the_engine_knows() -> None:
    asked = {"max_completion_tokens": 5, "max_tokens": 9, "n": 1}

    assert renamed(asked, ("max_completion_tokens",)) == asked
    assert renamed(asked, ()) == {"max_tokens": 5, "n": 1}
    assert renamed({"max_tokens": 9, "max_completion_tokens": None}, ())["max_tokens"] == 9


@pytest.mark.parametrize("choice", [TOOL, ALLOWED])
def test_a_tool_by_its_name_is_the_only_one_and_required(choice: dict[str, Any]) -> None:
    """LMDeploy 0.18.0 offers it alone, and leaves it to the model whether it calls: seen on a GPU."""
    asked = {"tools": [OTHER, TOOL], "tool_choice": choice, "n": 1}

    assert renamed(asked, NAMES) == {"tools": [TOOL], "tool_choice": "required", "n": 1}


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [OTHER], "tool_choice": TOOL},  # there is none of that name: for the engine to say
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": []}},
        {"tools": "f", "tool_choice": TOOL},
        {
            "tools": [[], {"function": 3}],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}},
        },
        {"tool_choice": "auto"},
    ],
)
def test_other_choices_of_tools_pass_as_they_are(asked: dict[str, Any]) -> None:
    assert renamed(asked, NAMES) == asked


# Which engine has what


def plan_of(version: str, **more: Any) -> Any:
    pinned = dataclasses.replace(internlm_7b(architecture="LlamaForCausalLM"), **more)
    support = dataclasses.replace(pinned.lmdeploy, pin=version, engine="turbomind")
    return plan_serving(dataclasses.replace(pinned, lmdeploy=support), PlanRequest())


@pytest.mark.parametrize(
    ("version", "engine", "has", "has_not"),
    [
        ("0.2.6", "turbomind", "prompts", "logprobs choices response_format"),
        ("0.4.0", "turbomind", "logprobs completion_logprobs", "choices response_format logit_bias"),
        ("0.7.3", "pytorch", "response_format logit_bias", "logprobs completion_logprobs choices"),
        ("0.10.1", "turbomind", "logprobs", "response_format reasoning_effort"),
        ("0.12.3", "turbomind", "completion_logprobs response_format reasoning_effort", "choices"),
        ("0.13.0", "turbomind", "logprobs", "completion_logprobs choices"),
        ("0.15.0", "turbomind", "logprobs", "choices"),
        ("0.18.0", "turbomind", "logprobs choices response_format prompts", "echo suffix completion_choices penalties"),
        ("0.18.0", "pytorch", "logit_bias choices response_format", "logprobs streamed_prompts"),
    ],
)
def test_each_lmdeploy_has_what_its_sources_have(
    version: str, engine: lmdeploy.LmdeployEngine, has: str, has_not: str
) -> None:
    found = set(lmdeploy.api_features(version, engine))

    assert found <= {*NAMES, *RENAMED}
    assert found >= set(has.split())
    assert not found & set(has_not.split())


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args>}\\n</tool_call>', "qwen2d5"),
        ('{"name": "f", "arguments": {}}</tool_call><tool_call> <think>', "qwen3"),
        ("<tool_call>\n<function=f>\n<parameter=p>\n", "qwen3coder"),
        ("<tool_call>{name}<arg_key>k</arg_key><arg_value>v</arg_value>", "glm47"),
        ("<|action_start|><|plugin|>", "internlm"),
        ('<|python_tag|> {"name": f, "parameters": d}', "llama3"),
        ("<|tool_calls_section_begin|>", "kimi_k2"),
        ("[TOOL_CALLS]", None),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
    ],
)
def test_a_template_tells_how_calls_are_written(template: str, expected: str | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    in_json = tool_format(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text(template)

    assert (in_json, tool_format(tmp_path)) == (expected, expected)


@pytest.mark.parametrize(
    ("version", "tool_format", "parser"),
    [
        ("0.18.0", "qwen3", "qwen3"), ("0.18.0", "qwen2d5", "qwen2d5"), ("0.9.0", "qwen2d5", "qwen"),
        ("0.7.1", "qwen2d5", None), ("0.12.1", "qwen3coder", None), ("0.12.2", "qwen3coder", "qwen3coder"),
        ("0.17.0", "kimi_k2", None), ("0.18.0", None, None),
    ],
)  # fmt: skip
def test_tools_work_where_a_parser_is_planned(version: str, tool_format: Any, parser: str | None) -> None:
    plan = plan_of(version, tool_format=tool_format)

    flag = plan.argv[plan.argv.index("--tool-call-parser") + 1] if "--tool-call-parser" in plan.argv else None
    assert (flag, "tools" in plan.features) == (parser, parser is not None)


@pytest.mark.parametrize(
    ("version", "tool_format", "forces"),
    [
        ("0.18.0", "qwen2d5", True),
        ("0.18.0", "internlm", True),
        ("0.17.0", "qwen3", False),
        ("0.18.0", "llama3", False),
    ],
)
def test_calls_are_required_where_lmdeploy_forces_them(version: str, tool_format: Any, *, forces: bool) -> None:
    assert ("required_tools" in plan_of(version, tool_format=tool_format).features) is forces


def asked(version: str, parser: str) -> Any:
    model = internlm_7b(architecture="LlamaForCausalLM")
    support = dataclasses.replace(model.lmdeploy, pin=version, engine="turbomind")
    return plan_serving(dataclasses.replace(model, lmdeploy=support), PlanRequest(reasoning_parser=parser))


def test_a_parser_for_thoughts_is_planned_where_that_lmdeploy_has_it() -> None:
    plan = asked("0.18.0", "default")

    assert plan.argv[plan.argv.index("--reasoning-parser") + 1] == plan.reasoning_parser == "default"
    assert plan_of("0.18.0").reasoning_parser is None


@pytest.mark.parametrize(
    ("version", "parser", "kind", "says", "hint"),
    [
        ("0.18.0", "think", UsageError, "LMDeploy has no reasoning parser 'think'", "take one of deepseek-r1"),
        (
            "0.12.3",
            "default",
            PlanError,
            "LMDeploy 0.12.3 has no reasoning parser 'default'",
            "take one of deepseek-r1",
        ),
        ("0.7.1", "qwen-qwq", PlanError, "LMDeploy 0.7.1 has no reasoning parser 'qwen-qwq'", "leave"),
    ],
)
def test_a_parser_that_lmdeploy_has_not_is_refused(
    version: str, parser: str, kind: type[DeployError], says: str, hint: str
) -> None:
    with pytest.raises(kind) as caught:
        asked(version, parser)

    assert str(caught.value) == says
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize("parser", ["default", "x;rm", ""])
def test_a_manifest_names_no_parser_that_its_lmdeploy_has_not(parser: str) -> None:
    """Whoever serves a bundle starts its command; 0.12.3 has no `default`."""
    plan = asked("0.12.3", "qwen-qwq")
    argv = tuple(parser if word == "qwen-qwq" else word for word in plan.argv)

    with pytest.raises(ValueError, match=r"plan\.argv"):
        dataclasses.replace(plan, argv=argv)._require_sense()


def test_a_model_of_images_takes_them_and_the_cpu_engine_has_what_it_has() -> None:
    assert "images" not in plan_of("0.18.0").features
    assert "images" in plan_of("0.18.0", config={"vision_config": {}}).features
    assert plan_serving(internlm_7b(), PlanRequest(serving_engine="cpu")).features == CPU
    with pytest.raises(PlanError):
        plan_of("0.18.0", heads=33, tensor_parallel=2)


# Through the app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("features")
    with running_app(make_app(place), place / "app.log") as app:
        app.wait("ready")
        yield app


def test_the_app_refuses_by_the_features_of_its_plan(app: App) -> None:
    refused = app.chat(tools=[TOOL])
    taken = app.chat(n=2, logprobs=True, response_format={"type": "json_object"})

    assert (refused.status_code, taken.status_code) == (400, 200)
    assert refused.json()["error"] == {
        "message": "tools: the TurboMind engine of this model has no tools (function calls)",
        "type": "invalid_request_error",
        "param": "tools",
        "code": "unsupported_parameter",
    }


def test_a_model_is_retrieved_by_its_name(app: App) -> None:
    found, other = app.get("/v1/models/tiny"), app.get("/v1/models/own%2Fer")

    assert found.json() == app.get("/v1/models").json()["data"][0]
    assert (other.status_code, other.json()["error"]["param"]) == (404, "model")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", b"", 404, "not_found"),
        ("GET", "/v1/nowhere", b"", 404, "not_found"),
        ("GET", CHAT, b"", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", b"", 405, "method_not_allowed"),
        ("POST", "/v1/models/tiny", b"", 405, "method_not_allowed"),
        ("POST", "/health", b"", 405, "method_not_allowed"),
        ("POST", CHAT, b"x" * (2**22 + 1), 413, "too_large"),
        ("POST", CHAT, b"{}", 400, "invalid_request_error"),
    ],
)
def test_every_refusal_has_the_shape_of_openai(
    app: App, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = plain_http.request(method, app.url + path, content=body, headers=headers)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert ("allow" in answer.headers) == (status == 405)


def test_what_is_no_http_is_told_so_in_the_same_shape(app: App) -> None:
    raw = app_raw(app, b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n")

    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "bad_request"


def app_raw(app: App, data: bytes) -> bytes:
    host, _, port = app.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        parts = list(iter(lambda: connection.recv(65536), b""))
    return b"".join(parts)
