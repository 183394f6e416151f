"""What each part of the built-in recipe is worth, on homology-held-out folds of its own training table.

Prints one row a variant: the shipped recipe, trivial baselines, single parts, and the shipped recipe with one thing
changed. Each has R2, MAE, Spearman, AUC (Tm >= 60 degC), interval coverage and width over the held-out folds, the
paired difference to the shipped recipe, and the seconds and bytes of one training run on the whole table. No test table
is touched; nothing is chosen here.

Needs the extra 'dev' and a table made by 'enzyme-stability data prepare --recipe tm50' (or builtin). A table that has
a column 'cluster' keeps it; otherwise clusters are computed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import typer
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from enzyme_stability.config import LandmarkRidge as RidgeSettings
from enzyme_stability.config import TrainConfig
from enzyme_stability.encoders.composition import amino_acid_frequencies
from enzyme_stability.errors import DataError
from enzyme_stability.fitting import encode, fit_predictor
from enzyme_stability.heads.landmark_ridge import DescriptorScaling, LandmarkRidge
from enzyme_stability.heads.stacked import fit_stack
from enzyme_stability.measured import GIVEN_GROWTH
from enzyme_stability.metrics import paired_difference
from enzyme_stability.training import cross_validate
from enzyme_stability.training_table import read_training_table
from held_out import (
    Columns,
    Fit,
    Model,
    Raw,
    encoded,
    figures_of,
    learning_parts,
    predict_held_out,
    recipe_on,
    smaller,
    stack_with_extra,
    without_quantiles,
)
from reporting import RESULTS, Results, Smoke, figure, keep, machine, number, run, show

SHIPPED = "two ridges + trees (shipped)"
GIVEN = "shipped, given the growth temperature"
_EVERY_PROTEIN = 10**9  # more landmarks than proteins: the kernel is exact
_STEP = 10.0  # degC: what a threshold counts beside a temperature, as in the shipped level 1
_GROWTH_THRESHOLD = 45.0  # degC: thermophiles
_SMOKE_PROTEINS = 1200


@dataclass(frozen=True)
class Variant:
    """One row of the comparison.

    Attributes:
        name: What it is.
        group: ``baselines``, ``parts``, ``shipped`` or ``changes``.
        made: A training run, where a configuration can express it; otherwise a model put together from parts.
    """

    name: str
    group: str
    made: TrainConfig | Fit


def main(
    table: Annotated[Path, typer.Argument(help="Table made by 'enzyme-stability data prepare --recipe ...'.")],
    recipe: Annotated[Literal["tm50", "builtin"], typer.Option(help="Recipe that the variants start from.")] = "tm50",
    only: Annotated[str, typer.Option(help="Only the variants whose name holds this, and the shipped one.")] = "",
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples for the 95 % intervals.")] = 500,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """Compare the variants of a recipe on homology-held-out folds; see the top of this file."""
    facts = machine()
    config = recipe_on(recipe, table)
    config = smaller(config) if smoke else config
    proteins = read_training_table(config)
    if smoke:
        proteins = proteins.iloc[:_SMOKE_PROTEINS].reset_index(drop=True)
    rows: dict[str, dict[str, Any]] = {}
    content = {
        "recipe": recipe,
        "proteins": len(proteins),
        "clusters": int(proteins["cluster"].nunique()),
        "folds": config.split.folds,
        "bootstrap": bootstrap,
        "rows": rows,
    }
    shipped = pd.Series(dtype=float)
    with threadpool_limits(config.threads):
        for variant in variants(proteins, config):
            if variant.group != "shipped" and only not in variant.name:
                continue
            print(f"{variant.name} ...", flush=True)
            predicted = _predict(variant, proteins, config)
            if variant.name == SHIPPED:
                shipped = predicted["predicted_celsius"]
            rows[variant.name] = {
                "group": variant.group,
                **_cost(variant, proteins, config),
                **figures_of(predicted, bootstrap),
                "minus_shipped": paired_difference(
                    predicted["tm_celsius"],
                    predicted["predicted_celsius"],
                    shipped[predicted.index],
                    bootstrap=bootstrap,
                ),
            }
            kept = keep(f"recipe_{recipe}", results, content, facts, smoke=smoke)  # a run broken off leaves what it has
    _print(rows, recipe, len(proteins), config.split.folds)
    print(f"\nfigures are in {kept.name}")


def variants(table: pd.DataFrame, config: TrainConfig) -> list[Variant]:
    """Everything that is compared; whatever has a configuration is trained by the package itself."""
    plain = _without_growth(config)
    ridges, head = config.head.ridges, config.head
    windows = plain.model_copy(
        update={
            "encoder": config.encoder.model_copy(update={"blocks": (*config.encoder.blocks, "window_patterns")}),
            "head": head.model_copy(
                update={
                    "trees": head.trees.model_copy(update={"blocks": (*head.trees.blocks, "window_patterns")}),
                }
            ),
        }
    )
    change = partial(_with_head, plain)
    extra = partial(stack_with_extra, table, plain)
    exact = _each(ridges, landmarks=_EVERY_PROTEIN, sharpness=3.0, penalty=0.15)
    growth = table[["growth_temperature"]].to_numpy(dtype=float)
    known = bool(np.isfinite(growth).all())  # a line and a target need it of every protein
    line = Variant("line on the growth temperature", "baselines", _line(table, growth))
    target = Variant("+ growth temperature as a target", "changes", extra(_growth_ridge(table, config)))
    return [
        Variant(SHIPPED, "shipped", plain),
        Variant(GIVEN, "shipped", config),
        Variant("constant", "baselines", _constant(table)),
        Variant("line on the amino-acid composition", "baselines", _line(table, _composition(table))),
        *([line] if known else []),
        Variant("trees on descriptors only", "parts", _trees_only(table, config)),
        Variant("one ridge only", "parts", _ridge_only(table, config, ridges[0])),
        Variant("one ridge + trees", "parts", change(ridges=ridges[:1])),
        Variant("no thresholds: Tm the only target", "changes", change(thresholds_celsius=())),
        Variant("thresholds 60 and 70 only", "changes", change(thresholds_celsius=(60.0, 70.0))),
        Variant("+ window patterns for the trees", "changes", windows),
        Variant("500 landmarks, not 1000", "changes", change(ridges=_each(ridges, landmarks=500))),
        Variant("2000 landmarks, not 1000", "changes", change(ridges=_each(ridges, landmarks=2000))),
        *([target] if known else []),
        Variant("+ a neural network at level 1", "changes", extra(_network(table, config))),
        Variant("every protein a landmark, sharper kernel", "changes", change(ridges=exact)),
    ]


def _without_growth(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"growth_temperature_columns": ()})})


def _with_head(config: TrainConfig, **changes: Any) -> TrainConfig:
    return config.model_copy(update={"head": config.head.model_copy(update=changes)})


def _each(ridges: tuple[RidgeSettings, ...], **changes: Any) -> tuple[RidgeSettings, ...]:
    return tuple(ridge.model_copy(update=changes) for ridge in ridges)


def _predict(variant: Variant, table: pd.DataFrame, config: TrainConfig) -> pd.DataFrame:
    """Held-out predictions under their plain names; only of proteins with a growth temperature where it is given."""
    if not isinstance(variant.made, TrainConfig):
        return predict_held_out(table, config, variant.made)
    if variant.name != GIVEN:
        return cross_validate(table.assign(growth_temperature=np.nan), variant.made)
    predicted = cross_validate(table, variant.made)[table["growth_temperature"].notna()]
    given = [column for column in predicted if str(column).endswith(GIVEN_GROWTH)]
    if not given:
        raise DataError("too few proteins have a growth temperature to learn from it")
    plain = {column: str(column).removesuffix(GIVEN_GROWTH) for column in given}
    return predicted.drop(columns=list(plain.values())).rename(columns=plain)


def _cost(variant: Variant, table: pd.DataFrame, config: TrainConfig) -> dict[str, float | None]:
    """Seconds of one fit to the whole table, and megabytes of what it leaves where it leaves something."""
    started, busy = time.perf_counter(), time.process_time()
    megabytes = None
    if isinstance(variant.made, TrainConfig):
        known = table if variant.name == GIVEN else table.assign(growth_temperature=np.nan)
        with tempfile.TemporaryDirectory() as folder:
            predictor = fit_predictor(
                known,
                encode(known, variant.made, print),
                variant.made,
                Path(folder),
                checkpoints=Path(folder, "checkpoints"),
                log=lambda _: lambda *_: None,
            )
            megabytes = sum(file.stat().st_size for file in predictor.model_files()) / 1e6
    else:
        learn, _ = learning_parts(table["cluster"].to_numpy(), config)
        variant.made(np.flatnonzero(learn))
    return {
        "train_wall_s": time.perf_counter() - started,
        "train_cpu_s": time.process_time() - busy,
        "artefact_mb": megabytes,
    }


def _tm(table: pd.DataFrame) -> np.ndarray:
    return table["tm_celsius"].to_numpy(dtype=float)


def _constant(table: pd.DataFrame) -> Fit:
    tm = _tm(table)
    return lambda learn: lambda rows: without_quantiles(np.full(len(rows), tm[learn].mean()))


def _composition(table: pd.DataFrame) -> np.ndarray:
    return amino_acid_frequencies(table["residues"].tolist())


def _line(table: pd.DataFrame, inputs: np.ndarray) -> Fit:
    """Straight line through ``inputs``, shape (n, k)."""
    tm = _tm(table)

    def fit(learn: np.ndarray) -> Model:
        line = LinearRegression().fit(inputs[learn], tm[learn])
        return lambda rows: without_quantiles(line.predict(inputs[rows]))

    return fit


def _trees_only(table: pd.DataFrame, config: TrainConfig) -> Fit:
    """The package's stack without its first level."""
    descriptors, blocks = encoded(table, config)
    tm, clusters, unknown = _tm(table), table["cluster"].to_numpy(), np.full(len(table), np.nan)
    settings = config.head.model_copy(update={"ridges": ()})

    def fit(learn: np.ndarray) -> Model:
        parts = (values[learn] for values in (tm, clusters, unknown))
        stack = fit_stack(descriptors[learn], blocks, *parts, settings, config.seed, config.threads)

        def predict(rows: np.ndarray) -> Raw:
            seen = descriptors[rows][:, stack.columns]
            return Raw(*(np.mean([tree.predict(seen) for tree in stack.trees[name]], axis=0) for name in Raw._fields))

        return predict

    return fit


