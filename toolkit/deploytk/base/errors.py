"""Every error a user can meet.

    DeployError             1   something failed; `hint` says what to do
    |-- UsageError          2   the command line or a value on it makes no sense
    |-- SettingsError       1   deploytk.toml cannot be used
    |-- ArtifactError       1   a directory holds no model, or a broken one
    |-- PlanError           1   no serving engine can run this model as asked
    |-- TrustError          1   code of a model would run, and nobody said that it may
    |-- WeightsError        1   weight files cannot be read back
    |-- QuantizeError       1   a model cannot be quantized, or what a quantizer wrote cannot be served
    |-- BundleError         1   a bundle cannot be written or no longer matches its manifest
    |-- ImageError          1   a container image cannot be built
    |-- ReleaseError        1   a target refused or lost the upload
    |-- SignatureError      1   something is not signed, or not by whom it should be, or cannot be signed
    |-- EndpointError       1   a server did not start, stopped, or answers wrong
    |-- ScaleError          1   a cluster refused a deployment, or it did not come up there
    `-- TryAgainError      75   nothing is wrong, but not now (locked, no capacity)

The number is the exit code of the command. A budget that is exceeded (3) and a measurement that cannot be
judged (4) are not errors: they are verdicts of a report.
"""

from __future__ import annotations

from typing import ClassVar


class DeployError(Exception):
    """One sentence on what went wrong, and in `hint` one on what to do. Neither ever holds a token."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DeployError):
    exit_code = 2


class SettingsError(DeployError):
    pass


class ArtifactError(DeployError):
    pass


class PlanError(DeployError):
    pass


class TrustError(DeployError):
    """Code would run that came with a model, and nobody said that it may."""


class WeightsError(DeployError):
    pass


class QuantizeError(DeployError):
    pass


class BundleError(DeployError):
    pass


class ImageError(DeployError):
    pass


class ReleaseError(DeployError):
    pass


class SignatureError(DeployError):
    pass


class EndpointError(DeployError):
    pass


class ScaleError(DeployError):
    pass


class TryAgainError(DeployError):
    exit_code = 75
