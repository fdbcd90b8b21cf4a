"""A bundle is signed as OpenSSF's model-signing does; whatever differs from what was signed is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from bundles import given_bundle, make_bundle
from commands import run
from conftest import MODELS

from deploytk.base.digests import hash_files
from deploytk.base.progress import Silent
from deploytk.bundle import Bundle, read_bundle

# Looked for, not imported by all that collect tests: that takes a second.
pytestmark = pytest.mark.skipif(not all(map(find_spec, ("model_signing", "OpenSSL"))), reason="needs deploytk[sign]")

PASSWORD = "a password that nobody sees"


def write_key(place: Path, curve: str = "SECP256R1", password: str | None = None) -> Path:
    """A private key, and beside it the public one: NAME.pub."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(getattr(ec, curve)())
    form = serialization.PrivateFormat.PKCS8
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    place.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    place.with_suffix(".pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    return place


def official(*words: str) -> subprocess.CompletedProcess[str]:
    """model-signing's own command."""
    return subprocess.run([sys.executable, "-m", "model_signing", *words], capture_output=True, text=True)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "key.pem")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return given_bundle(MODELS / "hf-awq", tmp_path / "bundle")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def _publish(bundle: Path, key: Path, hub: Path, *more: str) -> Path:
    """Sign and publish into a directory; the directory of what was published."""
    done = run("publish", str(bundle), "--target", "local", "--repo", str(hub), "--sign", str(key), "--json", *more)
    assert done.code == 0, done.stderr
    return Path(json.loads(done.stdout)["url"].removeprefix("file://"))


def _verify(place: Path, key: Path, *more: str) -> tuple[int, dict[str, object], str]:
    done = run("verify", str(place), "--key", str(key.with_suffix(".pub")), "--json", *more)
    return done.code, json.loads(done.stdout), done.stderr


@pytest.fixture
def signed(bundle: Bundle, key: Path, hub: Path) -> Path:
    _publish(bundle.path, key, hub)
    return bundle.path


def test_what_is_published_with_sign_verifies_here_and_where_it_went(bundle: Bundle, key: Path, hub: Path) -> None:
    there = _publish(bundle.path, key, hub)

    for place in (bundle.path, there):
        code, found, _ = _verify(place, key)
        # All files of the manifest, and deploytk.json itself.
        assert (code, found["verified"], found["files"]) == (0, True, len(bundle.files) + 1)
        assert str(found["signed_by"]).startswith("the key sha256:")


def test_the_command_of_model_signing_takes_our_signature(signed: Path, key: Path) -> None:
    done = official(
        "verify",
        "key",
        str(signed),
        "--signature",
        str(signed / "model.sig"),
        "--public_key",
        str(key.with_suffix(".pub")),
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_we_take_the_signature_of_the_command_of_model_signing(bundle: Bundle, key: Path) -> None:
    place = bundle.path / "model.sig"
    done = official("sign", "key", str(bundle.path), "--private_key", str(key), "--signature", str(place))
    assert done.returncode == 0, done.stdout + done.stderr

    assert _verify(bundle.path, key)[0] == 0


def test_we_take_the_signature_of_any_directory_beside_it(tmp_path: Path, key: Path) -> None:
    model, place = tmp_path / "model", tmp_path / "elsewhere.sig"
    (model / "sub").mkdir(parents=True)
    (model / "sub" / "a.bin").write_bytes(b"1")
    done = official("sign", "key", str(model), "--private_key", str(key), "--signature", str(place))
    assert done.returncode == 0, done.stdout + done.stderr

    assert _verify(model, key, "--signature", str(place))[1]["files"] == 1


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_both_agree_for_every_curve(bundle: Bundle, tmp_path: Path, curve: str) -> None:
    key = write_key(tmp_path / "other.pem", curve)
    _publish(bundle.path, key, tmp_path / "hub")

    public = str(key.with_suffix(".pub"))
    done = official(
        "verify", "key", str(bundle.path), "--signature", str(bundle.path / "model.sig"), "--public_key", public
    )
    assert (done.returncode, _verify(bundle.path, key)[0]) == (0, 0)


def _flip(root: Path) -> None:
    """One bit in the middle of the weights, with the time of before."""
    place = root / "model.safetensors"
    before, content = place.stat(), bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.unlink()  # not the model's own file, of which it is a hard link
    place.write_bytes(content)
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))