def _ridge_only(table: pd.DataFrame, config: TrainConfig, settings: RidgeSettings) -> Fit:
    descriptors, blocks = encoded(table, config)
    columns = _ridge(descriptors, blocks, _tm(table), (), settings, config.seed)
    return lambda learn: _first_column(columns(learn))


def _first_column(columns: Columns) -> Model:
    return lambda rows: without_quantiles(columns(rows)[:, 0].astype(float))


def _ridge(
    descriptors: np.ndarray,
    blocks: dict[str, slice],
    values: np.ndarray,
    thresholds: tuple[float, ...],
    settings: RidgeSettings,
    seed: int,
) -> Callable[[np.ndarray], Columns]:
    """The package's landmark ridge on ``values`` and on whether they reach each threshold."""
    targets = np.column_stack([values, *((values >= at) * _STEP for at in thresholds)])

    def fit(learn: np.ndarray) -> Columns:
        scaling = DescriptorScaling.fit(descriptors[learn], blocks, settings)
        random = np.random.default_rng(seed)
        ridge = LandmarkRidge.fit(scaling(descriptors[learn]), targets[learn], settings, random)
        return lambda rows: ridge.predict(scaling(descriptors[rows]))

    return fit


def _growth_ridge(table: pd.DataFrame, config: TrainConfig) -> Callable[[np.ndarray], Columns]:
    """Growth temperature as a target of level 1: its prediction, not its value, goes to the trees."""
    descriptors, blocks = encoded(table, config)
    growth = table["growth_temperature"].to_numpy(dtype=float)
    return _ridge(descriptors, blocks, growth, (_GROWTH_THRESHOLD,), config.head.ridges[0], config.seed)


