"""Proteome-scale Tm against temperatures of purified enzymes: how large the shift is, and what reduces it.

First part: a predictor on BRENDA stability temperatures and catalytic optima, as it is: bias, MAE, Spearman,
AUC (>= 60 degC), coverage and width of the 90 % intervals and the share flagged out of domain; without and with the
growth temperature of the organism, and by growth temperature.

Second part, on the stability temperatures: what reduces the shift. Remedies are compared on homology-held-out folds of
brenda_stability_train; the best of each kind then sees brenda_stability_val once. Their intervals are recalibrated on
held-out predictions of purified enzymes (split conformal for this domain). The kinds: a constant offset; a straight
line on the predicted Tm, with the growth temperature where it is known (a line of its own for either group); and, given
--table, a model trained on both kinds of temperature with the source as an input. Train enzymes of a cluster with a
validation enzyme are left out.

Needs the extra 'dev' and the folder enzymes/ of the public data sets; --table is one made by
'enzyme-stability data prepare --recipe builtin'.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from threadpoolctl import threadpool_limits

from enzyme_stability import Predictor
from enzyme_stability.config import TrainConfig
from enzyme_stability.data.homology import cluster
from enzyme_stability.data.preparation import prepare_test_table
from enzyme_stability.data.splits import folds_by_cluster
from enzyme_stability.measured import GIVEN_GROWTH, known_growth_temperature, predict_table
from enzyme_stability.metrics import paired_difference
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.training_table import read_training_table
from held_out import COVERAGE, Raw, figures_of, recipe_on, smaller
from remedies import FIGURES, FORMS, Remedy, recalibrated, simple_remedies, source_as_input
from reporting import DATA, RESULTS, Data, Results, Smoke, data_file, figure, keep, machine, number, run, show

TRAIN, VALIDATION, OPTIMUM = "brenda_stability_train", "brenda_stability_val", "growth_and_optimum"
GROWTH_EDGES_CELSIUS = (25.0, 45.0, 65.0)
GROWTH_BANDS = ("< 25", "25-45", "45-65", ">= 65")
FOLDS = 5
AS_SHIPPED = "as shipped, its own intervals"
_SMALLEST_GROUP = 10  # proteins; of fewer no figure is worth printing
_REFERENCES = ("minus_shipped", "minus_baseline")
_SMOKE = {"train": 250, "validation": 120, "optimum": 150, "table": 400}


def main(
    data: Data = DATA,
    table: Annotated[Path | None, typer.Option(help="Prepared builtin table: also try the source as an input.")] = None,
    model: Annotated[str, typer.Option(help="Built-in predictor or a folder.")] = "builtin",
    bootstrap: Annotated[int, typer.Option(min=1, help="Resamples for the 95 % intervals.")] = 500,
    results: Results = RESULTS,
    smoke: Smoke = False,
) -> None:
    """Measure the shift to purified enzymes and what reduces it; see the top of this file."""
    data_file(data, "enzymes")
    facts = machine()
    predictor = Predictor.load(model, threads=1)
    names = (TRAIN, TRAIN if smoke else VALIDATION, OPTIMUM)  # a smoke run keeps away from the validation enzymes
    parts = [_SMOKE["train"], _SMOKE["validation"], _SMOKE["optimum"]] if smoke else [None] * len(names)
    train, validation, optimum = map(partial(_predicted, predictor, data), names, parts)
    stability = pd.concat([train, validation], ignore_index=True)
    shift = {"stability": shift_figures(stability, bootstrap), "optimum": shift_figures(optimum, bootstrap)}
    config = recipe_on("builtin", table)
    config = smaller(config) if smoke else config
    learnt = None if table is None else read_training_table(config)
    if learnt is not None and smoke:
        learnt = learnt.iloc[: _SMOKE["table"]].reset_index(drop=True)
    with threadpool_limits(1):
        reduced = remedies_compared(train, validation, learnt, config, bootstrap)
    content = {
        "predictor": predictor.name,
        "predictor_digest": predictor.digest,
        "bootstrap": bootstrap,
        "coverage_asked": COVERAGE,
        "shift": shift,
        "two_labels_of_one_protein": label_noise(stability),
        "remedies": reduced,
    }
    _print(content)
    print(f"\nfigures are in {keep('purified_enzymes', results, content, facts, smoke=smoke).name}")


def shift_figures(enzymes: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    """Figures of the predictions as they are: all, where the growth temperature is known, and by band of it."""
    growth = enzymes["growth_temperature"].to_numpy(dtype=float)
    known = np.isfinite(growth)
    band = np.array(GROWTH_BANDS)[np.searchsorted(GROWTH_EDGES_CELSIUS, np.where(known, growth, 0), side="right")]
    groups = {"all": np.ones(len(enzymes), dtype=bool), "growth temperature unknown": ~known, "known": known}
    groups |= {f"growth {name} degC": known & (band == name) for name in GROWTH_BANDS}
    found: dict[str, Any] = {}
    for name, rows in groups.items():
        if rows.sum() < _SMALLEST_GROUP:
            continue
        chosen = enzymes[rows]
        found[name] = {"without": _group(_plain(chosen), bootstrap)}
        if known[rows].all() and f"predicted_celsius{GIVEN_GROWTH}" in enzymes:
            found[name]["with_growth_temperature"] = _group(_plain(chosen, GIVEN_GROWTH), bootstrap)
            found[name]["difference"] = _difference(_plain(chosen, GIVEN_GROWTH), _plain(chosen), bootstrap)
    return found


def label_noise(enzymes: pd.DataFrame) -> dict[str, Any]:
    """How far two temperatures of one and the same sequence lie apart."""
    apart = [
        abs(a - b)
        for _, values in enzymes.groupby("residues")["tm_celsius"]
        for a, b in combinations(values.tolist(), 2)
    ]
    if not apart:
        return {"pairs": 0, "mean_celsius": None, "median_celsius": None}
    return {"pairs": len(apart), "mean_celsius": float(np.mean(apart)), "median_celsius": float(np.median(apart))}


def remedies_compared(
    train: pd.DataFrame, validation: pd.DataFrame, learnt: pd.DataFrame | None, config: TrainConfig, bootstrap: int
) -> dict[str, Any]:
    """Choose on homology-held-out folds of ``train``; then the best of each kind sees ``validation``."""
    others = [] if learnt is None else learnt["residues"].tolist()
    together = cluster(
        [*train["residues"], *validation["residues"], *others],
        config.split.cluster_identity,
        config.split.cluster_coverage,
    )
    enzymes = pd.concat([train, validation], ignore_index=True)
    clusters = together[: len(enzymes)]
    asked = np.arange(len(train), len(enzymes))
    usable = np.flatnonzero(~np.isin(clusters[: len(train)], clusters[asked]))
    measured = enzymes["tm_celsius"].to_numpy(dtype=float)
    folds = folds_by_cluster(clusters[usable], FOLDS, config.seed)
    remedies = simple_remedies(enzymes)
    if learnt is not None:
        fit = source_as_input(learnt, together[len(enzymes) :], enzymes, clusters, config)
        remedies.append(Remedy("source as an input, growth where known", "source as an input", fit))
    held_out = {}
    for remedy in remedies:
        print(f"{remedy.name} ...", flush=True)
        held_out[remedy.name] = _held_out(remedy, usable, folds)
    mae = {name: float(np.abs(raw.tm - measured[usable]).mean()) for name, raw in held_out.items()}
    kinds = dict.fromkeys(remedy.kind for remedy in remedies)
    best = [min((r for r in remedies if r.kind == kind), key=lambda r: mae[r.name]) for kind in kinds]
    chosen = min((remedy.name for remedy in best if remedy.kind != "baseline"), key=lambda name: mae[name])
    as_it_is = _plain(validation)
    judged = {AS_SHIPPED: {"kind": "as shipped", **_group(as_it_is, bootstrap)}}
    rows: dict[str, pd.DataFrame] = {}
    for remedy in best:
        form, interval = recalibrated(held_out[remedy.name], measured[usable])
        raw = remedy.fit(usable)(asked)
        lower, upper = interval.interval(*FORMS[form](raw), COVERAGE)
        named = {"predicted_celsius": raw.tm, "lower_celsius": lower, "upper_celsius": upper}
        rows[remedy.name] = as_it_is.assign(**named)
        figures = _group(rows[remedy.name], bootstrap)
        judged[remedy.name] = {"kind": remedy.kind, "interval_form": form, **figures}
    references = dict(zip(_REFERENCES, (as_it_is, rows[best[0].name]), strict=True))
    for name, predicted in rows.items():
        judged[name] |= {key: _difference(predicted, other, bootstrap) for key, other in references.items()}
    by_growth = rows[chosen].assign(growth_temperature=validation["growth_temperature"])
    return {
        "train": len(usable),
        "train_near_validation_left_out": len(train) - len(usable),
        "validation": len(validation),
        "folds": FOLDS,
        "train_folds": {remedy.name: {"kind": remedy.kind, "mae": mae[remedy.name]} for remedy in remedies},
        "chosen_on_train": chosen,
        "validation_once": judged,
        "chosen_by_growth": shift_figures(by_growth, bootstrap),
    }


def _held_out(remedy: Remedy, usable: np.ndarray, folds: np.ndarray) -> Raw:
    values = np.empty((3, len(usable)))
    for fold in range(FOLDS):
        values[:, folds == fold] = remedy.fit(usable[folds != fold])(usable[folds == fold])
    return Raw(*values)


def _difference(ours: pd.DataFrame, theirs: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    predicted = (table["predicted_celsius"] for table in (ours, theirs))
    return paired_difference(ours["tm_celsius"], *predicted, bootstrap=bootstrap)


def _predicted(predictor: Predictor, data: Path, name: str, part: int | None) -> pd.DataFrame:
    """Enzymes of a table with their temperature as ``tm_celsius``, beside what the predictor says."""
    rows = prepare_test_table(name, data).table
    if part is not None:
        rows = rows.sample(part, random_state=part, ignore_index=True)
    label = next(c for c in ("stability_temperature_celsius", "optimum_temperature_celsius") if c in rows)
    rows["tm_celsius"] = rows[label].astype(float)
    rows["growth_temperature"] = known_growth_temperature(rows, ["growth_temperature_celsius"])
    made = predict_table(predictor, rows, COVERAGE).drop(columns=["organism"])
    residues = [clean_sequence(sequence).residues for sequence in rows["sequence"]]
    return made.assign(residues=residues)


def _plain(enzymes: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    figures = {name: enzymes[f"{name}{suffix}"].to_numpy() for name in (*FIGURES, "in_domain")}
    return enzymes[["tm_celsius"]].assign(**figures)


def _group(rows: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    return {**figures_of(rows, bootstrap), "flagged_share": float((~rows["in_domain"].astype(bool)).mean())}


def _print(content: dict[str, Any]) -> None:
    columns = ("", "", "n", "bias", "MAE", "rho", "AUC60", "cover", "width", "flagged")
    for label, groups in content["shift"].items():
        show(
            f"{content['predictor']} on purified enzymes: temperature of {label} (degC)",
            columns,
            [
                (name, how.replace("_", " "), *_cells(group[how]))
                for name, group in groups.items()
                for how in ("without", "with_growth_temperature")
                if how in group
            ],
        )
    reduced = content["remedies"]
    show(
        f"what reduces the shift: folds of {reduced['train']} train enzymes, homology held out "
        f"({reduced['train_near_validation_left_out']} near a validation enzyme left out)",
        ("remedy", "MAE"),
        [(name, number(row["mae"], 2)) for name, row in reduced["train_folds"].items()],
    )
    show(
        f"the best of each kind, once, on {reduced['validation']} validation enzymes; chosen on train: "
        f"{reduced['chosen_on_train']}",
        ("remedy", *columns[2:], "R2", "MAE - shipped", "MAE - baseline"),
        [
            (
                name,
                *_cells(row),
                number(row["r2"]["value"], 2),
                *(
                    figure(row[key]["mae"], 1, "+") if key in row else None
                    for key in ("minus_shipped", "minus_baseline")
                ),
            )
            for name, row in reduced["validation_once"].items()
        ],
    )
    show(
        "the chosen one on the validation enzymes",
        ("", *columns[2:]),
        [(name, *_cells(group["without"])) for name, group in reduced["chosen_by_growth"].items()],
    )
    for line in _what_remains(content):
        print(line)


def _what_remains(content: dict[str, Any]) -> list[str]:
    reduced, noise = content["remedies"], content["two_labels_of_one_protein"]
    judged = reduced["validation_once"]
    before = judged[AS_SHIPPED]
    baseline = next(row for row in judged.values() if row["kind"] == "baseline")
    after = judged[reduced["chosen_on_train"]]
    against = figure(after["minus_baseline"]["mae"], 1, "+")
    lines = [
        "",
        f"As shipped: {before['bias']['value']:+.1f} K bias, MAE {before['mae']['value']:.1f} K; intervals asked for "
        f"{COVERAGE:.0%} cover {before['coverage']['value']:.0%}. After the remedy chosen on train: "
        f"{after['bias']['value']:+.1f} K, MAE {after['mae']['value']:.1f} K, {after['coverage']['value']:.0%} covered "
        f"by intervals {after['width_celsius']:.0f} K wide.",
        f"The best baseline, which knows no sequence, has MAE {baseline['mae']['value']:.1f} K and intervals "
        f"{baseline['width_celsius']:.0f} K wide; the remedy's MAE minus its: {against} K.",
    ]
    if noise["pairs"]:
        lines.append(
            f"Two stability temperatures of one sequence differ by {noise['mean_celsius']:.1f} K on average "
            f"(median {noise['median_celsius']:.1f} K, {noise['pairs']} pairs): part of "
            "what remains is in the labels."
        )
    return lines


def _cells(group: dict[str, Any]) -> tuple[str | None, ...]:
    value = {key: group[key] and group[key]["value"] for key in ("spearman", "auc_60", "coverage")}
    return (
        str(group["n"]),
        figure(group["bias"], 1, "+"),
        figure(group["mae"], 1),
        *(number(value[key], 2) for key in ("spearman", "auc_60", "coverage")),
        number(group["width_celsius"], 1),
        f"{group['flagged_share']:.0%}",
    )


if __name__ == "__main__":
    run(main)