def _cut(root: Path) -> None:
    text = (root / "README.md").read_bytes()
    (root / "README.md").write_bytes(text[:-1])


CHANGES: dict[str, tuple[Callable[[Path], object], str, list[str]]] = {
    "a flipped bit": (_flip, "changed", ["model.safetensors"]),
    "a byte less": (_cut, "changed", ["README.md"]),
    "a manifest of others": (lambda root: (root / "deploytk.json").write_text("{}"), "changed", ["deploytk.json"]),
    "a file less": (lambda root: (root / "tokenizer.json").unlink(), "missing", ["tokenizer.json"]),
    "a file more": (lambda root: (root / "evil.py").write_text("1"), "extra", ["evil.py"]),
    "a hidden file more": (lambda root: (root / ".evil").write_text("1"), "extra", [".evil"]),
    "a module more": (
        lambda root: (root / "deploytk_app" / "evil.py").write_text("1"), "extra", ["deploytk_app/evil.py"],
    ),
    "compiled code": (
        lambda root: ((root / "__pycache__").mkdir(), (root / "__pycache__" / "app.pyc").write_bytes(b"1")),
        "extra",
        ["__pycache__/app.pyc"],
    ),
    "a link more": (lambda root: (root / "more").symlink_to("/etc"), "extra", ["more"]),
    "a link that leads nowhere": (lambda root: (root / "lost").symlink_to("nowhere"), "extra", ["lost"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_named(signed: Path, key: Path, name: str) -> None:
    change, how, paths = CHANGES[name]
    change(signed)

    code, found, _ = _verify(signed, key)

    assert (code, found["verified"], found[how]) == (1, False, paths)
    assert {kind: found[kind] for kind in ("changed", "missing", "extra") if kind != how and found[kind]} == {}


def test_a_file_that_seems_unchanged_is_read_again(tmp_path: Path, key: Path) -> None:
    """Same place on the disk, same size, same time: what was remembered of it is not believed."""
    model, place = tmp_path / "model", tmp_path / "model" / "weights.bin"
    model.mkdir()
    place.write_bytes(b"right")
    os.utime(place, (1, 1))
    done = official("sign", "key", str(model), "--private_key", str(key), "--signature", str(model / "model.sig"))
    assert (done.returncode, _verify(model, key)[0]) == (0, 0)
    hash_files([place], "remembering", Silent())

    with place.open("r+b") as file:
        file.write(b"wrong")
    os.utime(place, (1, 1))

    code, found, _ = _verify(model, key)
    assert (code, found["changed"]) == (1, ["weights.bin"])


def test_what_cannot_be_signed_anew_keeps_its_signature(
    signed: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = (signed / "model.sig").read_bytes()
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))

    done = run("publish", str(signed), "--target", "local", "--repo", str(hub), "--sign", "sigstore")

    assert done.code == 1
    assert (signed / "model.sig").read_bytes() == before


def test_a_plan_signs_nothing(bundle: Bundle, key: Path, hub: Path) -> None:
    words = ["publish", str(bundle.path), "--target", "local", "--repo", str(hub), "--plan"]

    assert run(*words, "--sign", str(key)).code == 0
    assert run(*words, "--sign", str(key.with_suffix(".none"))).code == 1
    assert not (bundle.path / "model.sig").exists()


def test_a_renamed_file_is_missing_and_extra(signed: Path, key: Path) -> None:
    (signed / "tokenizer.json").rename(signed / "other.json")

    code, found, _ = _verify(signed, key)

    assert (code, found["missing"], found["extra"]) == (1, ["tokenizer.json"], ["other.json"])


def test_a_link_in_the_place_of_a_file_with_the_same_bytes_is_still_what_was_signed(signed: Path, key: Path) -> None:
    """As in the cache of a hub, where every file is a link to its blob."""
    (signed / "README.md").rename(signed.parent / "blob")
    (signed / "README.md").symlink_to(signed.parent / "blob")

    assert _verify(signed, key)[0] == 0


def test_what_git_and_downloads_leave_is_no_difference(signed: Path, key: Path) -> None:
    (signed / ".gitattributes").write_text("*.safetensors filter=lfs")
    (signed / ".cache" / "huggingface").mkdir(parents=True)
    (signed / ".cache" / "huggingface" / "download.lock").write_text("")

    assert _verify(signed, key)[0] == 0


def _error(place: Path, key: Path, *more: str) -> str:
    code, found, stderr = _verify(place, key, *more)
    assert code == 1
    assert "Traceback" not in stderr
    error = found["error"]
    assert isinstance(error, dict)
    return str(error["what"])


def test_another_key_is_another_signer(signed: Path, tmp_path: Path) -> None:
    assert "model.sig is not signed by the key sha256:" in _error(signed, write_key(tmp_path / "other.pem"))


def test_the_signature_of_another_bundle_names_what_differs(signed: Path, key: Path, tmp_path: Path) -> None:
    other = given_bundle(MODELS / "hf-fp16", tmp_path / "second")
    (other.path / "model.sig").write_bytes((signed / "model.sig").read_bytes())

    code, found, _ = _verify(other.path, key)

    assert code == 1
    assert {"config.json", "deploytk.json", "model.safetensors"} <= {*found["changed"]}  # type: ignore[misc]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "{}",
        lambda text: "[]",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: text.replace("dsseEnvelope", "other"),
        lambda text: text.replace("application/vnd.in-toto+json", "text/plain"),
        lambda text: json.dumps(json.loads(text) | {"mediaType": 5}),
        lambda text: text.replace('"payload"', '"payload": "", "payload"', 1),
    ],
    ids=range(10),
)
def test_a_damaged_signature_is_refused_in_a_sentence(signed: Path, key: Path, damage: Callable[[str], str]) -> None:
    place = signed / "model.sig"
    place.write_text(damage(place.read_text()))

    assert "model.sig is no signature that can be read" in _error(signed, key)


