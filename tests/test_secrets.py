"""Every secret is found wherever it stands in a text of any size; weights and noise raise no alarm."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from conftest import MODELS

from deploytk.publish.secrets import find_secret

TOKEN = "hf_" + "a1" * 17
CHUNK = 4 * 2**20  # as large as the pieces that are read

SECRETS = {
    "a Hugging Face token": [TOKEN],
    "a GitHub token": ["ghp_" + "A1" * 18, "github_pat_" + "a1" * 41],
    "a GitLab token": ["glpat-" + "a1" * 10],
    "a Docker Hub token": ["dckr_pat_" + "a1" * 12],
    "an npm token": ["npm_" + "a1" * 18],
    "a Replicate token": ["r8_" + "a1" * 18 + "a"],
    "a Slack token": ["xoxb-" + "1234-" * 5],
    "a ModelScope token": ["ms-" + "-".join("a1" * (size // 2) for size in (8, 4, 4, 4, 12))],
    "an AWS access key": ["AKIA" + "A" * 16, "ASIA" + "A" * 16],
    "an Alibaba Cloud access key": ["LTAI" + "a1" * 10],
    "a Google API key": ["AIza" + "a1" * 17 + "b"],
    "a key of OpenAI's form": ["sk-" + "a1" * 16, "sk-" + "a1" * 24, "sk-proj-" + "a" * 40, "sk-ant-api03-" + "a" * 60],
    "a PyPI token": ["pypi-AgEI" + "a" * 60],
    "a private key": ["-----BEGIN PRIVATE KEY-----", "-----BEGIN OPENSSH PRIVATE KEY-----"],
    "an OpenXLab key": ["ak = " + "a1" * 10, '"sk" : "' + "a1" * 10 + '"', "OPENXLAB_SK=" + "a1" * 10],
    "an access token": ["access_token=" + "a" * 20, '"AUTH_TOKEN": "' + "a" * 20],
    "a password in an address": ["https://me:hunter2hunter2@example.com/x"],
    "a password of .netrc": ["machine example.com login me password hunter2hunter2"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SECRETS.items() for text in texts])
@pytest.mark.parametrize("ends", [("", ""), ("x = '", "'\n"), ("first line\r\nkey: ", "\r\nlast line")])
def test_every_form_is_found_and_called_by_its_name(
    tmp_path: Path, kind: str, text: str, ends: tuple[str, str]
) -> None:
    (tmp_path / "notes.txt").write_text(f"{ends[0]}{text}{ends[1]}", newline="")

    found = find_secret(tmp_path / "notes.txt")

    assert found
    assert found == (kind, 2 if "\n" in ends[0] else 1)


@pytest.mark.parametrize("at", [0, CHUNK - 40, CHUNK - 20, CHUNK - 1, CHUNK, CHUNK + 4000, 2 * CHUNK + 100])
def test_it_is_found_wherever_pieces_end(tmp_path: Path, at: int) -> None:
    line = b"0123456789abcde\n"
    text = bytearray(line * (3 * CHUNK // len(line)))
    text[at : at + len(TOKEN) + 2] = b"\n" + TOKEN.encode() + b"\n"
    (tmp_path / "large.txt").write_bytes(text)

    found = find_secret(tmp_path / "large.txt")

    assert found == ("a Hugging Face token", text.count(b"\n", 0, at + 1) + 1)


def test_text_in_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(f"first\n{TOKEN}\n", encoding="utf-16")

    assert find_secret(tmp_path / "notes.txt") == ("a Hugging Face token", 2)


def test_of_several_the_first_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(f"AKIA{'A' * 16}\n{TOKEN}\n")

    assert find_secret(tmp_path / "notes.txt") == ("an AWS access key", 1)


def test_what_is_no_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x00" + TOKEN.encode())

    assert find_secret(tmp_path / "tokenizer.model") is None


def test_noise_and_models_raise_no_alarm(tmp_path: Path) -> None:
    (tmp_path / "noise.txt").write_bytes(base64.encodebytes(random.Random(7).randbytes(12 * 2**20)))
    texts = [path for path in MODELS.rglob("*") if path.suffix in (".json", ".jinja", ".md", ".txt", ".ini", ".yaml")]

    assert len(texts) > 20
    assert [path for path in [tmp_path / "noise.txt", *texts] if find_secret(path)] == []
