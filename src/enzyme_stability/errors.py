"""The one exception family of the package. Messages are for people: what, where, what to do."""

from __future__ import annotations


class EnzymeStabilityError(Exception):
    """Base of every error this package raises on purpose."""


class SequenceError(EnzymeStabilityError):
    """A sequence cannot be used; the message names the residue and the position."""


class VariantError(EnzymeStabilityError):
    """A variant cannot be read or does not fit its wild type; the message names position and residues."""


class UnsupportedVariantError(VariantError):
    """A variant is well formed, but of a kind that no model here knows, as a deletion."""


class DataError(EnzymeStabilityError):
    """A file or table cannot be read or makes no sense; the message names file, line and column."""


class ConfigError(EnzymeStabilityError):
    """A setting is misspelt, missing or out of bounds; the message names it."""


class ArtifactError(EnzymeStabilityError):
    """A saved predictor is incomplete, damaged or from an incompatible version."""


class OverloadedError(EnzymeStabilityError):
    """More is asked for at once than can be answered; the message says when to come back."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooLargeError(EnzymeStabilityError):
    """An input is over a stated limit; the message names the limit."""


class MissingDependencyError(EnzymeStabilityError):
    """An optional part is not installed; the message gives the install command."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the '{extra}' extra: pip install 'enzyme-stability[{extra}]'")