def test_a_statement_that_was_changed_is_not_signed(signed: Path, key: Path) -> None:
    import base64

    place = signed / "model.sig"
    content = json.loads(place.read_text())
    payload = base64.b64decode(content["dsseEnvelope"]["payload"]).replace(b"README.md", b"README.me")
    content["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    place.write_text(json.dumps(content))

    assert "is not signed by the key" in _error(signed, key)


def test_without_a_signature_there_is_none(bundle: Bundle, key: Path) -> None:
    assert "has no signature: there is no model.sig" in _error(bundle.path, key)


def test_a_signature_as_large_as_a_disk_is_not_read(signed: Path, key: Path) -> None:
    with (signed / "model.sig").open("wb") as file:
        file.truncate(2**33)

    assert "model.sig cannot be read" in _error(signed, key)


def test_signing_again_keeps_the_signature_that_is_there(signed: Path, key: Path, hub: Path) -> None:
    before = (signed / "model.sig").read_bytes()

    _publish(signed, key, hub)

    assert (signed / "model.sig").read_bytes() == before


def test_another_key_signs_anew(signed: Path, tmp_path: Path, hub: Path) -> None:
    other = write_key(tmp_path / "other.pem")

    there = _publish(signed, other, hub)

    assert _verify(there, other)[0] == 0


def test_a_file_that_is_not_of_the_bundle_is_not_signed(bundle: Bundle, key: Path, hub: Path) -> None:
    (bundle.path / ".notes").write_text("mine")

    done = run("publish", str(bundle.path), "--target", "local", "--repo", str(hub), "--sign", str(key))

    assert done.code == 1
    assert ".notes is not part of the bundle and would be signed" in done.stderr
    assert not hub.exists()


def test_the_signature_of_a_model_is_not_taken_for_that_of_its_bundle(
    model_copy: Callable[[str], Path], tmp_path: Path, key: Path
) -> None:
    model = model_copy("hf-awq")
    (model / "model.sig").write_text("{}")

    made = make_bundle(model, tmp_path / "bundle")

    assert not (made.path / "model.sig").exists()
    assert read_bundle(made.path).digest == made.digest


@pytest.mark.parametrize("as_variable", [True, False], ids=["with its password", "without"])
def test_the_password_of_a_key_is_no_argument(
    bundle: Bundle, tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, as_variable: bool
) -> None:
    key = write_key(tmp_path / "locked.pem", password=PASSWORD)
    if as_variable:
        monkeypatch.setenv("DEPLOYTK_SIGN_PASSWORD", PASSWORD)

    done = run("publish", str(bundle.path), "--target", "local", "--repo", str(hub), "--sign", str(key))

    assert done.code == (0 if as_variable else 2)
    assert PASSWORD not in done.stdout + done.stderr
    assert as_variable or "set DEPLOYTK_SIGN_PASSWORD" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
        (b"-----BEGIN PUBLIC KEY-----\n", "it is a PEM file of PUBLIC KEY"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "cosign import-key-pair --key key.pem"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "ssh-keygen -p -m PEM -f COPY"),
        (b"-----BEGIN CERTIFICATE-----\n", "openssl x509 -in certificate.pem -pubkey"),
        (b"0\x81\x87\x02", "it is no PEM file"),
        (bytes(2**17), "cannot be read: it is larger than 64 KiB"),
        (None, "cannot be read: No such file"),
    ],
    ids=["empty", "broken", "public", "cosign's", "OpenSSH's", "certificate", "DER", "large", "missing"],
)
def test_a_key_that_is_none_is_refused_before_anything_is_sent(
    bundle: Bundle, tmp_path: Path, hub: Path, content: bytes | None, words: str
) -> None:
    key = tmp_path / "bad.pem"
    if content is not None:
        key.write_bytes(content)

    done = run("publish", str(bundle.path), "--target", "local", "--repo", str(hub), "--sign", str(key))

    assert done.code == 1
    assert words in done.stderr
    assert not hub.exists()


