"""Reference statistics, which drift is measured against: how proteins and answers lie where nothing has changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.encoders.composition import amino_acid_frequencies
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.prediction import Prediction
from enzyme_stability.sequence import AMINO_ACIDS

if TYPE_CHECKING:
    import pandas as pd

MINIMUM_PROTEINS = 100
"""Distinct proteins below which a histogram of ten bins says little."""

BINS = 10
COVERAGE = 0.9
"""Of the intervals whose widths a predictor's own reference holds."""

GIVEN_GROWTH = "_given_growth_temperature"
"""Ending of the quantities of answers that were given a growth temperature: another head, other widths."""

INPUTS = ("log10_length", *(f"share_of_{residue}" for residue in AMINO_ACIDS), "similarity")
"""Watched quantities of what is asked: residues, amino-acid frequencies, similarity to the nearest known protein."""

_ANSWERS = ("tm_celsius", "interval_width_celsius")
PREDICTIONS = (*_ANSWERS, *(name + GIVEN_GROWTH for name in _ANSWERS))
"""Watched quantities of what is answered, degC."""

COLUMNS = (
    *("sequence_hash", "length", *AMINO_ACIDS, "similarity", "growth_temperature_celsius"),
    *("tm_celsius", "tm_lower_celsius", "tm_upper_celsius", "coverage", "in_domain", "status"),
)
"""Of a table of logged predictions, those that are looked at."""

