"""A scan as a heat map: a picture (PNG, SVG), or a page to explore it in (HTML).

Columns are positions, rows the twenty residues grouped by chemistry. The scale diverges from zero, ColorBrewer's RdBu
(colorbrewer2.org), which people with any colour vision can read: blue is more stable, red less.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from enzyme_stability import __version__
from enzyme_stability.errors import ConfigError, DataError, MissingDependencyError
from enzyme_stability.pages import render, write_whole
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.designs import shortlist
from enzyme_stability.variants.scan import SIGN, Estimate, FloatArray, Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".html")

CHEMISTRY = {
    "aliphatic": "AVILM", "aromatic": "FWY", "polar": "STNQ", "positive": "HKR", "negative": "DE", "special": "CGP",
}  # fmt: skip
"""The residues in the order of the rows, by the kind of their side chain."""

PANEL = 100
"""Positions side by side in a picture; a longer protein goes on below."""

LONGEST_IN_A_PICTURE = 5000
"""Residues; the panels of more would be higher than viewers open."""

TABLE_ROWS = 100
"""Substitutions in the table of the page."""

_ROWS = "".join(CHEMISTRY.values())
_COLUMN_OF_ROW = [AMINO_ACIDS.index(residue) for residue in _ROWS]
_CLIPPED_PERCENT = 2.0
_NUMBER_WIDTH = 4  # columns
_LONGEST_TITLE = 70
_STYLE: dict[str, Any] = {
    "axes.linewidth": 0.5,
    "font.size": 8,
    "hatch.linewidth": 0.4,
    "svg.fonttype": "none",  # text stays text: to be searched, and smaller
    "svg.hashsalt": "enzyme_stability",  # the same picture is the same file
}
_MISSING = "#DADADA"

# Inches, but for the last two.
_CELL, _STRIP, _GAP, _BETWEEN = 0.125, 0.4, 0.05, 0.5
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.05, 0.15, 0.65, 0.75
_NARROWEST = 5.8
_DOTS_PER_INCH, _MOST_DOTS = 150, 16_000  # browsers show no higher picture


def heat_map(scan: Scan, path: Path, coverage: float = 0.9) -> None:
    """Draw all substitutions in a protein.

    The page needs no network, opens from disk, and has the best substitutions in a table for those without a script.

    Args:
        scan: All substitutions in the protein.
        path: File to write: ``.png`` or ``.svg``, or ``.html`` for the page.
        coverage: Coverage of the intervals of the scan, to be said with them.

    Raises:
        ConfigError: ``coverage`` is out of bounds.
        DataError: The suffix is unknown, the scan has no estimate, the protein is too long for a picture, or the file
            cannot be written.
        MissingDependencyError: It is a picture, and matplotlib is not installed.
    """
    draw = _DRAWN_AS.get(path.suffix.lower())
    if draw is None:
        raise DataError(f"{path}: a heat map is written as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage={coverage} is not between 0 and 1")
    complete = np.isfinite(np.stack(scan.estimate)).all(axis=0)
    if not complete.any():
        raise DataError(f"{scan.id}: no substitution has an estimate, so there is nothing to draw")
    estimate = Estimate(*(np.where(complete, values, np.nan) for values in scan.estimate))
    write_whole(path, draw(replace(scan, estimate=estimate), path, coverage), "the heat map")


def verdict(lower: float, upper: float) -> str:
    """Whether an interval in degC is all ``more stable``, all ``less stable``, or ``undecided``."""
    if lower > 0:
        return "more stable"
    return "less stable" if upper < 0 else "undecided"


def _limit(delta_tm: FloatArray) -> int:
    """Whole degC at both ends of the scale; few values lie beyond, so that an outlier does not bleach the rest."""
    return max(1, math.ceil(float(np.nanpercentile(np.abs(delta_tm), 100 - _CLIPPED_PERCENT))))


def _mean(delta_tm: FloatArray) -> FloatArray:
    """Mean at every position, shape (L,); NaN where nothing is known."""
    known = np.isfinite(delta_tm)
    total = np.where(known, delta_tm, 0.0).sum(axis=1)
    mean: FloatArray = np.divide(total, known.sum(axis=1), out=np.full(len(total), np.nan), where=known.any(axis=1))
    return mean


def _page(scan: Scan, _: Path, coverage: float) -> bytes:
    estimate = scan.estimate
    delta, lower, upper = (np.rint(100 * values) for values in estimate[:3])
    share = f"{100 * coverage:.4g}\u202f%"
    page = render(
        "scan",
        styles=("report", "scan"),
        version=__version__,
        id=scan.id,
        sign=SIGN,
        coverage=share,
        notes=scan.notes,
        length=len(scan.wild_type),
        first=scan.offset + 1,
        substitutions=int(np.isfinite(delta).sum()),
        likely=int((estimate.probability >= 0.5).sum()),
        limit=_limit(estimate.delta_tm),
        best=shortlist(scan, TABLE_ROWS, per_position=len(AMINO_ACIDS), crowding=0),
        verdict=verdict,
        data={
            "id": scan.id,
            "wild_type": scan.wild_type,
            "offset": scan.offset,
            "sign": SIGN,
            "coverage": share,
            "limit": _limit(estimate.delta_tm),
            "residues": AMINO_ACIDS,
            "groups": list(CHEMISTRY.items()),
            "table_rows": TABLE_ROWS,
            # Place after place, in hundredths of a degC; the ends of the interval as distances, shorter to write.
            "delta": _whole(delta),
            "below": _whole(delta - lower),
            "above": _whole(upper - delta),
            "probability": _whole(np.rint(10_000 * estimate.probability)),
        },
    )
    return page.encode("utf-8", errors="replace")


def _whole(values: FloatArray) -> list[int | None]:
    return [None if value != value else int(value) for value in values.ravel().tolist()]  # noqa: PLR0124 - NaN


def _picture(scan: Scan, path: Path, coverage: float) -> bytes:
    length = len(scan.wild_type)
    if length > LONGEST_IN_A_PICTURE:
        raise DataError(
            f"{path}: a picture shows up to {LONGEST_IN_A_PICTURE} residues and {scan.id:.40} has {length}; "
            "name it .html, which scrolls"
        )
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("Drawing pictures", "train") from error
    panels = math.ceil(length / PANEL)
    width = max(_LEFT + _CELL * min(length, PANEL) + _RIGHT, _NARROWEST)
    height = _TOP + panels * _panel_height() + (panels - 1) * _BETWEEN + _BOTTOM
    buffer = io.BytesIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font has not
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        _head(figure, scan, coverage)
        _panels(figure, scan)
        vector = path.suffix.lower() == ".svg"
        figure.savefig(
            buffer,
            format=path.suffix[1:].lower(),
            dpi=min(_DOTS_PER_INCH, _MOST_DOTS / height),
            metadata={"Date": None} if vector else {"Software": None},
        )
    return buffer.getvalue()


def _panel_height() -> float:
    return _STRIP + _GAP + _CELL * len(_ROWS)


def _head(figure: Figure, scan: Scan, coverage: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    printable = "".join(c if c.isprintable() else "?" for c in scan.id)
    name = printable if len(printable) <= _LONGEST_TITLE else f"{printable[: _LONGEST_TITLE - 1]}…"
    half = (scan.estimate.upper - scan.estimate.lower) / 2
    said = f"{len(scan.wild_type)} residues; {100 * coverage:.4g} % interval ±{np.nanmedian(half):.1f} °C (median)"
    left = 0.15 / width
    figure.text(left, 1 - 0.25 / height, name, size=11, parse_math=False)
    figure.text(left, 1 - 0.43 / height, said)
    figure.legend(
        handles=[
            Line2D([], [], color="black", marker="o", markersize=2.5, linestyle="", label="wild type"),
            Patch(facecolor=_MISSING, edgecolor="#777777", hatch="//////", linewidth=0, label="unknown"),
        ],
        loc="upper right",
        bbox_to_anchor=(1 - _RIGHT / width, 1 - 0.1 / height),
        borderaxespad=0,
        frameon=False,
        ncols=2,
    )


def _panels(figure: Figure, scan: Scan) -> None:
    width, height = figure.get_size_inches()
    delta = scan.estimate.delta_tm
    mean = _mean(delta)
    bounds = (min(float(np.nanmin(mean)), -0.1), max(float(np.nanmax(mean)), 0.0))
    limit = _limit(delta)
    top = height - _TOP
    for first in range(0, len(delta), PANEL):
        part = slice(first, min(first + PANEL, len(delta)))
        across = _CELL * (part.stop - first)
        strip, grid = (
            figure.add_axes((_LEFT / width, (top - below) / height, across / width, high / height))
            for below, high in ((_STRIP, _STRIP), (_panel_height(), _CELL * len(_ROWS)))
        )
        x = np.arange(first, part.stop)
        _draw_mean(strip, x, mean[part], bounds)
        image = _draw_cells(grid, scan, x, limit)
        top -= _panel_height() + _BETWEEN
    beyond = float(np.nanmax(np.abs(delta))) > limit
    bar = figure.add_axes((_LEFT / width, 0.42 / height, min(4.5, width - _LEFT - _RIGHT - 0.2) / width, 0.1 / height))
    figure.colorbar(image, cax=bar, orientation="horizontal", extend="both" if beyond else "neither", label=SIGN)


def _draw_mean(axes: Axes, x: npt.NDArray[np.intp], mean: FloatArray, bounds: tuple[float, float]) -> None:
    axes.bar(x, np.nan_to_num(mean), width=1, color=np.where(mean > 0, "#2166AC", "#B2182B"), linewidth=0)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(xlim=(x[0] - 0.5, x[-1] + 0.5), ylim=bounds, xticks=[], ylabel="mean\n(°C)")
    axes.yaxis.label.set(rotation=0, ha="right", va="center", size=7)
    axes.yaxis.set_label_coords(-0.26 / (_CELL * len(x)), 0.5)
    axes.set_yticks(sorted({0.0, *(round(end, 1) for end in bounds)}))
    axes.tick_params(labelsize=5.5, length=2, pad=1)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_cells(axes: Axes, scan: Scan, x: npt.NDArray[np.intp], limit: int) -> Any:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    residues = scan.wild_type[x[0] : x[-1] + 1]
    values = np.ma.masked_invalid(scan.estimate.delta_tm[x][:, _COLUMN_OF_ROW].T)
    image = axes.imshow(
        values,
        cmap=colormaps["RdBu"].with_extremes(bad=_MISSING),
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="none",  # in an SVG a pixel a cell, drawn without a blur
        extent=(x[0] - 0.5, x[-1] + 0.5, len(_ROWS) - 0.5, -0.5),
    )
    known = [(place, _ROWS.index(residue)) for place, residue in zip(x, residues, strict=True) if residue in _ROWS]
    axes.plot(*(zip(*known, strict=True) if known else ([], [])), "o", color="black", markersize=2, markeredgewidth=0)
    for column in np.flatnonzero(np.ma.getmaskarray(values).all(axis=0)):
        corner = (x[column] - 0.5, -0.5)
        axes.add_patch(Rectangle(corner, 1, len(_ROWS), fill=False, edgecolor="#777777", hatch="//////", linewidth=0))
    row = 0
    for group, members in CHEMISTRY.items():
        beside = (-0.25 / (_CELL * len(x)), 1 - (row + len(members) / 2) / len(_ROWS))
        axes.text(*beside, group, transform=axes.transAxes, ha="right", va="center", size=7)
        row += len(members)
        axes.axhline(row - 0.5, color="white", linewidth=1.5)
    axes.set_yticks(range(len(_ROWS)), _ROWS, size=6.5)
    numbered = [place for place in x if (place + scan.offset + 1) % 10 == 0]
    if not numbered or numbered[0] - x[0] > _NUMBER_WIDTH:
        numbered.insert(0, x[0])
    labels = [f"{scan.wild_type[place]}{place + scan.offset + 1}" for place in numbered]
    axes.set_xticks(numbered, labels, size=6.5)
    axes.tick_params(length=2, pad=1.5)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    axes.set_ylim(len(_ROWS) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    return image


_DRAWN_AS: dict[str, Callable[[Scan, Path, float], bytes]] = {".png": _picture, ".svg": _picture, ".html": _page}
