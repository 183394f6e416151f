"""Figures of merit of predicted changes of stability, and several methods side by side.

Everything works on one table, a measurement a row, as from ``data.variant_tables.read_variant_table``: ``protein``
(number or name of the wild type), ``target`` (measured) and ``predicted``, of both positive = more stable.

A figure is ``{"value", "low", "high"}``, the bounds being the 95 % percentile bootstrap, or ``None`` where it is not
defined. Variants of one protein are not independent, so whole proteins are drawn, each with all its variants; of a
single protein the bounds are NaN. Proteins of one family count as several, so the bounds are rather too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from enzyme_stability.data.variant_tables import PUBLISHED_METHODS, REVERSE, Quantity, substitutions_of
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.metrics import CONFIDENCE, Draws, boolean_column, finite_column, interval
from enzyme_stability.variants.baseline import substitution_formula
from enzyme_stability.variants.features import FloatArray, IntArray

MINIMUM_PROTEIN = 10
"""Variants a protein must have to count in ``protein_spearman``."""

CUTS: dict[str, float] = {"top 10": 10, "top 50": 50, "top 5 %": 0.05}
"""How many variants of a protein are taken, best first, or (below 1) what share of them."""

MINIMUM_SHARE = 20
"""Variants a protein must have where a share of them is taken."""

ALL, UNRELATED = "all", "without relatives"
"""The two groups of rows that ``compare`` looks at."""

_BATCH = 2_000_000  # rows times resamples held in memory at once
_ROUNDING = 1e-10  # a deviation smaller than this share of the mean is none
_FIGURES = ("pearson", "spearman", "rmse", "sign_accuracy", "majority_sign", "protein_spearman", "auc")
_MORE = ("auc_of_probability", "antisymmetry", "reverse_bias")


def variant_figures(
    table: pd.DataFrame, *, same_quantity: bool = True, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Figures of merit over all rows of the table.

    Args:
        table: ``protein``, ``target`` and ``predicted``; where there are ``reverse`` (prediction for the way back, NaN
            where there is none) and ``probability`` (that the variant is more stable, 0 to 1), the figures about them.
        same_quantity: Whether the prediction is of the quantity that was measured; otherwise there is no RMSE.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``n`` and ``proteins``, and the figures ``pearson``, ``spearman``, ``rmse`` (unit of the target);
        ``sign_accuracy`` over the variants that change anything, beside ``majority_sign``, that of always answering
        the more frequent sign; ``protein_spearman``, the mean over proteins of at least ``MINIMUM_PROTEIN`` variants;
        ``auc``, the area under the ROC curve for "more stable", and ``auc_of_probability``; ``antisymmetry``, the
        Pearson correlation of prediction and way back (-1 is perfect), and ``reverse_bias``, the mean of half their
        sum (0 is perfect, unit of the target).

    Raises:
        DataError: A column is missing, a value is not finite, or there are fewer than two rows.
    """
    protein, target, predicted = _columns(table)
    more = {"reverse": _aligned(table, table["reverse"], "'reverse'")} if "reverse" in table else {}
    more |= {"probability": finite_column(table, "probability")} if "probability" in table else {}
    statistic = _statistic(protein, target, predicted, same_quantity, more)
    return dict.fromkeys(_FIGURES + _MORE) | _summary(statistic, protein, bootstrap, seed)