_DIGITS = 6  # of values and edges, so that equal values stay equal through JSON
_STEP = 10.0**-_DIGITS
_PROTEINS_PER_BIN = 10
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Histogram:
    """One quantity, in bins that hold about equal shares of the proteins; ties never part, so bins may be fewer.

    Attributes:
        edges: Upper ends of all bins but the last, ascending; a value on an edge belongs below it. The outer bins are
            open.
        shares: Of the proteins in each bin, one more than edges, sum 1.
        low: Smallest value.
        high: Largest value.
        n: Proteins.
        mean: Of the values.
        sd: Their standard deviation.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    low: float
    high: float
    n: int
    mean: float
    sd: float

    @classmethod
    def of(cls, values: np.ndarray) -> Histogram:
        """The histogram of finite ``values``, shape (n,), n > 0."""
        values = np.round(values, _DIGITS)
        low, high = float(values.min()), float(values.max())
        bins = min(BINS, max(2, values.size // _PROTEINS_PER_BIN))
        edges = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
        # Ties at the top get a bin of their own, and a constant one between two that are empty: it may move either way.
        edges = np.where(edges == high, high - _STEP, edges)
        edges = np.unique(np.round(np.append(edges, high) if low == high else edges, _DIGITS))
        found = np.bincount(np.searchsorted(edges, values), minlength=edges.size + 1)
        return cls(
            edges=tuple(edges.tolist()),
            shares=tuple(np.round(found / values.size, _DIGITS).tolist()),
            low=low,
            high=high,
            n=values.size,
            mean=round(float(values.mean()), _DIGITS),
            sd=round(float(values.std()), _DIGITS),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Histogram:
        """The histogram as ``dataclasses.asdict`` and JSON leave it; raises ValueError where it cannot be one."""
        given = {key: tuple(map(float, values[key])) for key in ("edges", "shares")}
        numbers = {key: float(values[key]) for key in ("low", "high", "mean", "sd")}
        read = cls(**given, **numbers, n=int(values["n"]))  # type: ignore[arg-type]
        finite = all(map(math.isfinite, (*read.edges, *read.shares, *numbers.values())))
        ascending = list(read.edges) == sorted(set(read.edges)) and read.low <= read.high
        whole = min(read.shares, default=-1) >= 0 and abs(sum(read.shares) - 1) < _TOLERANCE
        if not (finite and ascending and whole and len(read.shares) == len(read.edges) + 1 and read.n > 0):
            raise ValueError("edges and shares do not make a histogram")
        return read

    @property
    def counts(self) -> np.ndarray:
        """Proteins in each bin, shape (bins,)."""
        return np.array(self.shares) * self.n

    def count(self, values: np.ndarray) -> np.ndarray:
        """How many of other ``values`` fall into each bin, shape (bins,)."""
        where = np.searchsorted(self.edges, np.round(values, _DIGITS))
        return np.bincount(where, minlength=len(self.shares))

    def sample(self, n: int) -> np.ndarray:
        """``n`` values that lie as the histogram says and evenly within its bins, ascending, shape (n,)."""
        ends = np.clip([self.low, *self.edges, self.high], self.low, self.high)
        reached = np.cumsum([0.0, *self.shares]) / sum(self.shares)
        values: np.ndarray = np.interp((np.arange(n) + 0.5) / n, reached, ends)
        return values


@dataclass(frozen=True)
class Reference:
    """The watched quantities where nothing has changed: of calibration proteins, or of a quiet time of one's own log.

    Attributes:
        proteins: Distinct proteins.
        coverage: Of the intervals whose widths are kept.
        out_of_domain_share: Of the proteins.
        error_share: Of all rows, those without an answer.
        quantities: Histogram of each; names are among ``INPUTS`` and ``PREDICTIONS``.
    """

    proteins: int
    coverage: float
    out_of_domain_share: float
    error_share: float
    quantities: Mapping[str, Histogram]

    @classmethod
    def of(cls, rows: pd.DataFrame, *, minimum: int = MINIMUM_PROTEINS) -> Reference:
        """The reference that logged predictions of one predictor make.

        Args:
            rows: At least the columns ``COLUMNS``, as ``monitoring.history.logged`` and ``logged_rows`` give them.
            minimum: Distinct proteins that are needed.

        Raises:
            DataError: A column is missing, or there are too few proteins.
        """
        answered = _answered(rows)
        proteins = _distinct(answered)
        if len(proteins) < max(minimum, 1):
            raise DataError(
                f"a reference needs the predictions of at least {max(minimum, 1)} distinct proteins, and there are "
                f"{len(proteins)}: take a longer time"
            )
        coverage = float(answered["coverage"].mode().iloc[0])
        given_growth = _distinct(answered[answered["growth_temperature_celsius"].notna()])
        values = _values(rows, coverage, separate_growth=len(given_growth) >= max(minimum, 1))
        return cls(
            proteins=len(proteins),
            coverage=coverage,
            out_of_domain_share=round(out_of_domain_share(rows), _DIGITS),
            error_share=round(error_share(rows), _DIGITS),
            quantities={name: Histogram.of(found) for name, found in values.items() if found.size >= max(minimum, 1)},
        )

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> Reference:
        """The reference that a predictor carries; of a recalibrated one that of the inputs alone.

        Raises:
            ArtifactError: It was trained before references were kept, or its reference is damaged.
        """
        name, kept = manifest.get("name"), manifest.get("reference")
        if kept is None:
            raise ArtifactError(f"{name} has no reference statistics: train it again")
        reference = cls.from_dict(kept, f"the reference of {name}")
        if "recalibration" not in manifest.get("training", {}):
            return reference
        inputs = {key: value for key, value in reference.quantities.items() if key in INPUTS}
        return cls(**{**vars(reference), "quantities": inputs})  # the answers are no longer those it was made of

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "the reference") -> Reference:
        """The reference as ``to_dict`` and JSON leave it.

        Raises:
            ArtifactError: Something is missing, unknown or no number; the message begins with ``where``.
        """
        try:
            quantities = {str(key): Histogram.from_dict(value) for key, value in values["quantities"].items()}
            if unknown := quantities.keys() - {*INPUTS, *PREDICTIONS}:
                raise ValueError(f"unknown quantities {', '.join(sorted(unknown))}")
            shares = {key: float(values[key]) for key in ("coverage", "out_of_domain_share", "error_share")}
            if not quantities or not all(0 <= share <= 1 for share in shares.values()):
                raise ValueError("a share is not between 0 and 1, or there are no quantities")
            return cls(proteins=int(values["proteins"]), quantities=quantities, **shares)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ArtifactError(f"{where} is damaged: {error!r}") from None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """The reference in a file that ``save`` wrote.

        Raises:
            ArtifactError: It cannot be read or is damaged.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read as a reference: {error}") from None
        return cls.from_dict(values, str(path))

    def save(self, path: Path) -> None:
        """Write it as JSON.

        Raises:
            ArtifactError: The file cannot be written.
        """
        unfinished = path.with_name(f".{path.name}.part")
        try:
            unfinished.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
            unfinished.replace(path)
        except OSError as error:
            raise ArtifactError(f"cannot write to {path}: {error.strerror or error}") from None

    def values(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """What other rows say of each quantity kept here: one finite value a distinct protein, shape (n,) each.

        Widths are those of intervals of the same coverage alone.

        Raises:
            DataError: A column is missing.
        """
        separate = any(name.endswith(GIVEN_GROWTH) for name in self.quantities)
        values = _values(rows, self.coverage, separate_growth=separate)
        return {name: values[name] for name in self.quantities}


def logged_rows(
    residues: Sequence[str],
    predictions: Sequence[Prediction],
    *,
    coverage: float = COVERAGE,
    growth_temperature: Sequence[float | None] | None = None,
) -> pd.DataFrame:
    """What the prediction log would hold of answered sequences: the columns ``COLUMNS``.

    Args:
        residues: Cleaned sequences.
        predictions: Their answers.
        coverage: Of the intervals.
        growth_temperature: degC, None or NaN where none was given.
    """
    import pandas as pd

    rows: dict[str, Any] = {
        "sequence_hash": [hashlib.sha256(one.encode()).hexdigest() for one in residues],
        **dict(zip(AMINO_ACIDS, amino_acid_frequencies(residues).round(4).T, strict=True)),
        **{name: [getattr(one, name) for one in predictions] for name in COLUMNS if name in Prediction.__slots__},
        "growth_temperature_celsius": np.nan if growth_temperature is None else growth_temperature,
        "coverage": coverage,
    }
    return pd.DataFrame(rows)[list(COLUMNS)]


def out_of_domain_share(rows: pd.DataFrame) -> float:
    """Share of the distinct proteins that are unlike those learned from; NaN without any."""
    inside = _numbers(_distinct(_answered(rows)), "in_domain")
    return float(1 - inside.mean()) if inside.size else math.nan


def error_share(rows: pd.DataFrame) -> float:
    """Share of all rows without an answer; NaN without any."""
    return float((rows["status"] == "error").mean()) if len(rows) else math.nan


def distinct_proteins(rows: pd.DataFrame) -> int:
    """How many different proteins were answered."""
    return len(_distinct(_answered(rows)))


def _values(rows: pd.DataFrame, coverage: float, *, separate_growth: bool) -> dict[str, np.ndarray]:
    answered = _answered(rows)
    proteins = _distinct(answered)
    values = {
        "log10_length": np.log10(_numbers(proteins, "length")),
        **{f"share_of_{residue}": _numbers(proteins, residue) for residue in AMINO_ACIDS},
        "similarity": _numbers(proteins, "similarity"),
    }
    given = answered["growth_temperature_celsius"].notna() & separate_growth
    asked = np.isclose(answered["coverage"].to_numpy(dtype=float), coverage)
    for ending, those in (("", ~given), (GIVEN_GROWTH, given)):
        values[f"tm_celsius{ending}"] = _numbers(_distinct(answered[those]), "tm_celsius")
        bounds = _distinct(answered[those & asked])[["tm_lower_celsius", "tm_upper_celsius"]].dropna()
        widths = _numbers(bounds, "tm_upper_celsius") - _numbers(bounds, "tm_lower_celsius")
        values[f"interval_width_celsius{ending}"] = widths
    return values


def _answered(rows: pd.DataFrame) -> pd.DataFrame:
    if missing := [name for name in COLUMNS if name not in rows]:
        raise DataError(f"the table of predictions lacks the columns {', '.join(missing)}")
    return rows[rows["status"] != "error"]


def _distinct(answered: pd.DataFrame) -> pd.DataFrame:
    """The first row of each protein: one that is sent again and again counts once. Without a hash a row is its own."""
    hashes = answered["sequence_hash"]
    return answered[~(hashes.duplicated() & hashes.notna())]


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    values = rows[column].dropna().to_numpy(dtype=float)
    finite: np.ndarray = values[np.isfinite(values)]
    return finite
