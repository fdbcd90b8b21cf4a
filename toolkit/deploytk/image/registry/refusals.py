"""What a registry's final answer means for the user, in words."""

from __future__ import annotations

import httpx

from deploytk.base.errors import ImageError
from deploytk.base.origin import origin_of
from deploytk.image.reference import Reference
from deploytk.image.registry.logins import PASSWORD_VARIABLE, USER_VARIABLE, Login


def refusal(reference: Reference, login: Login | None, response: httpx.Response) -> ImageError:
    host, repository, status = reference.host, reference.repository, response.status_code
    said = _reason(response)
    if origin_of(str(response.request.url)) != origin_of(reference.url):
        elsewhere = response.request.url.host
        return ImageError(f"{elsewhere}, where {host} sends us, answers {status}{said}", hint="run again later")
    # A token that is good, but not for this: https://www.rfc-editor.org/rfc/rfc6750#section-3.1
    lacks_right = "insufficient_scope" in response.headers.get("WWW-Authenticate", "")
    if status == 401 and not (login and lacks_right):
        return refused_login(reference, login)
    if status in (401, 403):
        hint = f"ask for the right to push to {repository}, or log in as somebody who has it: docker login {host}"
        return ImageError(f"{host} does not allow this for {repository}{said}", hint=hint)
    if status == 404:
        return ImageError(f"{host} has no {repository}{said}", hint="create the repository, or check its name")
    if status == 413:
        return ImageError(f"{host} takes no blobs of this size{said}", hint="raise the limit of the registry")
    if response.is_redirect:
        return ImageError(f"{host} redirects without end", hint="check that it is a registry and takes pushes")
    return ImageError(f"{host} answers {status}{said}", hint="check that it is a registry and takes pushes")


def refused_login(reference: Reference, login: Login | None) -> ImageError:
    host = reference.host
    variables = f"{USER_VARIABLE} and {PASSWORD_VARIABLE}"
    if login:
        hint = f"run: docker login {host}   or correct {variables}, which come first"
        return ImageError(f"{host} does not accept the login", hint=hint)
    return ImageError(f"{host} asks for a login", hint=f"run: docker login {host}   or set {variables}")


def _reason(response: httpx.Response) -> str:
    """What the registry says itself, in brackets."""
    try:
        message = response.json()["errors"][0]["message"]
    except (ValueError, LookupError, TypeError, RecursionError, httpx.ResponseNotRead):
        return ""
    words = "".join(letter for letter in str(message)[:200] if letter.isprintable())
    return f" ({words})" if words else ""