def _network(table: pd.DataFrame, config: TrainConfig) -> Callable[[np.ndarray], Columns]:
    """A multi-target network on all descriptors: scikit-learn's, early stopping instead of dropout."""
    descriptors, _ = encoded(table, config)
    tm = _tm(table)
    targets = np.column_stack([tm, *((tm >= at) * _STEP for at in config.head.thresholds_celsius)])

    def fit(learn: np.ndarray) -> Columns:
        network = MLPRegressor(
            hidden_layer_sizes=(128, 64), alpha=1.0, early_stopping=True, max_iter=200, random_state=config.seed
        )
        scaled = make_pipeline(StandardScaler(), network)
        mean, deviation = targets[learn].mean(axis=0), targets[learn].std(axis=0) + 1e-9
        scaled.fit(descriptors[learn], (targets[learn] - mean) / deviation)
        return lambda rows: scaled.predict(descriptors[rows]) * deviation + mean

    return fit


def _print(rows: dict[str, dict[str, Any]], recipe: str, proteins: int, folds: int) -> None:
    columns = ("", "R2", "MAE", "rho", "AUC60", "cover", "width", "R2 - shipped", "MAE - shipped", "CPU s", "MB")
    lines = []
    for name, row in rows.items():
        value = {key: row[key] and row[key]["value"] for key in ("r2", "mae", "spearman", "auc_60", "coverage")}
        difference = row["minus_shipped"]
        lines.append(
            (
                name,
                number(value["r2"], 4),
                number(value["mae"], 3),
                number(value["spearman"], 3),
                number(value["auc_60"], 3),
                number(value["coverage"], 3),
                number(row["width_celsius"], 1),
                None if name == SHIPPED else figure(difference["r2"], 4, "+"),
                None if name == SHIPPED else figure(difference["mae"], 3, "+"),
                number(row["train_cpu_s"], 1),
                number(row["artefact_mb"], 2),
            )
        )
    show(f"recipe {recipe}: {proteins} proteins, {folds} homology-held-out folds", columns, lines)


if __name__ == "__main__":
    run(main)
