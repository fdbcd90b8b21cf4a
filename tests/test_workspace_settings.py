"""Every key of a workspace's configuration means what it meant to the LMDeploy that wrote it, or is refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from recitation import right_answers
from workspaces import INI_KEYS, YAML_KEYS

from deploytk.artifact import Artifact, read_artifact
from deploytk.base.errors import WeightsError
from deploytk.base.progress import Silent
from deploytk.modernize import ModernizeOptions, modernize
from deploytk.plan import PlanRequest, plan_serving

INI = "workspace-0.4.2-awq"
_LORA = ("lora_policy", "lora_r", "lora_scale", "lora_max_wo_r", "lora_rank_pattern", "lora_scale_pattern")
_LATER = {
    "0.0.14": (*_LORA, "enable_prefix_caching", "cache_block_seq_len", "rope_scaling_factor", "num_tokens_per_iter",
               "max_prefill_iters", "extra_tokens_per_iter"),
    "0.1.0": (*_LORA, "enable_prefix_caching", "use_dynamic_ntk", "num_tokens_per_iter", "max_prefill_iters",
              "extra_tokens_per_iter"),
    "0.2.6": (*_LORA, "enable_prefix_caching", "use_dynamic_ntk"),
    "0.3.0": (*_LORA, "enable_prefix_caching"),
    "0.4.2": (),
    "0.5.3": ("extra_tokens_per_iter",),
}  # fmt: skip
_ADDED = {
    "0.5.3": {"model_arch": "LlamaForCausalLM", "low_freq_factor": 1.0, "high_freq_factor": 1.0,
              "rope_scaling_type": "", "max_prefill_token_num": 8192, "original_max_position_embeddings": 0},
}  # fmt: skip


def edited(root: Path, version: str, **changes: object) -> Path:
    """The tiny workspace with the keys of `version`, and those changes of them."""
    path = root / "triton_models/weights/config.ini"
    text = path.read_text()
    for key in _LATER[version]:
        text = re.sub(rf"(?m)^{key} =.*\n", "", text)
    for key, value in (_ADDED.get(version, {}) | changes).items():
        line = f"{key} = {value}\n"
        found = re.compile(rf"(?m)^{key} =.*\n")
        text = found.sub(line, text) if found.search(text) else text.rstrip("\n") + "\n" + line
    path.write_text(text)
    return root


def rope_of(artifact: Artifact) -> dict[str, object]:
    return dict(artifact.rope.scaling)


@pytest.mark.parametrize(
    ("version", "changes", "expected"),
    [
        ("0.0.14", {"use_dynamic_ntk": 1}, {"rope_type": "dynamic", "factor": 2.0}),
        ("0.0.14", {"use_dynamic_ntk": 0}, {}),
        # 0.1.0 to 0.2.6: the factor alone, and only from 1 on
        ("0.1.0", {"rope_scaling_factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
        ("0.2.6", {"rope_scaling_factor": 1.0}, {"rope_type": "dynamic", "factor": 1.0}),
        ("0.2.6", {"rope_scaling_factor": 0.5}, {}),
        ("0.2.6", {"rope_scaling_factor": 0.0}, {}),
        # from 0.3.0 on the flag says which
        ("0.3.0", {"rope_scaling_factor": 2.0, "use_dynamic_ntk": 1}, {"rope_type": "dynamic", "factor": 2.0}),
        ("0.3.0", {"rope_scaling_factor": 2.0, "use_dynamic_ntk": 0}, {"rope_type": "linear", "factor": 2.0}),
        ("0.4.2", {"rope_scaling_factor": 0.0, "use_dynamic_ntk": 1}, {}),
        # from 0.5.2 on linear has to be named
        ("0.5.3", {"rope_scaling_factor": 2.0}, {}),
        ("0.5.3", {"rope_scaling_factor": 2.0, "rope_scaling_type": "linear"}, {"rope_type": "linear", "factor": 2.0}),
        (
            "0.5.3",
            {"rope_scaling_factor": 2.0, "use_dynamic_ntk": 1, "rope_scaling_type": "dynamic"},
            {"rope_type": "dynamic", "factor": 2.0},
        ),
        ("0.5.3", {"rope_scaling_factor": 2.0, "rope_scaling_type": "dynamic"}, {}),
        (
            "0.5.3",
            {
                "rope_scaling_factor": 8.0,
                "rope_scaling_type": "llama3",
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192.0,
            },
        ),
    ],
)
def test_a_factor_means_what_the_version_made_of_it(model_copy, version, changes, expected) -> None:
    artifact = read_artifact(edited(model_copy(INI), version, **changes))

    assert rope_of(artifact) == expected


@pytest.mark.parametrize(
    ("version", "changes", "newest"),
    [
        ("0.2.6", {"rope_scaling_factor": 2.0}, "0.2.6"),  # 0.3.0 would take it for linear
        ("0.2.6", {}, "0.4.2"),
        ("0.4.2", {"rope_scaling_factor": 2.0}, "0.4.2"),
    ],
)
def test_a_version_that_scales_otherwise_is_not_offered(model_copy, version, changes, newest) -> None:
    artifact = read_artifact(edited(model_copy(INI), version, **changes))

    assert artifact.lmdeploy.max == newest


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("0.2.6", {"rope_scaling_factor": 2.0}),
        ("0.3.0", {"rope_scaling_factor": 2.5}),
        ("0.4.2", {"rope_scaling_factor": 2.0, "use_dynamic_ntk": 1}),
        ("0.5.3", {"rope_scaling_factor": 4.0, "rope_scaling_type": "linear"}),
    ],
)
def test_flags_repeat_the_scaling_where_the_server_ignores_the_file(model_copy, version, changes) -> None:
    plan = plan_serving(read_artifact(edited(model_copy(INI), version, **changes)), PlanRequest(gpu="A100-80G"))

    at = plan.argv.index("--rope-scaling-factor")
    assert plan.argv[at + 1] == str(changes["rope_scaling_factor"])


def test_a_server_that_reads_the_file_gets_no_flag(model_copy) -> None:
    root = edited(model_copy(INI), "0.1.0", rope_scaling_factor=2.0)

    plan = plan_serving(read_artifact(root), PlanRequest(gpu="A100-80G"))

    assert "--rope-scaling-factor" not in plan.argv


def test_logn_attention_that_the_server_switches_off_is_said(model_copy) -> None:
    root = edited(model_copy(INI), "0.4.2", use_logn_attn=1, session_len=8192)

    plan = plan_serving(read_artifact(root), PlanRequest(gpu="A100-80G"))

    assert any("use_logn_attn" in note and "2048" in note for note in plan.notes)


def test_scaling_without_positions_is_a_problem(model_copy) -> None:
    root = edited(model_copy(INI), "0.0.14", use_dynamic_ntk=1, max_position_embeddings=0)

    found = [problem for problem in read_artifact(root).problems if "embeddings is 0" in problem.message]

    assert [problem.level for problem in found] == ["warning"]
    with pytest.raises(WeightsError, match="max_position_embeddings"):
        modernize(read_artifact(root), root.parent / "out", ModernizeOptions(), Silent())


# -- modernize ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("0.2.6", {"rope_scaling_factor": 2.0}),
        ("0.0.14", {"use_dynamic_ntk": 1}),
        ("0.1.0", {"rope_scaling_factor": 3.0}),
    ],
)
def test_dynamic_scaling_is_written_as_dynamic(model_copy, tmp_path, version, changes) -> None:
    root = edited(model_copy(INI), version, session_len=8192, **changes)

    modernize(read_artifact(root), tmp_path / "out", ModernizeOptions(), Silent())

    config = json.loads((tmp_path / "out/config.json").read_text())
    factor = changes.get("rope_scaling_factor", 2.0)
    assert config["rope_parameters"] == {"rope_type": "dynamic", "factor": factor, "rope_theta": 10000.0}
    assert config["rope_scaling"].items() >= {"type": "dynamic", "factor": factor}.items()
    assert config["max_position_embeddings"] == 2048


@pytest.mark.parametrize(
    ("key", "value"),
    [("lora_r", 8), ("lora_policy", "plora"), ("use_logn_attn", 1), ("a_key_of_tomorrow", 1), ("lora_max_wo_r", 4)],
)
def test_what_cannot_be_carried_over_is_refused_by_its_name(model_copy, tmp_path, key, value) -> None:
    root = edited(model_copy(INI), "0.4.2", session_len=8192, **{key: value})

    with pytest.raises(WeightsError, match=key):
        modernize(read_artifact(root), tmp_path / "out", ModernizeOptions(), Silent())

    assert not list(tmp_path.glob(".out*"))


def test_logn_attention_changes_nothing_in_short_sessions(model_copy, tmp_path) -> None:
    root = edited(model_copy(INI), "0.0.14", use_logn_attn=1, use_dynamic_ntk=1, session_len=8192)

    modernize(read_artifact(root), tmp_path / "out", ModernizeOptions(session_len=2048), Silent())

    assert json.loads((tmp_path / "out/config.json").read_text())["max_position_embeddings"] == 2048


@pytest.mark.parametrize("version", INI_KEYS)
def test_every_key_of_config_ini_is_known(version: str) -> None:
    from deploytk.modernize import settings

    known = {*settings._CARRIED, *settings._SERVING, *settings._NEUTRAL, *settings._OF_EXPERTS}

    assert set(INI_KEYS[version]) <= known


@pytest.mark.parametrize("version", YAML_KEYS)
def test_every_key_of_config_yaml_is_known(version: str) -> None:
    from deploytk.modernize import settings

    known = {*settings._CARRIED, *settings._SERVING, *settings._NEUTRAL, *settings._OF_EXPERTS}

    assert set(YAML_KEYS[version]) <= known


@pytest.mark.parametrize(
    ("rope", "positions", "expected"),
    [
        ({"type": "dynamic", "factor": 4.0}, 2048, {"rope_type": "dynamic", "factor": 4.0}),
        ({"type": "linear", "factor": 4.0}, 2048, {"rope_type": "linear", "factor": 4.0}),
        (
            {"type": "yarn", "factor": 4.0, "max_position_embeddings": 512, "attention_factor": 1.1, "beta_fast": 32,
             "beta_slow": 1},
            2048,
            {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.1,
             "original_max_position_embeddings": 512.0},
        ),
        # the factor stands for itself where the positions are the original ones: today's servers would divide them
        (
            {"type": "yarn", "factor": 4.0, "max_position_embeddings": 2048, "attention_factor": 1.1, "beta_fast": 32,
             "beta_slow": 1},
            2048,
            {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.1},
        ),
    ],
)  # fmt: skip
def test_nested_scaling_is_carried_whole(model_copy, rope, positions, expected) -> None:
    root = model_copy("workspace-0.9.2-awq")
    path = root / "triton_models/weights/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["attention_config"]["rope_param"] |= rope
    config["attention_config"]["max_position_embeddings"] = positions
    path.write_text(yaml.safe_dump(config))

    assert rope_of(read_artifact(root)) == expected


def test_yarn_of_flat_keys_is_carried_whole(model_copy) -> None:
    root = model_copy("workspace-0.7.3-awq")
    path = root / "triton_models/weights/config.yaml"
    config = yaml.safe_load(path.read_text())
    config["attention_config"] |= {"rope_scaling_type": "yarn", "rope_scaling_factor": 4.0, "beta_fast": 16.0}
    path.write_text(yaml.safe_dump(config))

    # attention_factor -1 in the file stands for what follows from the factor
    expected = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "beta_slow": 1.0}
    assert rope_of(read_artifact(root)) == expected


@pytest.mark.engine
@pytest.mark.parametrize(
    ("version", "changes"),
    [
        ("0.0.14", {"use_dynamic_ntk": 1}),
        ("0.1.0", {"rope_scaling_factor": 2.0}),
        ("0.2.6", {"rope_scaling_factor": 1.0}),
        ("0.3.0", {"rope_scaling_factor": 4.0, "use_dynamic_ntk": 1}),
        ("0.5.3", {"rope_scaling_factor": 4.0}),  # without a type it does nothing
    ],
)
def test_short_answers_stay_what_they_were_before_scaling_begins(model_copy, tmp_path, version, changes) -> None:
    root = edited(model_copy(INI), version, session_len=8192, **changes)

    modernize(read_artifact(root), tmp_path / "out", ModernizeOptions(to_fp16=True), Silent())

    assert right_answers(tmp_path / "out") == 8
