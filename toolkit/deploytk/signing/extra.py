"""What signing needs that is not installed with everything else."""

from __future__ import annotations

from importlib.util import find_spec

from deploytk.base.errors import UsageError


def require_extra() -> None:
    """Raises UsageError where the extra is missing. model-signing forgets that it needs OpenSSL."""
    missing = [name for name in ("model_signing", "OpenSSL", "cryptography") if find_spec(name) is None]
    if missing:
        raise UsageError(f"signatures need {', '.join(missing)}", hint="pip install 'deploytk[sign]'")
