"""Pictures of an evaluation: parity, error by band, coverage.

The tables are those of ``enzyme_stability.metrics``. A picture is written as PNG or SVG, by the suffix of its path.
The colours are Okabe and Ito's, told apart by people with any colour vision (jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from enzyme_stability.errors import DataError, MissingDependencyError
from enzyme_stability.manifest import writing
from enzyme_stability.metrics import BANDS, boolean_column, finite_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
FORMATS = (".png", ".svg")

_INTERVALS_SHOWN = 60
_FEWEST_IN_A_BAND = 10
_BAND_COLOURS = dict(zip(BANDS, (GREEN, "#E69F00", "#CC79A7"), strict=True))
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text: to be searched, and smaller
    "svg.hashsalt": "enzyme_stability",  # the same picture is the same file
}


def parity(table: pd.DataFrame, path: Path, *, name: str, quantity: str = "Tm") -> None:
    """Predicted against measured Tm, with the intervals of some proteins spread evenly over the measured Tm.

    Args:
        table: Predictions and measured values.
        path: Picture to write.
        name: What was predicted, for the title.
        quantity: What was measured, for the axis, where it is not the Tm.

    Raises:
        DataError: A column is missing, a value is not finite, the table is empty or the suffix is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    measured, predicted, lower, upper = (
        finite_column(table, f"{column}_celsius", least=1) for column in ("tm", "predicted", "lower", "upper")
    )
    flagged = ~boolean_column(table, "in_domain")
    shown = _evenly_spread(measured, _INTERVALS_SHOWN)
    everything = np.concatenate([measured, predicted, lower[shown], upper[shown]])
    limits = (float(everything.min()) - 2, float(everything.max()) + 2)
    size = float(np.clip(6000 / measured.size, 4, 20))  # points2: a crowd needs small points
    with picture(path, (6.2, 6.8)) as axes:
        if (usual := ~flagged).any():
            label = f"in domain ({usual.sum()} proteins)"
            axes.scatter(measured[usual], predicted[usual], s=size, color=BLUE, alpha=0.4, linewidths=0, label=label)
        if flagged.any():
            label = f"out of domain ({flagged.sum()} proteins)"
            x, y = measured[flagged], predicted[flagged]
            axes.scatter(x, y, s=2 * size, color=ORANGE, marker="^", alpha=0.8, linewidths=0, label=label)
        some = f"interval of {shown.size} proteins" if shown.size < measured.size else "interval"
        axes.vlines(measured[shown], lower[shown], upper[shown], color="black", alpha=0.4, linewidth=0.8, label=some)
        axes.plot(limits, limits, color="black", linewidth=1, label="predicted = measured")
        axes.set(
            xlim=limits, ylim=limits, aspect="equal", xlabel=f"Measured {quantity} (°C)", ylabel="Predicted Tm (°C)"
        )
        axes.set_title(f"{name}, n = {measured.size}")