def paired_figures(
    table: pd.DataFrame, theirs: npt.ArrayLike, *, same_quantity: bool = True, bootstrap: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Difference of two methods on the same rows, ``predicted`` minus theirs, both seeing the same resamples.

    Args:
        table: ``protein``, ``target`` and ``predicted``.
        theirs: Predictions of the other method, shape (n,); a row without one (NaN) is left aside.
        same_quantity: Whether both predictions are of the quantity that was measured.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        ``n``, ``proteins`` and the differences of ``pearson``, ``spearman``, ``rmse`` (a negative one is in our
        favour), ``sign_accuracy``, ``protein_spearman`` and ``auc``.

    Raises:
        DataError: A column is missing, ours has a value that is not finite, lengths differ, or too few rows are left.
    """
    other = _aligned(table, theirs, "the other method")
    protein, target, predicted = _columns(table[np.isfinite(other)])
    ours = _statistic(protein, target, predicted, same_quantity, {})
    others = _statistic(protein, target, other[np.isfinite(other)], same_quantity, {})

    def difference(times: FloatArray) -> Draws:
        their = others(times)
        return {name: mine - their[name] for name, mine in ours(times).items() if name != "majority_sign"}

    return _summary(difference, protein, bootstrap, seed)


def hit_rates(table: pd.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> dict[str, dict[str, Any] | None]:
    """Share of stabilising variants among the best predicted ones of each protein, averaged over proteins.

    A variant measured several times counts once, with the means. Among equal predictions the share is the one to be
    expected of a random order.

    Args:
        table: ``protein``, ``target`` and ``predicted``; where there are ``variant`` (to tell repeats by) and
            ``baseline`` (the prediction of a baseline), they are used.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        By name of the cut (``CUTS``): ``n`` variants and ``proteins`` that counted, and the figures ``hit_rate``,
        ``random`` (share of stabilising variants among all), ``gain`` (hit rate minus random) and, with a baseline,
        ``baseline`` and ``gain_over_baseline``. ``None`` where no protein has twice as many variants as the cut takes
        (of a share: ``MINIMUM_SHARE``).

    Raises:
        DataError: A column is missing, a value is not finite, or there are fewer than two rows.
    """
    protein, target, predicted = _columns(table)
    scores = {"target": target, "hit_rate": predicted}
    if "baseline" in table:
        scores["baseline"] = finite_column(table, "baseline")
    variant = table["variant"].to_numpy() if "variant" in table else np.arange(target.size)
    once = pd.DataFrame(scores).groupby([protein, variant]).mean()
    proteins = [rows for _, rows in once.groupby(level=0)]
    return {name: _hit_rate(proteins, cut, bootstrap, seed) for name, cut in CUTS.items()}


def reliability(probability: npt.ArrayLike, stabilising: npt.ArrayLike, bins: int = 10) -> dict[str, Any]:
    """Whether what was predicted with a probability comes true as often.

    Args:
        probability: That the variant is more stable, 0 to 1, shape (n,).
        stabilising: Whether it is, shape (n,).
        bins: Number of bins of equal width.

    Returns:
        ``n``; ``base_rate``; ``brier``, the mean squared error; ``brier_skill``, 1 - brier over that of always
        answering the base rate, ``None`` where it is 0; ``calibration_error``, the mean distance of predicted and
        observed over the bins, by their size (doi 10.1609/aaai.v29i1.9602); and ``bins``, those that are not empty:
        ``low`` and ``high`` edge, ``n``, mean ``predicted``, and the figure ``observed`` with Wilson's interval.

    Raises:
        ConfigError: There is no bin.
        DataError: A probability is not one, the lengths differ, or there is nothing.
    """
    p, y = np.asarray(probability, dtype=float), np.asarray(stabilising, dtype=bool)
    if bins < 1:
        raise ConfigError(f"bins must be at least 1, got {bins}")
    if p.shape != y.shape or not p.size:
        raise DataError(f"{p.size} probabilities and {y.size} outcomes: there must be one of each a variant")
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("a probability must be between 0 and 1")
    edges = np.arange(bins + 1) / bins
    place, found = np.digitize(p, edges[1:-1]), list[dict[str, Any]]()
    for k in np.unique(place):
        inside = place == k
        n, hits = int(inside.sum()), int(y[inside].sum())
        bounds = binomtest(hits, n).proportion_ci(CONFIDENCE, method="wilson")
        observed = {"value": hits / n, "low": float(bounds.low), "high": float(bounds.high)}
        edge = {"low": float(edges[k]), "high": float(edges[k + 1])}
        found.append({**edge, "n": n, "predicted": float(p[inside].mean()), "observed": observed})
    base_rate, brier = float(y.mean()), float(((p - y) ** 2).mean())
    spread = base_rate * (1 - base_rate)
    return {
        "n": p.size,
        "base_rate": base_rate,
        "brier": brier,
        "brier_skill": 1 - brier / spread if spread else None,
        "calibration_error": sum(one["n"] * abs(one["predicted"] - one["observed"]["value"]) for one in found) / p.size,
        "bins": found,
    }


def compare(
    table: pd.DataFrame,
    ours: Mapping[str, npt.ArrayLike],
    *,
    quantity: Quantity = "dTm",
    baselines: Mapping[str, npt.ArrayLike] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Figures of our predictions, the baselines and every published prediction in a table.

    Args:
        table: As from ``read_variant_table``; with the column ``has_relative`` (to the training table) the rows of
            proteins without a relative are looked at apart as well.
        ours: Predictions by name, each of shape (n,), NaN where there is none. A name that ends in ``REVERSE`` holds
            the way back of the method before it.
        quantity: What ours are predictions of; on a table of another quantity they have no RMSE.
        baselines: Those of baselines, in the unit of the table; by default ``formula``, which has none.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A row a method and group of rows: ``method``, ``kind`` (ours, baseline, published), ``needs`` (sequence or
        structure, of published ones), ``rows`` (``ALL`` or ``UNRELATED``), ``n``, ``unanswered``, ``proteins``; and of
        each of ``variant_figures`` its name, and with ``_low`` and ``_high`` the bounds; NaN where it is not defined.

    Raises:
        DataError: A column is missing, a measured value is not finite, lengths differ, or two methods share a name.
    """
    if absent := {"protein", "target", "quantity", "variant"} - set(table.columns):
        raise DataError(f"a comparison needs the columns {sorted(absent)}; the table has {list(table.columns)}")
    published = {str(name): table[name] for name in table if str(name).removesuffix(REVERSE) in PUBLISHED_METHODS}
    trivial = {"formula": formula(table)} if baselines is None else baselines
    kinds: dict[str, Mapping[str, npt.ArrayLike]] = {"ours": ours, "baseline": trivial, "published": published}
    same = {"ours": bool((table["quantity"] == quantity).all()), "baseline": baselines is not None, "published": True}
    names = [name for methods in kinds.values() for name in methods]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"two methods are called {' and '.join(sorted(twice))}; give ours another name")
    groups = {ALL: np.ones(len(table), dtype=bool)}
    if "has_relative" in table:
        groups[UNRELATED] = ~boolean_column(table, "has_relative")
    found = []
    for kind, methods in kinds.items():
        for name in (name for name in methods if not name.endswith(REVERSE)):
            arrays = {"predicted": _aligned(table, methods[name], name)}
            if name + REVERSE in methods:
                arrays["reverse"] = _aligned(table, methods[name + REVERSE], name + REVERSE)
            rows = table[["protein", "target"]].assign(**arrays)
            needs = PUBLISHED_METHODS.get(name) if kind == "published" else None
            for group, members in groups.items():
                figures = _flat(rows[members], same[kind], bootstrap, seed)
                found.append({"method": name, "kind": kind, "needs": needs, "rows": group, **figures})
    return pd.DataFrame(found)


