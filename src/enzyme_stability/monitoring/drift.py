"""Drift: do the proteins that are asked for, and the answers they get, still lie as those of a reference do?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from enzyme_stability.errors import MissingDependencyError
from enzyme_stability.reference import (
    INPUTS,
    MINIMUM_PROTEINS,
    Histogram,
    Reference,
    distinct_proteins,
    error_share,
    out_of_domain_share,
)

if TYPE_CHECKING:
    import pandas as pd

PSI_THRESHOLD = 0.2
"""Population stability index from which a quantity has moved far enough to matter; customary are 0.1 to 0.25."""

SIGNIFICANCE = 0.01
"""Chance of any false alarm at all, over all quantities of a report."""

Verdict = Literal["too few", "no drift", "drift", "shift of predictions"]


@dataclass(frozen=True)
class QuantityDrift:
    """How far one quantity has moved.

    Attributes:
        name: Among ``reference.INPUTS`` and ``reference.PREDICTIONS``.
        of: Whether it belongs to what is asked or to what is answered.
        n: Distinct proteins with a value.
        psi: Population stability index over the bins of the reference; None for too few proteins.
        p_value: Of the chi-square test that both are drawn from one population, after Holm over all quantities.
        mean: Of the values; None without any.
        reference_mean: Of the reference.
        reference_sd: Standard deviation of the reference.
        drifted: Whether both the index is over its threshold and the test significant.
    """

    name: str
    of: Literal["inputs", "predictions"]
    n: int
    psi: float | None
    p_value: float | None
    mean: float | None
    reference_mean: float
    reference_sd: float
    drifted: bool


@dataclass(frozen=True)
class Share:
    """A share and what it is in the reference; None without any rows."""

    value: float | None
    expected: float


@dataclass(frozen=True)
class DriftReport:
    """What ``drift`` found.

    Attributes:
        verdict: ``too few`` proteins to tell; ``drift`` where a quantity of the inputs has moved; ``shift of
            predictions`` where only answers have; else ``no drift``.
        rows: All of them, repeats and errors included.
        proteins: Distinct proteins that were answered.
        reference_proteins: Those of the reference.
        quantities: All that the reference watches.
        out_of_domain: Share of the proteins.
        errors: Share of the rows.
        psi_threshold: As asked.
        significance: As asked.
        minimum_proteins: As asked.
    """

    verdict: Verdict
    rows: int
    proteins: int
    reference_proteins: int
    quantities: tuple[QuantityDrift, ...]
    out_of_domain: Share
    errors: Share
    psi_threshold: float
    significance: float
    minimum_proteins: int

    @property
    def drifted(self) -> list[str]:
        """Names of the quantities that have moved, the farthest first."""
        moved = [one for one in self.quantities if one.drifted]
        return [one.name for one in sorted(moved, key=lambda one: -(one.psi or 0))]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {**asdict(self), "quantities": [asdict(one) for one in self.quantities], "drifted": self.drifted}


def drift(
    reference: Reference,
    rows: pd.DataFrame,
    *,
    psi_threshold: float = PSI_THRESHOLD,
    significance: float = SIGNIFICANCE,
    minimum_proteins: int = MINIMUM_PROTEINS,
) -> DriftReport:
    """Compare logged predictions of one predictor with a reference.

    A quantity has drifted when it has moved far (population stability index) and surely (chi-square test, corrected by
    Holm's method for the number of quantities): many proteins do not make an alarm of a trifle, few not one of chance.
    Every distinct protein counts once, however often it was sent.

    Args:
        reference: The predictor's own, or of a quiet time of one's own log.
        rows: As ``monitoring.history.logged`` gives them.
        psi_threshold: Index from which a quantity has moved far enough to matter.
        significance: Chance of a false alarm over all quantities.
        minimum_proteins: Distinct proteins below which nothing is judged, as a whole and for each quantity.

    Raises:
        DataError: A column is missing.
        MissingDependencyError: SciPy is not installed.
    """
    values = reference.values(rows)
    proteins = distinct_proteins(rows)
    judged = {name: reference.quantities[name] for name, found in values.items() if found.size >= minimum_proteins}
    p_values = dict(zip(judged, _holm([_p_value(judged[name], values[name]) for name in judged]), strict=True))
    quantities = tuple(
        _quantity(name, kept, values[name], p_values.get(name), psi_threshold, significance)
        for name, kept in reference.quantities.items()
    )
    return DriftReport(
        verdict=_verdict(quantities) if proteins >= minimum_proteins else "too few",
        rows=len(rows),
        proteins=proteins,
        reference_proteins=reference.proteins,
        quantities=quantities,
        out_of_domain=Share(_known(out_of_domain_share(rows)), reference.out_of_domain_share),
        errors=Share(_known(error_share(rows)), reference.error_share),
        psi_threshold=psi_threshold,
        significance=significance,
        minimum_proteins=minimum_proteins,
    )


def stability_indices(
    reference: Reference, rows: pd.DataFrame, *, minimum_proteins: int = MINIMUM_PROTEINS
) -> dict[str, float]:
    """Population stability index of each quantity with enough proteins, for gauges; NumPy is all it needs.

    Raises:
        DataError: A column is missing.
    """
    values = reference.values(rows)
    enough = {name: found for name, found in values.items() if found.size >= minimum_proteins}
    return {name: psi(reference.quantities[name], found) for name, found in enough.items()}


def psi(reference: Histogram, values: np.ndarray) -> float:
    """Population stability index, the symmetric Kullback-Leibler divergence of the two histograms.

    Half a protein is added to each bin, so that an empty one does not decide alone; without any drift the index of
    ``b`` bins is about ``(b - 1) (1 / n + 1 / m)`` for ``n`` and ``m`` proteins (Yurdakul 2018,
    scholarworks.wmich.edu/dissertations/3208).

    Args:
        reference: Of the quantity.
        values: Finite, shape (n,).
    """
    expected, found = _smoothed(reference.counts), _smoothed(reference.count(values))
    return float(((found - expected) * np.log(found / expected)).sum())


def _smoothed(counts: np.ndarray) -> np.ndarray:
    added = counts + 0.5
    shares: np.ndarray = added / added.sum()
    return shares


def _quantity(
    name: str,
    kept: Histogram,
    values: np.ndarray,
    p_value: float | None,
    psi_threshold: float,
    significance: float,
) -> QuantityDrift:
    index = None if p_value is None else psi(kept, values)
    return QuantityDrift(
        name=name,
        of="inputs" if name in INPUTS else "predictions",
        n=values.size,
        psi=index,
        p_value=p_value,
        mean=float(values.mean()) if values.size else None,
        reference_mean=kept.mean,
        reference_sd=kept.sd,
        drifted=index is not None and p_value is not None and index >= psi_threshold and p_value <= significance,
    )


def _p_value(kept: Histogram, values: np.ndarray) -> float:
    """Pearson's chi-square test of homogeneity; the reference is itself a sample, so its size counts as well."""
    try:
        from scipy.stats import chi2
    except ImportError:
        raise MissingDependencyError("Testing for drift", "monitor") from None
    table = np.stack([kept.counts, kept.count(values)])
    table = table[:, table.sum(axis=0) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = ((table - expected) ** 2 / expected).sum()
    return float(chi2.sf(statistic, table.shape[1] - 1)) if table.shape[1] > 1 else 1.0


def _holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979, jstor.org/stable/4615733): holds for quantities that depend on each other."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.array(p_values, dtype=float)[order] * factors), 1)
    found: list[float] = adjusted.tolist()
    return found


def _verdict(quantities: Sequence[QuantityDrift]) -> Verdict:
    moved = {one.of for one in quantities if one.drifted}
    if "inputs" in moved:
        return "drift"
    return "shift of predictions" if moved else "no drift"


def _known(share: float) -> float | None:
    return None if math.isnan(share) else share
