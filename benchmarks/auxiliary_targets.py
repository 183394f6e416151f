"""Do other temperatures of enzymes help to learn Tm? Homology-held-out folds of the builtin recipe, with and without.

Ridges are trained on the tables of enzymes characterised one by one: growth temperature of the organism, catalytic
optimum, temperature of stability. What they predict from the sequence alone goes to the trees as further features.
Enzymes and proteins with a Tm are clustered together, and what a ridge says about a protein never comes from an enzyme
of its cluster. Prints how well each ridge predicts its own target and the known growth temperatures of proteins with a
Tm, then R2, MAE and Spearman of the recipe with each set of further features, and the paired difference to none.

Needs the extra 'dev', the folder enzymes/ of the public data sets and a table made by
'enzyme-stability data prepare --recipe builtin'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import typer
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits

from enzyme_stability.config import TrainConfig
from enzyme_stability.data.homology import cluster
from enzyme_stability.data.preparation import prepare_test_table
from enzyme_stability.data.splits import folds_by_cluster
from enzyme_stability.heads.landmark_ridge import DescriptorScaling, LandmarkRidge
from enzyme_stability.metrics import paired_difference
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.training_table import read_training_table
from held_out import Fit, encoded, figures_of, predict_held_out, recipe_on, smaller, stack_with_extra
from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, figure, keep, machine, number, run, show

GROWTH, OPTIMUM, STABILITY = (f"{name}_temperature_celsius" for name in ("growth", "optimum", "stability"))
TABLES = ("growth_and_optimum", "brenda_stability_train")
"""Names in the package's tables.yaml. The validation part of BRENDA stability stays unseen for purified_enzymes.py."""

FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "none (the recipe)": (),
    "+ growth temperature": (GROWTH,),
    "+ growth temperature, optimum, stability": (GROWTH, OPTIMUM, STABILITY),
}
_THRESHOLDS = {GROWTH: (25, 40, 50, 60, 70), OPTIMUM: (40, 50, 60, 70, 80), STABILITY: (40, 50, 60, 70, 80)}
_STEP = 10.0  # degC: what a threshold counts beside a temperature, as in the shipped level 1
_HOT_ORGANISM = 45.0  # degC
_SMALLEST_GROUP = 20  # proteins; of fewer no figure is worth printing
_SMOKE = {"proteins": 600, "enzymes": 300}


class Outlook(NamedTuple):
    """What a ridge says: of proteins with a Tm, shape (n, k), and how well it does on its own target."""

    features: np.ndarray
    figures: dict[str, Any]


