"""Signs the files of a bundle, and tells whether those of a directory are still what was signed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deploytk.base.digests import hash_files
from deploytk.base.errors import SignatureError
from deploytk.base.files import disk_errors, read_bounded, write_text
from deploytk.base.progress import Progress
from deploytk.bundle import MANIFEST, SIGNATURE, Bundle, verify_bundle, with_signature
from deploytk.signing.dsse import LARGEST_BYTES
from deploytk.signing.files import Difference, SignedFiles, difference, files_in
from deploytk.signing.signers import Signer
from deploytk.signing.value import Verification
from deploytk.signing.verifiers import Verifier


def sign_bundle(bundle: Bundle, signer: Signer, progress: Progress) -> Bundle:
    """The bundle with a signature of all its files beside them (model.sig), in the form of OpenSSF model-signing.

    One that is there and holds, by the same key, is kept. Raises BundleError for a bundle that is not what its manifest
    says, SignatureError when it cannot be signed, or holds a file that would not be published with it.
    """
    verify_bundle(bundle, progress)
    _refuse_strangers(bundle)
    place = bundle.path / SIGNATURE
    if signer.verifier and place.is_file() and _holds(bundle.path, signer.verifier, progress):
        progress.note(f"{SIGNATURE} is there already, by {signer.name}")
        return with_signature(bundle)
    progress.note(f"signing as {signer.name}")
    with disk_errors(place, SignatureError), tempfile.TemporaryDirectory(prefix="deploytk-") as directory:
        made = Path(directory, SIGNATURE)
        signer.sign_directory(bundle.path, made)
        write_text(place, made.read_text(encoding="utf-8"))
    return with_signature(bundle)


def verify_directory(
    directory: Path, verifier: Verifier, progress: Progress, signature: Path | None = None
) -> Verification:
    """What of `directory` differs from what was signed; its signature is model.sig in it, or `signature`.

    Every file is read, none is believed by an earlier reading. Raises SignatureError where there is no signature, or
    none of the right signer.
    """
    place = signature or directory / SIGNATURE
    signed = files_in(verifier.opened(_content(place), str(place)), str(place))
    found = _difference(directory, signed, place, progress)
    return Verification(
        source=str(directory),
        kind="directory",
        verified=found.is_none,
        signed_by=verifier.name,
        compared="every byte of every file",
        files=len(signed.digests),
        changed=found.changed,
        missing=found.missing,
        extra=found.extra,
    )


def _content(place: Path) -> bytes:
    try:
        return read_bounded(place, LARGEST_BYTES)
    except FileNotFoundError as error:
        hint = "sign it: deploytk publish --sign KEY, or name its signature with --signature"
        raise SignatureError(f"{place.parent} has no signature: there is no {place.name}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise SignatureError(f"{place} cannot be read", hint="check the file and its rights") from error


def _holds(directory: Path, verifier: Verifier, progress: Progress) -> bool:
    try:
        return verify_directory(directory, verifier, progress).verified
    except SignatureError:
        return False


def _refuse_strangers(bundle: Bundle) -> None:
    """What lies in the bundle and is not of it would be signed, and be missing wherever it is published."""
    ours = {file.path for file in bundle.files} | {MANIFEST}
    nothing = SignedFiles({}, ())
    found = [path for path, _ in _files(bundle.path) if path not in ours and nothing.covers(path)]
    if found:
        hint = "move it out of the bundle, or package the model again"
        raise SignatureError(f"{bundle.path / found[0]} is not part of the bundle and would be signed", hint=hint)


def _difference(directory: Path, signed: SignedFiles, signature: Path, progress: Progress) -> Difference:
    places = dict(_files(directory))
    places = {path: place for path, place in places.items() if not _is_same(place, signature)}
    wanted = {path: place for path, place in places.items() if path in signed.digests and place.is_file()}
    digests = hash_files(list(wanted.values()), "verifying", progress, anew=True)
    return difference(signed, {path: digests.get(places[path]) for path in places})


def _is_same(place: Path, other: Path) -> bool:
    return place.absolute() == other.absolute()


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Everything that is no directory, hidden ones and links as well, by its path from `directory` with /."""
    if not directory.is_dir():
        raise SignatureError(f"{directory} is no directory", hint="name a bundle, or the directory of a model")
    for place, directories, names in os.walk(directory, onerror=_unreadable):
        links = [name for name in directories if Path(place, name).is_symlink()]
        for name in (*names, *links):
            found = Path(place, name)
            yield found.relative_to(directory).as_posix(), found


def _unreadable(error: OSError) -> None:
    raise SignatureError(f"{error.filename} cannot be read: {error.strerror}", hint="check its rights") from error