def error_by_band(
    table: pd.DataFrame, path: Path, *, name: str, quantity: str = "Tm", width_celsius: float = 5.0
) -> None:
    """Error in bands of measured Tm: quartiles as a box, 5 to 95 % as whiskers, the mean (bias) as a diamond.

    A band of fewer than ten proteins is joined with its neighbour.

    Args:
        table: Predictions and measured values.
        path: Picture to write.
        name: What was predicted, for the title.
        quantity: What was measured, for the axes, where it is not the Tm.
        width_celsius: Width of a band.

    Raises:
        DataError: A column is missing, a value is not finite, the table is empty or the suffix is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    measured = finite_column(table, "tm_celsius", least=1)
    error = finite_column(table, "predicted_celsius", least=1) - measured
    edges = _edges(measured, width_celsius)
    groups = [error[np.digitize(measured, edges[1:-1]) == k] for k in range(edges.size - 1)]
    with picture(path, (max(5.0, 0.65 * len(groups) + 1.5), 4.8)) as axes:
        axes.axhline(0, color="black", linewidth=1)
        axes.boxplot(
            groups,
            positions=range(len(groups)),
            widths=0.6,
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            patch_artist=True,
            boxprops={"facecolor": BLUE, "alpha": 0.35, "edgecolor": BLUE},
            medianprops={"color": BLUE, "linewidth": 1.5},
            whiskerprops={"color": BLUE},
            capprops={"color": BLUE},
            meanprops={"marker": "D", "markerfacecolor": ORANGE, "markeredgecolor": ORANGE, "markersize": 5},
        )
        labels = [
            f"{low:g}-{high:g}\nn {group.size}\nMAE {np.abs(group).mean():.1f} °C"
            for low, high, group in zip(edges[:-1], edges[1:], groups, strict=True)
        ]
        axes.set_xticks(range(len(groups)), labels, fontsize=7.5)
        axes.set(xlabel=f"Measured {quantity} (°C)", ylabel=f"Predicted Tm - measured {quantity} (°C)")
        axes.set_title(f"{name}, n = {measured.size}")
        axes.grid(visible=False, axis="x")
        axes.plot([], [], "s", color=BLUE, alpha=0.5, markersize=9, label="median, quartiles; whiskers 5 to 95 %")
        axes.plot([], [], "D", color=ORANGE, markersize=5, label="mean (bias)")


def coverage(curve: Mapping[str, Mapping[str, Any]], path: Path, *, name: str) -> None:
    """Observed against nominal coverage, over all proteins and by band of measured Tm.

    Args:
        curve: As from ``metrics.coverage_curve``.
        path: Picture to write.
        name: What was predicted, for the title.

    Raises:
        DataError: The suffix is unknown.
        MissingDependencyError: Matplotlib is not installed.
    """
    with picture(path, (5.6, 6.4)) as axes:
        axes.plot([0, 1], [0, 1], color="black", linewidth=1, label="observed = nominal")
        for group, points in curve.items():
            overall = group == "overall"
            axes.plot(
                points["nominal"],
                points["observed"],
                color=BLUE if overall else _BAND_COLOURS[group],
                linewidth=2.5 if overall else 1.2,
                linestyle="-" if overall else "--",
                marker="o" if overall else "s",
                markersize=5 if overall else 4,
                label=f"all (n = {points['n']})" if overall else f"Tm {group} °C (n = {points['n']})",
            )
        lowest = min(min(*points["nominal"], *points["observed"]) for points in curve.values())
        limits = (max(0.0, lowest - 0.05), 1.02)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set(xlabel="Nominal coverage of the interval", ylabel="Observed coverage")
        axes.set_title(f"{name}, n = {curve['overall']['n']}")


def _evenly_spread(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of up to ``count`` values: all, or those nearest to points spread evenly over their range."""
    if values.size <= count:
        return np.arange(values.size)
    order = np.argsort(values, kind="stable")
    points = np.linspace(values.min(), values.max(), count)
    after = np.searchsorted(values[order], points).clip(max=values.size - 1)
    before = (after - 1).clip(min=0)
    nearer = np.where(points - values[order][before] < values[order][after] - points, before, after)
    return np.asarray(order[np.unique(nearer)])


def _edges(measured: np.ndarray, width: float) -> np.ndarray:
    """Edges of the bands, multiples of ``width``, so that no band is nearly empty; at least one band."""
    first, *others = np.arange(np.floor(measured.min() / width), np.floor(measured.max() / width) + 2) * width
    edges = [first]
    for edge in others:
        if ((measured >= edges[-1]) & (measured < edge)).sum() >= _FEWEST_IN_A_BAND:
            edges.append(edge)
    # The last band reaches as far as the data, also where too few were left over for one of their own.
    return np.array([*(edges[:-1] if len(edges) > 1 else edges), others[-1]])


@contextmanager
def picture(path: Path, size: tuple[float, float]) -> Iterator[Axes]:
    """Axes of a figure that is written to ``path`` at the end, with a legend below it.

    Raises:
        DataError: The suffix is unknown.
        ArtifactError: The file cannot be written.
        MissingDependencyError: Matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: a picture is written as {' or '.join(FORMATS)}")
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("Drawing pictures", "train") from error
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        yield axes
        figure.legend(loc="outside lower center", ncols=2, markerscale=1.4)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        with writing(path):
            figure.savefig(path, metadata=metadata, bbox_inches="tight")