def test_a_wrong_password_and_a_key_of_another_kind_are_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    locked, other = write_key(tmp_path / "locked.pem", password=PASSWORD), tmp_path / "ed.pem"
    monkeypatch.setenv("DEPLOYTK_SIGN_PASSWORD", "wrong")
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key = ed25519.Ed25519PrivateKey.generate()
    other.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))

    for path, words in ((locked, "does not open with this password"), (other, "is not a key of the curves P-256")):
        done = run("publish", str(bundle.path), "--target", "local", "--repo", str(tmp_path / "h"), "--sign", str(path))
        assert (done.code, words in done.stderr) == (1, True), done.stderr


def test_a_directory_is_no_key(bundle: Bundle, tmp_path: Path, hub: Path) -> None:
    done = run("publish", str(bundle.path), "--target", "local", "--repo", str(hub), "--sign", str(tmp_path))

    assert (done.code, "cannot be read: it is no file" in done.stderr) == (1, True), done.stderr


def test_a_certificate_is_no_public_key(signed: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----\n")

    done = run("verify", str(signed), "--key", str(certificate))

    assert (done.code, "holds no public key" in done.stderr) == (1, True)
    assert "openssl x509" in done.stderr


def test_a_private_key_is_no_public_one(signed: Path, key: Path) -> None:
    done = run("verify", str(signed), "--key", str(key))

    assert done.code == 1
    assert "is a private key" in done.stderr


def test_sigstore_says_honestly_that_there_is_no_network(
    bundle: Bundle, hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))

    done = run("publish", str(bundle.path), "--target", "local", "--repo", str(hub), "--sign", "sigstore")

    assert done.code == 1
    assert "Sigstore" in done.stderr
    assert not hub.exists()


def test_who_must_have_signed_has_to_be_said(signed: Path, key: Path) -> None:
    public = str(key.with_suffix(".pub"))

    for words in ([], ["--identity", "me@example.com"], ["--key", public, "--identity", "me", "--issuer", "https://x"]):
        done = run("verify", str(signed), *words)
        assert (done.code, "give --key PUB, or --identity WHO and --issuer URL" in done.stderr) == (2, True)


def test_without_the_extra_it_is_said_what_to_install(signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploytk.signing.extra.find_spec", lambda name: None if name == "OpenSSL" else object())

    done = run("verify", str(signed), "--key", str(key.with_suffix(".pub")))

    assert done.code == 2
    assert "signatures need OpenSSL" in done.stderr
    assert "pip install 'deploytk[sign]'" in done.stderr
