"""Draws the architecture of the product: docs/assets/architecture.svg and reports/figures/architecture.png.

Before it draws, it looks whether the modules and files that the figure names are there. With ``--check`` it only says
whether the committed drawing is the one that it makes now.
"""

from __future__ import annotations

import argparse
import io
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import grimp
import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parent.parent
SVG = ROOT / "docs" / "assets" / "architecture.svg"
PNG = ROOT / "reports" / "figures" / "architecture.png"
PACKAGE = "enzyme_stability"

WIDTH, HEIGHT = 160.0, 104.0
_BOX = 26.0
_COLUMN = 31.0
_LEFT = 4.0


class Lane(NamedTuple):
    """A band of the figure; ``bottom`` and ``height`` in units of the figure."""

    title: str
    bottom: float
    height: float
    colour: str


class Part(NamedTuple):
    """A box: what it is, what it does, and where that is in the repository."""

    title: str
    text: str
    column: float
    bottom: float
    lane: int
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    columns: float = 1
    height: float = 14

    @property
    def left(self) -> float:
        """Left edge."""
        return _LEFT + _COLUMN * self.column

    @property
    def width(self) -> float:
        """From edge to edge."""
        return _BOX + _COLUMN * (self.columns - 1)


LANES = (
    Lane("learn", 72, 31, "#1f6f78"),
    Lane("keep, run", 49, 20, "#7a5195"),
    Lane("answer", 26, 20, "#b4552d"),
    Lane("watch", 2, 21, "#3d5a98"),
)
PARTS = {
    "settings": Part(
        "Settings",
        "groups of conf/, composed by Hydra, checked by pydantic",
        0,
        91,
        0,
        ("config", "configuration"),
        (),
        2,
        8,
    ),
    "search": Part("Search", "Optuna", 2, 91, 0, ("tuning", "study"), (), 1, 8),
    "tracking": Part("Curves", "CSV, TensorBoard, Weights & Biases, MLflow", 3, 91, 0, ("tracking",), (), 2, 8),
    "table": Part("Table", "merged and checked;\nfamilies stay together", 0, 73.5, 0, ("data", "training_table")),
    "encoder": Part("Encoder", "descriptors, or a language\nmodel and a store", 1, 73.5, 0, ("encoders", "embeddings")),
    "head": Part("Head", "ridges, trees, networks by\nLightning, fine-tuning", 2, 73.5, 0, ("heads", "fitting")),
    "interval": Part(
        "Interval and domain flag", "calibrated on families\nkept aside", 3, 73.5, 0, ("uncertainty", "domain")
    ),
    "artefact": Part("Run folder", "JSON and ONNX, figures,\nmodel card", 4, 73.5, 0, ("manifest", "card")),
    "bucket": Part("Bucket and pipeline", "data and stages under DVC", 0, 50.5, 1, ("storage",), ("dvc.yaml",)),
    "vertex": Part(
        "Training job", "Vertex AI, or any machine\nwith Docker", 1, 50.5, 1, (), ("deploy/docker/train.dockerfile",)
    ),
    "images": Part("Images", "Artifact Registry:\ntrainer and server", 2, 50.5, 1, (), ("deploy/docker/install.sh",)),
    "build": Part("Cloud Build", "tests, builds, deploys", 3, 50.5, 1, (), ("deploy/gcp/cloudbuild.yaml",)),
    "registry": Part("Registry", "versions; aliases such as\nproduction", 4, 50.5, 1, ("registry", "promotion")),
    "people": Part("People", "engineers and their programs", 0, 27.5, 2),
    "ways": Part("Ways in", "command line, Python,\nweb page, client", 1, 27.5, 2, ("cli", "client")),
    "service": Part(
        "HTTP service",
        "batches, limits, jobs, keys;\non Cloud Run",
        2,
        27.5,
        2,
        ("serving",),
        ("deploy/docker/serve.dockerfile",),
    ),
    "prediction": Part(
        "Prediction",
        "Tm with interval and domain flag; change of Tm on substitution",
        3,
        27.5,
        2,
        ("predictor", "variants"),
        (),
        2,
    ),
    "measured": Part("Measured Tm", "comes back; a table to\ncorrect or train with", 0, 4, 3, ("monitoring.feedback",)),
    "performance": Part("Performance", "error, coverage", 1, 4, 3, ("monitoring.performance",)),
    "log": Part("Prediction log", "SQLite or PostgreSQL", 2, 4, 3, ("monitoring.database",)),
    "drift": Part(
        "Drift", "against the calibration\nproteins, or a quiet time", 3, 4, 3, ("monitoring.drift", "reference")
    ),
    "alerts": Part("Alerts", "Prometheus, Grafana", 4, 4, 3, (), ("deploy/monitoring/alerts.yml",)),
}
ARROWS = (
    ("table", "encoder"),
    ("encoder", "head"),
    ("head", "interval"),
    ("interval", "artefact"),
    ("bucket", "table"),
    ("vertex", "encoder"),
    ("build", "images"),
    ("images", "vertex"),
    ("artefact", "registry"),
    ("images", "service"),
    ("people", "ways"),
    ("ways", "service"),
    ("service", "prediction"),
    ("registry", "prediction"),
    ("service", "log"),
    ("log", "performance"),
    ("measured", "performance"),
    ("log", "drift"),
    ("drift", "alerts"),
    ("people", "measured"),
    ("settings", "encoder"),
    ("search", "head"),
    ("artefact", "tracking"),
)
_SAID = {
    ("bucket", "table"): "dvc pull",
    ("vertex", "encoder"): "train",
    ("artefact", "registry"): "registry add",
    ("registry", "prediction"): "promote, roll back",
    ("images", "service"): "deploy",
    ("service", "log"): "every row",
    ("people", "measured"): "feedback",
}