def formula(table: pd.DataFrame) -> FloatArray:
    """``baseline.FORMULA`` of each ``variant`` of a table, added up over its substitutions, shape (n,)."""
    rows, before, after = substitutions_of(table)
    return np.asarray(np.bincount(rows, substitution_formula()[before, after], len(table)), dtype=float)


def _flat(rows: pd.DataFrame, same_quantity: bool, bootstrap: int, seed: int) -> dict[str, float]:
    answered = rows[np.isfinite(rows["predicted"])]
    figures: dict[str, Any] = {}
    if len(answered) >= 2:
        figures = variant_figures(answered, same_quantity=same_quantity, bootstrap=bootstrap, seed=seed)
    flat = {"n": len(answered), "unanswered": len(rows) - len(answered), "proteins": answered["protein"].nunique()}
    for name in _FIGURES + _MORE:
        figure = figures.get(name) or dict.fromkeys(("value", "low", "high"), np.nan)
        flat |= {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}
    return flat


def _statistic(
    protein: IntArray, target: FloatArray, predicted: FloatArray, same_quantity: bool, more: Mapping[str, FloatArray]
) -> Callable[[FloatArray], Draws]:
    """The figures as a function of how often each protein was drawn, shape (resamples, proteins)."""
    stabilising, changed = target > 0, target != 0
    right = np.sign(predicted) == np.sign(target)
    majority = stabilising == (stabilising.sum() > (target < 0).sum())
    within = np.full(protein.max() + 1, np.nan)
    for number in np.flatnonzero(np.bincount(protein) >= MINIMUM_PROTEIN):
        rows = protein == number
        once = np.ones((1, rows.sum()))
        within[number] = _correlation(_ranks(target[rows], once), _ranks(predicted[rows], once), once)[0]

    def figures(times: FloatArray) -> Draws:
        weights = times[:, protein]
        ranks = _ranks(predicted, weights)
        found = {
            "pearson": _correlation(target, predicted, weights),
            "spearman": _correlation(_ranks(target, weights), ranks, weights),
            "sign_accuracy": _mean(right, weights * changed),
            "majority_sign": _mean(majority, weights * changed),
            "protein_spearman": _mean(np.nan_to_num(within), times * np.isfinite(within)),
            "auc": _auc(ranks, stabilising, weights),
        }
        if same_quantity:
            found["rmse"] = np.sqrt(_mean((predicted - target) ** 2, weights))
        if "probability" in more:
            found["auc_of_probability"] = _auc(_ranks(more["probability"], weights), stabilising, weights)
        if "reverse" in more:
            both, back = weights * np.isfinite(more["reverse"]), np.nan_to_num(more["reverse"])
            found["antisymmetry"] = _correlation(predicted, back, both)
            found["reverse_bias"] = _mean((predicted + back) / 2, both)
        return found

    return figures


