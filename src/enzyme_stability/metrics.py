"""Figures of merit of predictions, each with an interval: accuracy, coverage, domain flag, within organisms.

Everything works on one table of predictions joined with measured values, a protein a row: ``id``, ``tm_celsius``
(measured), ``predicted_celsius``, ``lower_celsius``, ``upper_celsius``, ``in_domain`` and, where known, ``organism``,
``growth_temperature_celsius`` and ``sequence``.

A figure is ``{"value", "low", "high"}``, the bounds being the 95 % percentile bootstrap over proteins (of a coverage:
Wilson's), or ``None`` where it is not defined, as the AUC of a table without a protein above the threshold. Proteins
of one family are not independent, so the bounds are rather too narrow than too wide. Temperatures, errors and widths
are degC; every error is predicted minus measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import DegenerateDataWarning, binomtest, pearsonr, rankdata
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from enzyme_stability.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
Figure = dict[str, float]
Draws = dict[str, FloatArray]
"""A figure on the proteins as they are, then on each resample: shape (1 + resamples,)."""

CONFIDENCE = 0.95
HOT_CELSIUS = 60.0
"""Measured Tm from which a protein counts as thermostable in ``auc_60``."""

BAND_EDGES_CELSIUS = (55.0, 65.0)
BANDS = ("< 55", "55-65", "> 65")
"""Bands of measured Tm in degC; both edges belong to the middle one."""

MINIMUM_ORGANISM = 20
"""Proteins an organism must have to get figures of its own."""

_DIFFERENCES = ("r2", "mae", "spearman", "auc_60")
_BATCH = 2_000_000  # proteins times resamples held in memory at once


def metrics(table: pd.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Figures of merit over all proteins of the table.

    Returns:
        ``n`` and the figures ``r2``, ``rmse``, ``mae``, ``bias`` (mean error), ``pearson``, ``spearman`` and
        ``auc_60``, the area under the ROC curve for "measured Tm of at least 60 degC".

    Raises:
        DataError: A column is missing, a value is not finite, or there are fewer than two proteins.
    """
    measured, predicted = finite_column(table, "tm_celsius"), finite_column(table, "predicted_celsius")
    draws = _draw(
        lambda rows: _figures(measured[rows], predicted[rows]), measured.size, bootstrap, np.random.default_rng(seed)
    )
    return {"n": measured.size, **_intervals(draws)}