def missing() -> list[str]:
    """Modules and files of the figure that the repository does not have."""
    known = grimp.build_graph(PACKAGE, cache_dir=None).modules
    modules = [f"{PACKAGE}.{name}" for part in PARTS.values() for name in part.modules]
    files = [name for part in PARTS.values() for name in part.files]
    return [*(name for name in modules if name not in known), *(name for name in files if not (ROOT / name).is_file())]


def draw() -> Any:
    """The figure."""
    mpl.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": PACKAGE, "svg.fonttype": "path"})
    figure = Figure(figsize=(16, 10.4))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    for lane in LANES:
        _rectangle(axes, 1, lane.bottom - 1, WIDTH - 2, lane.height, lane.colour, filled=0.07)
        axes.text(
            3,
            lane.bottom + lane.height - 2.6,
            lane.title,
            color=lane.colour,
            fontsize=12,
            fontweight="bold",
            va="center",
        )
    for part in PARTS.values():
        _box(axes, part)
    for start, end in ARROWS:
        _arrow(axes, PARTS[start], PARTS[end], _SAID.get((start, end), ""))
    _loop(axes)
    return figure


def _box(axes: Any, part: Part) -> None:
    colour = LANES[part.lane].colour
    _rectangle(axes, part.left, part.bottom, part.width, part.height, colour)
    middle, top = part.left + part.width / 2, part.bottom + part.height
    small = part.height < 10
    axes.text(middle, top - 2.0, part.title, ha="center", va="center", fontsize=12.5, fontweight="bold", color=colour)
    axes.text(middle, top - (4.4 if small else 6.0), part.text, ha="center", va="center", fontsize=10, color="#222222")
    where = ", ".join([*part.modules, *(name.rpartition("/")[2] for name in part.files)])
    axes.text(
        middle,
        part.bottom + 1.4,
        where,
        ha="center",
        va="center",
        fontsize=9,
        color="#555555",
        family="DejaVu Sans Mono",
    )


def _rectangle(
    axes: Any, left: float, bottom: float, width: float, height: float, colour: str, filled: float = 0
) -> None:
    style = {"boxstyle": "round,pad=0,rounding_size=1.2"}
    if filled:
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, **style, fc=colour, ec="none", alpha=filled))
    else:
        axes.add_patch(FancyBboxPatch((left, bottom), width, height, **style, fc="white", ec=colour, lw=1.6))


def _arrow(axes: Any, start: Part, end: Part, said: str) -> None:
    """A straight arrow between the facing edges of two boxes."""
    if start.bottom == end.bottom:
        height = start.bottom + start.height / 2
        right = start.left < end.left
        points = [(start.left + start.width * right, height), (end.left + end.width * (not right), height)]
    else:
        inner = end if end.width < start.width or end.width == start.width else start
        across = inner.left + inner.width / 2
        up = start.bottom < end.bottom
        points = [(across, start.bottom + start.height * up), (across, end.bottom + end.height * (not up))]
    _line(axes, points)
    if said:
        (left, low), (_, high) = points
        axes.text(left + 1, (low + high) / 2, said, fontsize=9.5, style="italic", color="#333333", va="center")


def _line(axes: Any, points: list[tuple[float, float]]) -> None:
    for (left, low), (right, high) in pairwise(points[:-1]):
        axes.plot([left, right], [low, high], color="#333333", lw=1.6, solid_capstyle="round")
    arrow = {"arrowstyle": "-|>", "lw": 1.6, "color": "#333333", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
    axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=arrow)


def _loop(axes: Any) -> None:
    """From what was measured back to the table, along the left edge."""
    start, end = PARTS["measured"], PARTS["table"]
    low, high = start.bottom + start.height / 2, end.bottom + end.height / 2
    _line(axes, [(start.left, low), (2.2, low), (2.2, high), (end.left, high)])
    axes.text(3.2, 69.5, "train again", fontsize=9.5, style="italic", color="#333333", va="center")


def saved(figure: Any, kind: str) -> bytes:
    """The figure as a file without a date, so that the same drawing is the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return file.getvalue()


def main() -> None:
    """Draw or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the drawing is out of date")
    check = parser.parse_args().check
    if absent := missing():
        sys.exit(f"the figure names what is not there: {', '.join(absent)}")
    figure = draw()
    if check:
        fresh = SVG.is_file() and SVG.read_bytes() == saved(figure, "svg")
        sys.exit(0 if fresh else "architecture.svg is out of date: run python benchmarks/architecture_figure.py")
    for path in (SVG, PNG):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(figure, path.suffix[1:]))


if __name__ == "__main__":
    main()
