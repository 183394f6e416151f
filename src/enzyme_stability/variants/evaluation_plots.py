"""Pictures of an evaluation of predicted changes of stability: calibration, hit rates, methods side by side.

What they show comes from ``enzyme_stability.variants.figures``. A picture is written as PNG or SVG, by the suffix of
its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from enzyme_stability.errors import DataError
from enzyme_stability.plots import BLUE, GREEN, ORANGE, picture
from enzyme_stability.variants.figures import ALL

GREY = "#767676"

_LABELS = {
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "rmse": "RMSE (unit of the target)",
    "sign_accuracy": "Share of right signs",
    "protein_spearman": "Spearman correlation within a protein, mean",
    "auc": "Area under the ROC curve, more stable or not",
}
_PARTS = ("value", "low", "high")
_COLOURS = {"ours": ORANGE, "baseline": GREY, "published": BLUE}


def reliability_curve(figures: Mapping[str, Any], path: Path, *, name: str) -> None:
    """Observed share of stabilising variants against the predicted probability, with Wilson's interval.

    Args:
        figures: As from ``figures.reliability``.
        path: Picture to write.
        name: What was predicted, for the title.

    Raises:
        DataError: The suffix is unknown.
        ArtifactError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    bins = figures["bins"]
    predicted = np.array([one["predicted"] for one in bins])
    value, low, high = (np.array([one["observed"][key] for one in bins]) for key in _PARTS)
    with picture(path, (5.6, 6.6)) as axes:
        axes.plot([0, 1], [0, 1], color="black", linewidth=1, label="observed = predicted")
        axes.axhline(figures["base_rate"], color=GREY, linestyle="--", linewidth=1, label="share of all variants")
        axes.vlines(predicted, low, high, color=BLUE, linewidth=1.5, label="95 % interval")
        axes.plot(predicted, value, "o-", color=BLUE, markersize=5, linewidth=1, label="observed, n above")
        for one, top in zip(bins, high, strict=True):
            axes.annotate(
                str(one["n"]), (one["predicted"], top), (0, 3), textcoords="offset points", ha="center", fontsize=7.5
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.06), xlabel="Predicted probability of more stable")
        axes.set_ylabel("Observed share of more stable")
        skill = "" if figures["brier_skill"] is None else f" (skill {figures['brier_skill']:.2f})"
        error = f"calibration error {figures['calibration_error']:.3f}"
        axes.set_title(f"{name}, n = {figures['n']}\nBrier score {figures['brier']:.3f}{skill}, {error}")


def hit_rate_plot(rates: Mapping[str, Mapping[str, Any] | None], path: Path, *, name: str) -> None:
    """Share of stabilising variants among the best predicted ones, beside random and the baseline's.

    Args:
        rates: As from ``figures.hit_rates``.
        path: Picture to write.
        name: What was predicted, for the title.

    Raises:
        DataError: No protein has enough variants for any cut, or the suffix is unknown.
        ArtifactError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    cuts = {cut: rate for cut, rate in rates.items() if rate is not None}
    if not cuts:
        raise DataError(f"no protein of {name} has enough variants for a hit rate")
    series = {"hit_rate": ("predicted best", ORANGE), "baseline": ("baseline", GREY), "random": ("random", GREEN)}
    shown = {key: style for key, style in series.items() if all(key in rate for rate in cuts.values())}
    with picture(path, (max(5.0, 1.5 * len(cuts) + 1.5), 5.0)) as axes:
        for place, (key, (label, colour)) in enumerate(shown.items()):
            across = np.arange(len(cuts)) + 0.25 * (place - (len(shown) - 1) / 2)
            value, low, high = (np.array([rate[key][part] for rate in cuts.values()], dtype=float) for part in _PARTS)
            axes.bar(across, value, width=0.22, color=colour, alpha=0.75, label=label)
            axes.vlines(across, low, high, color="black", linewidth=1)
        labels = [f"{cut}\n{rate['proteins']} protein{'s' * (rate['proteins'] > 1)}" for cut, rate in cuts.items()]
        axes.set_xticks(range(len(cuts)), labels)
        axes.set(ylim=(0, 1), ylabel="Share of more stable variants,\nmean over proteins with 95 % interval")
        axes.set_title(name)
        axes.grid(visible=False, axis="x")


def compare_plot(comparison: pd.DataFrame, path: Path, *, name: str, figure: str = "pearson") -> None:
    """One figure of every method as a dot with its interval, the best on top; hollow over proteins without relatives.

    Args:
        comparison: As from ``figures.compare``; of groups of rows ``ALL`` and at most one more.
        path: Picture to write.
        name: What was predicted, for the title.
        figure: Which figure, as its column is called.

    Raises:
        DataError: The figure is unknown or no method has it, or the suffix is unknown.
        ArtifactError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    if figure not in _LABELS:
        raise DataError(f"'{figure}' cannot be compared; choose one of {', '.join(_LABELS)}")
    known = comparison[comparison[figure].notna()]
    order = known[known["rows"] == ALL].sort_values(figure, ascending=figure != "rmse", kind="stable")["method"]
    if order.empty:
        raise DataError(f"no method of {name} has '{figure}'")
    height = {method: place for place, method in enumerate(order)}
    with picture(path, (6.4, 0.32 * len(order) + 2.0)) as axes:
        for (rows, kind), group in known.groupby(["rows", "kind"], sort=False):
            apart = rows != ALL
            up = group["method"].map(height).to_numpy(dtype=float) - (0.25 if apart else 0)
            colour = _COLOURS[str(kind)]
            axes.hlines(up, group[f"{figure}_low"], group[f"{figure}_high"], color=colour, linewidth=1.2)
            label = f"{kind}, {rows}" if known["rows"].nunique() > 1 else kind
            axes.plot(
                group[figure],
                up,
                "o",
                color=colour,
                markerfacecolor="white" if apart else colour,
                markersize=5,
                label=label,
            )
        axes.set_yticks(range(len(order)), order)
        axes.set(xlabel=f"{_LABELS[figure]}, 95 % interval", ylim=(-0.75, len(order) - 0.5))
        axes.set_title(f"{name}, n = {int(known.loc[known['rows'] == ALL, 'n'].max())}")
        axes.grid(visible=False, axis="y")