def paired_difference(
    measured: npt.ArrayLike, ours: npt.ArrayLike, theirs: npt.ArrayLike, *, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Difference of two predictors on the same proteins, ours minus theirs, both seeing the same resamples.

    Args:
        measured: Tm in degC, shape (n,).
        ours: Predictions in degC, shape (n,).
        theirs: Predictions of the other, likewise.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``n`` and the figures ``r2``, ``mae``, ``spearman`` and ``auc_60``. Of ``mae`` a negative one is in our favour.

    Raises:
        DataError: A value is not finite, the lengths differ, or there are fewer than two proteins.
    """
    columns = {"measured": measured, "ours": ours, "theirs": theirs}
    arrays = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    if len({array.shape for array in arrays.values()}) > 1:
        raise DataError(f"the lengths differ: {', '.join(f'{array.size} {name}' for name, array in arrays.items())}")
    y, a, b = (finite_column(pd.DataFrame(arrays), name) for name in columns)

    def difference(rows: npt.NDArray[np.int64]) -> Draws:
        mine, other = _figures(y[rows], a[rows]), _figures(y[rows], b[rows])
        return {name: mine[name] - other[name] for name in _DIFFERENCES}

    return {"n": y.size, **_intervals(_draw(difference, y.size, bootstrap, np.random.default_rng(seed)))}


def band_of(measured: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Name of the band (``BANDS``) of each measured Tm in degC, shape (n,)."""
    tm = np.asarray(measured, dtype=float)
    low, high = BAND_EDGES_CELSIUS
    return np.array(BANDS)[np.where(tm < low, 0, np.where(tm > high, 2, 1))]


def interval_figures(table: pd.DataFrame, *, nominal: float | None = None) -> dict[str, Any]:
    """Share of measured values within their prediction interval, and how wide the intervals are.

    Args:
        table: Predictions and measured values.
        nominal: Coverage that was asked for, to be kept beside the observed one.

    Returns:
        ``nominal``; ``overall``, ``in_domain``, ``flagged``; and ``bands`` by name of the band. Each holds ``n``,
        ``coverage`` (a figure) and ``mean_width_celsius``, or is ``None`` where no protein belongs to it.

    Raises:
        DataError: A column is missing or a value is not finite.
    """
    measured = finite_column(table, "tm_celsius", least=1)
    lower, upper = finite_column(table, "lower_celsius", least=1), finite_column(table, "upper_celsius", least=1)
    inside, band = (lower <= measured) & (measured <= upper), band_of(measured)
    in_domain = boolean_column(table, "in_domain")

    def group(rows: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
        if not rows.any():
            return None
        n, hits = int(rows.sum()), int(inside[rows].sum())
        bounds = binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
        coverage = {"value": hits / n, "low": float(bounds.low), "high": float(bounds.high)}
        return {"n": n, "coverage": coverage, "mean_width_celsius": float((upper - lower)[rows].mean())}

    return {
        "nominal": nominal,
        "overall": group(np.ones(measured.size, dtype=bool)),
        "bands": {name: group(band == name) for name in BANDS},
        "in_domain": group(in_domain),
        "flagged": group(~in_domain),
    }


def domain_figures(table: pd.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Whether the proteins flagged as unlike the training data have the larger errors.

    Returns:
        ``n``, ``flagged_share``; ``in_domain`` and ``flagged``, each ``n``, ``mae`` and ``rmse`` or ``None`` where it
        has fewer than two proteins; and ``difference`` (flagged minus in-domain), ``None`` where one of them is.

    Raises:
        DataError: A column is missing or a value is not finite.
    """
    error = finite_column(table, "predicted_celsius") - finite_column(table, "tm_celsius")
    in_domain = boolean_column(table, "in_domain")
    rng = np.random.default_rng(seed)
    figures: dict[str, Any] = {"n": error.size, "flagged_share": float((~in_domain).mean())}
    draws: dict[str, Draws] = {}
    for name, errors in (("in_domain", error[in_domain]), ("flagged", error[~in_domain])):
        figures[name] = None
        if errors.size >= 2:
            draws[name] = _draw(_error_figures(errors), errors.size, bootstrap, rng)
            figures[name] = {"n": errors.size, **_intervals(draws[name])}
    both = len(draws) == 2
    difference = {name: draws["flagged"][name] - draws["in_domain"][name] for name in ("mae", "rmse")} if both else {}
    return {**figures, "difference": _intervals(difference) or None}


def within_organism_figures(table: pd.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, Any] | None:
    """Figures inside organisms: most of the variance of a proteome-wide table lies between them.

    Resamples are drawn within each organism. R2 is about the organism's own mean, so it is 0 for a predictor that
    knows the mean Tm of the organism and nothing else, and below 0 where it misses even that.

    Returns:
        ``None`` without an organism of at least ``MINIMUM_ORGANISM`` proteins. Otherwise ``minimum_proteins``; ``n``
        (proteins of the organisms counted); ``r2``, pooled, 1 - SSE / SS about the means; ``mean_spearman``, weighted
        by n; ``organisms``, the most numerous first: ``n``, ``r2``, ``spearman``, ``mae``; and ``between``:
        ``variance_share`` (of measured Tm that lies between organisms) and ``pearson_of_means`` (measured, predicted),
        ``None`` where there are too few organisms.

    Raises:
        DataError: A column is missing or a value is not finite.
    """
    if "organism" not in table:
        return None
    counts = table["organism"].value_counts()
    names = [name for name in counts.index if counts[name] >= MINIMUM_ORGANISM]
    if not names:
        return None
    rng = np.random.default_rng(seed)
    pairs, draws = [], []
    for name in names:
        rows = table[table["organism"] == name]
        y, p = finite_column(rows, "tm_celsius"), finite_column(rows, "predicted_celsius")
        pairs.append((y, p))
        draws.append(_draw(_organism_figures(y, p), y.size, bootstrap, rng))
    n = np.array([y.size for y, _ in pairs])
    total, missed = (np.stack([draw[key] for draw in draws]).sum(axis=0) for key in ("ss", "sse"))
    spearman = np.ma.masked_invalid(np.stack([draw["spearman"] for draw in draws]))
    mean_spearman = np.ma.filled(np.ma.average(spearman, axis=0, weights=n), np.nan)
    measured = np.concatenate([y for y, _ in pairs])
    spread = float(((measured - measured.mean()) ** 2).sum())
    means = np.array([[y.mean(), p.mean()] for y, p in pairs]).T[:, None]  # (measured and predicted, 1, organisms)
    pearson = float(_correlation(*means)[0]) if len(names) > 2 else np.nan
    return {
        "minimum_proteins": MINIMUM_ORGANISM,
        "n": int(n.sum()),
        "r2": interval(_ratio(total - missed, total)),
        "mean_spearman": interval(mean_spearman),
        "organisms": {
            str(name): {"n": y.size, **_intervals({key: draw[key] for key in ("r2", "spearman", "mae")})}
            for name, (y, _), draw in zip(names, pairs, draws, strict=True)
        },
        "between": {
            "variance_share": 1 - float(total[0]) / spread if spread and len(names) > 1 else None,
            "pearson_of_means": pearson if np.isfinite(pearson) else None,
        },
    }


def coverage_curve(
    measured: npt.ArrayLike, bounds: Mapping[float, tuple[npt.ArrayLike, npt.ArrayLike]]
) -> dict[str, dict[str, Any]]:
    """Observed coverage at several nominal levels, over all proteins and by band of measured Tm.

    Args:
        measured: Tm in degC, shape (n,).
        bounds: Lower and upper bounds in degC, each of shape (n,), by nominal coverage.

    Returns:
        By name, ``overall`` and each of ``BANDS`` that has proteins: ``n``, and ``nominal`` and ``observed`` coverages,
        two lists of one length.
    """
    tm = np.asarray(measured, dtype=float)
    levels = sorted(bounds)
    inside = np.array([(np.asarray(bounds[k][0]) <= tm) & (tm <= np.asarray(bounds[k][1])) for k in levels])
    band = band_of(tm)
    groups = {"overall": np.ones(tm.size, dtype=bool), **{name: band == name for name in BANDS}}
    return {
        name: {"n": int(rows.sum()), "nominal": levels, "observed": inside[:, rows].mean(axis=1).tolist()}
        for name, rows in groups.items()
        if rows.any()
    }


def finite_column(table: pd.DataFrame, name: str, least: int = 2) -> FloatArray:
    """One column of a table as numbers, shape (n,).

    Raises:
        DataError: The column is missing, a value is missing or not finite, or there are fewer than ``least``.
    """
    values = pd.to_numeric(_column(table, name), errors="coerce").to_numpy(dtype=float)
    if values.size < least:
        raise DataError(f"{values.size} proteins are too few to evaluate; at least {least} are needed")
    if (missing := np.flatnonzero(~np.isfinite(values))).size:
        protein = table["id"].iloc[missing[0]] if "id" in table else f"row {missing[0] + 1}"
        raise DataError(f"'{name}' is missing or not finite for {missing.size} of {values.size}, first for {protein}")
    return values


def boolean_column(table: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """One column of a table as truth values, shape (n,).

    Raises:
        DataError: The column is missing or holds anything else.
    """
    values = _column(table, name)
    if not values.isin([True, False]).all():  # the word "False" would count as true
        raise DataError(f"'{name}' must be true or false for every protein")
    return values.to_numpy(dtype=bool)


def _figures(measured: FloatArray, predicted: FloatArray) -> Draws:
    """Figures of each row of two arrays of shape (resamples, n)."""
    ranks, hot = rankdata(predicted, axis=-1), measured >= HOT_CELSIUS
    n_hot = hot.sum(axis=-1)
    n_cold = hot.shape[-1] - n_hot
    columns = {"y_true": measured.T, "y_pred": predicted.T, "multioutput": "raw_values"}
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not defined comes out as NaN or infinite
        return {
            "r2": r2_score(**columns, force_finite=False),
            "rmse": root_mean_squared_error(**columns),
            "mae": mean_absolute_error(**columns),
            "bias": (predicted - measured).mean(axis=-1),
            "pearson": _correlation(measured, predicted),
            "spearman": _correlation(rankdata(measured, axis=-1), ranks),
            # From the rank sum, for all resamples at once (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747)
            "auc_60": ((ranks * hot).sum(axis=-1) - n_hot * (n_hot + 1) / 2) / (n_hot * n_cold),
        }


def _correlation(a: FloatArray, b: FloatArray) -> FloatArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # a constant row has no correlation: NaN
        return np.asarray(pearsonr(a, b, axis=-1).statistic)


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def _error_figures(error: FloatArray) -> Callable[[npt.NDArray[np.int64]], Draws]:
    return lambda rows: {
        "mae": np.abs(error[rows]).mean(axis=-1),
        "rmse": np.sqrt((error[rows] ** 2).mean(axis=-1)),
    }


def _organism_figures(measured: FloatArray, predicted: FloatArray) -> Callable[[npt.NDArray[np.int64]], Draws]:
    def figures(rows: npt.NDArray[np.int64]) -> Draws:
        y, p = measured[rows], predicted[rows]
        sse = ((y - p) ** 2).sum(axis=-1)
        ss = ((y - y.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
        spearman = _correlation(rankdata(y, axis=-1), rankdata(p, axis=-1))
        return {"r2": _ratio(ss - sse, ss), "spearman": spearman, "mae": np.abs(y - p).mean(-1), "ss": ss, "sse": sse}

    return figures


def _draw(
    statistic: Callable[[npt.NDArray[np.int64]], Draws], n: int, bootstrap: int, rng: np.random.Generator
) -> Draws:
    """Values of ``statistic`` on the proteins as they are and on resamples of them.

    It is given numbers of proteins, shape (resamples, n), and returns an array of shape (resamples,) by name.
    """
    if bootstrap < 1:
        raise ConfigError(f"bootstrap must be at least 1, got {bootstrap}")
    size = max(1, _BATCH // n)
    parts = [statistic(np.arange(n)[None])]
    parts += [statistic(rng.integers(0, n, (min(size, bootstrap - k), n))) for k in range(0, bootstrap, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _intervals(draws: Draws) -> dict[str, Figure | None]:
    return {name: interval(values) for name, values in draws.items()}


def interval(values: FloatArray) -> Figure | None:
    """A figure with its percentile bounds; None where it is not defined.

    Args:
        values: On the proteins as they are, then on each resample, shape (1 + resamples,).
    """
    if not np.isfinite(values[0]):
        return None
    drawn = values[np.isfinite(values)]  # a resample may lack a class; the value itself keeps the list from being empty
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn[1:] if drawn.size > 1 else drawn, [tail, 100 - tail])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    if name not in table:
        raise DataError(f"the table of predictions has no column '{name}'; it has {list(table.columns)}")
    return table[name]
