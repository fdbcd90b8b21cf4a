"""The command that says whether something is what was signed, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploytk.base.errors import UsageError
from deploytk.cli.command import command
from deploytk.cli.defaults import source_argument
from deploytk.cli.options import Signed
from deploytk.cli.session import Session, show, unused

if TYPE_CHECKING:
    from deploytk.signing import Verification, Verifier


@command("deploytk verify ./bundle --key key.pub      or:  HOST/ME/my-model:1, oci:DIR, hf:OWNER/NAME")
def verify(
    source: Annotated[
        str,
        source_argument("DIR|IMAGE|HUB:REPO", "A directory, an image in a registry or oci:DIR, hf: or ms:OWNER/NAME."),
    ],
    signed: Signed,
    signature: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Of a directory; DIR/model.sig.")
    ] = None,
) -> None:
    """Say what is signed, by whom, and which file differs: 0 it is what was signed, 1 it is not."""
    from deploytk.signing import verifier_for

    _require_there(source)
    verifier = verifier_for(signed.key, signed.identity, signed.issuer)
    found = _verify(source, verifier, signature)
    show(found, "show_verification")
    if not found.verified:
        raise typer.Exit(1)


def _require_there(source: str) -> None:
    """Raises UsageError for the path of a directory that is not there, before anything else is asked for."""
    if source.startswith((".", "/")) and not Path(source).exists():
        raise UsageError(f"{source} does not exist", hint="name a directory, an image, or hf:OWNER/NAME")


def _verify(source: str, verifier: Verifier, signature: Path | None) -> Verification:
    from deploytk.artifact.remote import RemoteModel
    from deploytk.signing import verify_directory, verify_image, verify_remote

    directory = Path(source.removeprefix("file://"))
    if directory.exists():
        return verify_directory(directory, verifier, Session.progress, signature)
    unused("signature", because=f"{source} is no directory, and has its signature with it")
    remote = RemoteModel.of(source, Session.settings.mirrors.models)
    if remote:
        return verify_remote(remote, verifier, Session.progress)
    return verify_image(source, verifier)