def main(
    table: Annotated[Path, typer.Argument(help="Table made by 'enzyme-stability data prepare --recipe builtin'.")],
    data: Data = DATA,
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples for the 95 % intervals.")] = 500,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """See whether other temperatures of enzymes help to learn Tm; see the top of this file."""
    data_file(data, "enzymes")
    facts = machine()
    config = recipe_on("builtin", table)
    config = smaller(config) if smoke else config
    proteins, enzymes = read_training_table(config), read_enzymes(data)
    if smoke:
        proteins = proteins.iloc[: _SMOKE["proteins"]].reset_index(drop=True)
        enzymes = enzymes.sample(_SMOKE["enzymes"], random_state=0, ignore_index=True)
    together = cluster(
        [*proteins["residues"], *enzymes["residues"]], config.split.cluster_identity, config.split.cluster_coverage
    )
    proteins["cluster"], enzymes["cluster"] = together[: len(proteins)], together[len(proteins) :]
    rows: dict[str, dict[str, Any]] = {}
    predictions: dict[str, pd.DataFrame] = {}
    with threadpool_limits(config.threads):
        outlooks = {target: outlook(proteins, enzymes, target, config) for target in (GROWTH, OPTIMUM, STABILITY)}
        for name, targets in FEATURE_SETS.items():
            print(f"{name} ...", flush=True)
            features = np.column_stack([np.empty((len(proteins), 0)), *(outlooks[t].features for t in targets)])
            predictions[name] = predict_held_out(proteins, config, _with_features(proteins, config, features))
    without = next(iter(predictions.values()))["predicted_celsius"]
    groups = _groups(proteins)
    for name, predicted in predictions.items():
        differences = {
            group: paired_difference(
                predicted["tm_celsius"][chosen],
                predicted["predicted_celsius"][chosen],
                without[chosen],
                bootstrap=bootstrap,
            )
            for group, chosen in groups.items()
            if chosen.sum() >= _SMALLEST_GROUP
        }
        rows[name] = {**figures_of(predicted, bootstrap), "minus_none": differences}
    ridges = {target: made.figures for target, made in outlooks.items()}
    _print(ridges, rows, len(proteins))
    content = {
        "proteins": len(proteins),
        "enzymes": {target: int(enzymes[target].notna().sum()) for target in outlooks},
        "folds": config.split.folds,
        "bootstrap": bootstrap,
        "ridges": ridges,
        "rows": rows,
    }
    print(f"\nfigures are in {keep('auxiliary_targets', results, content, facts, smoke=smoke).name}")


def read_enzymes(data: Path) -> pd.DataFrame:
    """Enzymes with clean residues and whichever of the three temperatures is known, NaN otherwise."""
    tables = [prepare_test_table(name, data).table for name in TABLES]
    enzymes = pd.concat(tables, ignore_index=True)
    enzymes["residues"] = [clean_sequence(sequence).residues for sequence in enzymes["sequence"]]
    enzymes[[GROWTH, OPTIMUM, STABILITY]] = enzymes[[GROWTH, OPTIMUM, STABILITY]].astype(float)
    return enzymes


def outlook(proteins: pd.DataFrame, enzymes: pd.DataFrame, target: str, config: TrainConfig) -> Outlook:
    """Predict one temperature of every protein and enzyme by a ridge that saw no enzyme of its cluster."""
    known = enzymes[enzymes[target].notna()]
    value = known[target].to_numpy()
    targets = np.column_stack([value, *((value >= at) * _STEP for at in _THRESHOLDS[target])])
    of_proteins, columns = encoded(proteins, config)
    of_enzymes, _ = encoded(known, config)
    settings = config.head.ridges[0]
    together = np.concatenate([proteins["cluster"], known["cluster"]])
    folds = folds_by_cluster(together, config.split.folds, config.seed)
    protein_fold, enzyme_fold = folds[: len(proteins)], folds[len(proteins) :]
    said = np.empty((len(proteins), targets.shape[1]))
    own = np.empty(len(known))
    for fold in range(config.split.folds):
        learn = enzyme_fold != fold
        scaling = DescriptorScaling.fit(of_enzymes[learn], columns, settings)
        random = np.random.default_rng(config.seed)
        ridge = LandmarkRidge.fit(scaling(of_enzymes[learn]), targets[learn], settings, random)
        said[protein_fold == fold] = ridge.predict(scaling(of_proteins[protein_fold == fold]))
        own[~learn] = ridge.predict(scaling(of_enzymes[~learn]))[:, 0]
    growth = proteins["growth_temperature"].to_numpy(dtype=float)
    grown = np.isfinite(growth)
    figures = {
        "enzymes": len(known),
        "r2_own_target": float(r2_score(value, own)),
        "spearman_own_target": float(spearmanr(value, own).statistic),
        "spearman_with_growth_of_tm_proteins": float(spearmanr(growth[grown], said[grown, 0]).statistic),
        "spearman_with_tm": float(spearmanr(proteins["tm_celsius"], said[:, 0]).statistic),
    }
    return Outlook(said, figures)


def _with_features(proteins: pd.DataFrame, config: TrainConfig, features: np.ndarray) -> Fit:
    return stack_with_extra(proteins, config, lambda _: lambda rows: features[rows].copy())


def _groups(proteins: pd.DataFrame) -> dict[str, np.ndarray]:
    growth = proteins["growth_temperature"].to_numpy(dtype=float)
    return {
        "all": np.ones(len(proteins), dtype=bool),
        f"growth below {_HOT_ORGANISM:g} degC": growth < _HOT_ORGANISM,
        f"growth of at least {_HOT_ORGANISM:g} degC": growth >= _HOT_ORGANISM,
    }


def _print(ridges: dict[str, dict[str, Any]], rows: dict[str, dict[str, Any]], proteins: int) -> None:
    show(
        "ridges on enzymes, homology-held-out",
        ("target", "enzymes", "R2", "rho", "rho with known growth temperature", "rho with Tm"),
        [
            (
                target.removesuffix("_temperature_celsius"),
                number(figures["enzymes"], 0),
                number(figures["r2_own_target"], 3),
                number(figures["spearman_own_target"], 3),
                number(figures["spearman_with_growth_of_tm_proteins"], 3),
                number(figures["spearman_with_tm"], 3),
            )
            for target, figures in ridges.items()
        ],
    )
    show(
        f"builtin recipe, {proteins} proteins, homology-held-out folds",
        ("features for the trees", "R2", "MAE", "rho", "AUC60"),
        [
            (name, *(number(row[key]["value"], digits) for key, digits in _SHOWN.items() if row[key]))
            for name, row in rows.items()
        ],
    )
    show(
        "difference to the recipe, 95 % paired bootstrap",
        ("features for the trees", "proteins", "n", "R2", "MAE"),
        [
            (name, group, difference["n"], figure(difference["r2"], 4, "+"), figure(difference["mae"], 3, "+"))
            for name, row in list(rows.items())[1:]
            for group, difference in row["minus_none"].items()
        ],
    )


_SHOWN = {"r2": 4, "mae": 3, "spearman": 3, "auc_60": 3}


if __name__ == "__main__":
    run(main)