def _summary(statistic: Callable[[FloatArray], Draws], protein: IntArray, bootstrap: int, seed: int) -> dict[str, Any]:
    """Values of ``statistic`` on the proteins as they are, with intervals from resamples of them."""
    if bootstrap < 1:
        raise ConfigError(f"bootstrap must be at least 1, got {bootstrap}")
    rng, proteins = np.random.default_rng(seed), int(protein.max()) + 1
    size, shares = max(1, _BATCH // protein.size), np.full(proteins, 1 / proteins)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is not defined comes out as NaN or infinite
        parts = [statistic(np.ones((1, proteins)))]
        for k in range(0, bootstrap, size):
            parts.append(statistic(rng.multinomial(proteins, shares, min(size, bootstrap - k)).astype(float)))
    figures = {name: interval(np.concatenate([part[name] for part in parts])) for name in parts[0]}
    if proteins == 1:
        figures = {name: figure and {**figure, "low": np.nan, "high": np.nan} for name, figure in figures.items()}
    return {"n": protein.size, "proteins": proteins, **figures}


def _hit_rate(proteins: list[pd.DataFrame], cut: float, bootstrap: int, seed: int) -> dict[str, Any] | None:
    enough = [rows for rows in proteins if len(rows) >= (2 * cut if cut >= 1 else MINIMUM_SHARE)]
    if not enough:
        return None
    shares = pd.DataFrame([_shares_of_best(rows, cut) for rows in enough])
    shares["gain"] = shares["hit_rate"] - shares["random"]
    if "baseline" in shares:
        shares["gain_over_baseline"] = shares["hit_rate"] - shares["baseline"]

    def means(times: FloatArray) -> Draws:
        return {str(name): _mean(values.to_numpy(), times) for name, values in shares.items()}

    return _summary(means, np.arange(len(enough)), bootstrap, seed) | {"n": sum(map(len, enough))}


def _shares_of_best(rows: pd.DataFrame, cut: float) -> dict[str, float]:
    """Share of stabilising variants of one protein, among the best by each column and, as ``random``, among all."""
    stabilising = rows["target"] > 0
    taken = int(cut) if cut >= 1 else int(np.ceil(cut * len(rows)))
    shares = {"random": float(stabilising.mean())}
    for name, score in rows.drop(columns="target").items():
        last = score.nlargest(taken).iloc[-1]
        above, tied = score > last, score == last
        hits = stabilising[above].sum() + (taken - above.sum()) * stabilising[tied].mean()
        shares[str(name)] = float(hits / taken)
    return shares


def _ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Midranks of ``values``, shape (n,), where each stands as often as it weighs, shape (resamples, n)."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(distinct.size))
    copies = np.add.reduceat(weights[:, order], starts, axis=1)
    return np.asarray((copies.cumsum(axis=1) - (copies - 1) / 2)[:, place])


def _mean(values: npt.NDArray[Any], weights: FloatArray) -> FloatArray:
    return np.asarray((values * weights).sum(axis=-1) / weights.sum(axis=-1))


def _correlation(a: FloatArray, b: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson correlation of each resample, shape (resamples,); NaN where nothing varies."""
    means = (_mean(values, weights)[:, None] for values in (a, b))
    x, y = (
        np.where(np.abs(values - mean) > _ROUNDING * np.abs(mean), values - mean, 0.0)
        for values, mean in zip((a, b), means, strict=True)
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(_mean(x * y, weights) / np.sqrt(_mean(x**2, weights) * _mean(y**2, weights)))


def _auc(ranks: FloatArray, positive: npt.NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """From the rank sum (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747)."""
    ours = weights * positive
    n = ours.sum(axis=-1)
    return np.asarray(((ranks * ours).sum(axis=-1) - n * (n + 1) / 2) / (n * (weights.sum(axis=-1) - n)))


def _columns(table: pd.DataFrame) -> tuple[IntArray, FloatArray, FloatArray]:
    """Number of the protein, measured and predicted change of each row."""
    target, predicted = finite_column(table, "target"), finite_column(table, "predicted")
    if "protein" not in table or table["protein"].isna().any():
        raise DataError("the table needs the column 'protein' with a value in each row: whole proteins are resampled")
    return pd.factorize(table["protein"])[0], target, predicted


def _aligned(table: pd.DataFrame, values: npt.ArrayLike, name: str) -> FloatArray:
    array = pd.to_numeric(np.asarray(values).ravel(), errors="coerce").astype(float)
    if array.size != len(table):
        raise DataError(f"{name} has {array.size} predictions; the table has {len(table)} rows")
    return array
