"""Evaluates a delta-Tm model on a table of measured variants, beside a plain formula and the published predictions.

Needs the ``train`` extra; a model with a language model also the ``plm`` extra.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from enzyme_stability.config.delta_tm import DeltaTmConfig
from enzyme_stability.data.frames import write_table
from enzyme_stability.data.variant_tables import PUBLIC_TABLES, REVERSE, read_variant_table, table_path
from enzyme_stability.errors import ArtifactError, ConfigError, DataError
from enzyme_stability.manifest import writing
from enzyme_stability.metrics import CONFIDENCE
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variant import Variant
from enzyme_stability.variants.alignment import Alignment
from enzyme_stability.variants.card import KINDS, MethodFigures, VariantEvaluation
from enzyme_stability.variants.evaluation_plots import compare_plot, hit_rate_plot, reliability_curve
from enzyme_stability.variants.features import FloatArray
from enzyme_stability.variants.figures import ALL, UNRELATED, compare, formula, hit_rates, reliability
from enzyme_stability.variants.leakage import IDENTITY, mark_relatives, variant_leakage
from enzyme_stability.variants.manifest import MANIFEST, PLAIN, WITH_RELATIVES
from enzyme_stability.variants.model import DeltaTmModel
from enzyme_stability.variants.training import find_relatives, read_examples

LEARNED = "what the model learned from"
"""Name, beside those of the tables as published, of what was left of them for the training."""

COVERAGE = 0.9
"""Of the intervals that are judged."""

_DELTA_TM, _LOWER, _UPPER, _PROBABILITY = _ESTIMATE = (
    "delta_tm_celsius",
    "delta_tm_lower_celsius",
    "delta_tm_upper_celsius",
    "probability_stabilising",
)
_BACK = "reverse_delta_tm_celsius"
_KEPT = ["protein", "variant", "substitutions", "ph", "temperature", "target", "quantity"]
_LEAST_ROWS = 2


def evaluate_delta_tm(
    model: DeltaTmModel,
    table: str,
    *,
    root: Path,
    output: Path,
    database: Path | None = None,
    threads: int = 0,
    bootstrap: int = 1000,
) -> VariantEvaluation:
    """Predict a table of measured variants and say how good the predictions are.

    The way back is predicted from scratch, the sequence of the variant being the wild type. With relatives, they are
    those of the wild type, and only the first row of their alignment is replaced: a search from the variant would find
    the same ones.

    Args:
        model: The model.
        table: Name of a public table, or path of a table with wild types, variants and measured changes of Tm.
        root: Folder of the public tables.
        output: Folder for ``<name>.json``, ``<name>.predictions.csv`` and the pictures that there are figures for.
        database: FASTA file of proteins to look for relatives in; the model is then judged without and with them.
        threads: Threads; 0 takes all cores.
        bootstrap: Number of resamples.

    Raises:
        DataError: A table cannot be read, or has too few variants.
        ConfigError: There is a database, and the model knows nothing of relatives.
        ArtifactError: The model is damaged, or the folder cannot be written to.
        MissingDependencyError: MMseqs2 or Matplotlib is not installed.
    """
    if database is not None and WITH_RELATIVES not in model.manifest["heads"]:
        raise ConfigError(f"{model.name} was trained without relatives: leave the database of proteins out")
    measured = read_variant_table(table, root)
    rows = measured[measured["substitutions"] > 0].reset_index(drop=True)
    if len(rows) < _LEAST_ROWS:
        raise DataError(f"{table} has {len(rows)} variants; at least {_LEAST_ROWS} are needed")
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)  # hours are better not lost on a folder that cannot be written
    quantity = rows["quantity"].iloc[0]
    relations = _relations(model, table, rows, root, threads)
    wild_types = dict(zip(rows["protein"].tolist(), rows["wild_type"].tolist(), strict=True))
    scores = _language_scores(model, wild_types, threads)
    relatives: dict[str, dict[int, Alignment]] = {PLAIN: {}}
    if database is not None:
        relatives[WITH_RELATIVES] = find_relatives(wild_types, database, threads)
    found = {f"{model.name}, {KINDS[kind]}": _predict(model, rows, them, scores) for kind, them in relatives.items()}
    comparison = _comparison(rows, found, relations.near, bootstrap)
    beside = rows.assign(baseline=formula(rows))
    made = VariantEvaluation(
        name=table if table in PUBLIC_TABLES else Path(table).stem,
        description=PUBLIC_TABLES[table].description if table in PUBLIC_TABLES else "measured changes of Tm",
        quantity=quantity,
        model=model.name,
        digest=model.digest,
        measurements=len(rows),
        proteins=len(wild_types),
        relatives_from=None if database is None else database.name,
        proteins_with_relatives=len(relatives.get(WITH_RELATIVES, {})),
        comparison=[_nested(row) for row in comparison.to_dict("records")],
        hit_rates={
            name: hit_rates(beside.assign(predicted=one[_DELTA_TM]), bootstrap=bootstrap) for name, one in found.items()
        },
        reliability={name: reliability(one[_PROBABILITY], rows["target"] > 0) for name, one in found.items()},
        intervals={name: _interval_figures(rows, one) for name, one in found.items() if quantity == "dTm"},
        leakage=relations.leakage,
        notes=[*relations.notes, *_notes(measured, backward=not scores)],
    )
    evaluation = VariantEvaluation.model_validate_json(made.model_dump_json())  # as it will be read: NaN is None
    marks = {f"relative in {name}": near for name, near in relations.near.items()}
    columns = [one.add_prefix(f"{name}: ") for name, one in found.items()]
    predictions = pd.concat([rows[_KEPT].assign(formula=beside["baseline"], **marks), *columns], axis=1)
    _write(evaluation, predictions, comparison, output)
    return evaluation


class _Relations(NamedTuple):
    """Which rows are of proteins with a relative, by where it is, what else is shared, and what to say of it."""

    near: dict[str, npt.NDArray[np.bool_]]
    leakage: dict[str, dict[str, Any]]
    notes: list[str]


def _relations(model: DeltaTmModel, table: str, rows: pd.DataFrame, root: Path, threads: int) -> _Relations:
    """Relatives in what the model learned from and in its tables as published, those of the same quantity first."""
    training = model.manifest.get("training") or {}
    try:
        config = DeltaTmConfig.parse(training["config"], "its training")
        known = training["leakage"] if table in config.held_out else {}
    except (ConfigError, KeyError, TypeError) as error:
        raise ArtifactError(f"{model.folder / MANIFEST} does not say what the model learned from: {error}") from None
    names = [config.table, *config.auxiliary]
    paths = [table_path(name, root) for name in (*names, *config.held_out)]
    if missing := [path.name for path in paths if not path.is_file()]:
        told = f"{', '.join(missing)} not found: relatives of what the model learned from are not told apart"
        return _Relations({}, {}, [told])
    every, quantity = threads or None, rows["quantity"].iloc[0]
    found = _Relations({}, {}, [])
    if table in config.held_out and config.held_out_identity <= IDENTITY:
        found.notes.append(f"no protein has a relative in {LEARNED}: they were left out of the training")
    else:
        learned = read_examples(config, root, threads)[0].table
        found.near[LEARNED] = _has_relative(rows, learned, every)
        found.leakage[LEARNED] = variant_leakage(learned, rows, threads=every).to_dict()
    published = {name: read_variant_table(name, root) for name in names}
    for name in sorted(names, key=lambda name: published[name]["quantity"].iloc[0] != quantity):
        called, train = f"{Path(name).name} as published", published[name]
        found.near[called] = _has_relative(rows, train, every)
        shared = known.get(name, {}).get(table)
        found.leakage[called] = shared or variant_leakage(train, rows, threads=every).to_dict()
    return found


def _has_relative(rows: pd.DataFrame, train: pd.DataFrame, threads: int | None) -> npt.NDArray[np.bool_]:
    return np.asarray(mark_relatives(rows, train, threads=threads)["has_relative"], dtype=bool)


def _language_scores(model: DeltaTmModel, wild_types: Mapping[int, str], threads: int) -> dict[int, FloatArray]:
    if model.language_model is None:
        return {}
    from enzyme_stability.variants import language_scores

    name, method = model.language_model
    loaded = language_scores.load_masked_language_model(name, threads=threads)
    masked = method == "masked-marginals"
    score = language_scores.masked_marginals if masked else language_scores.wild_type_marginals
    return {protein: score(loaded, chain) for protein, chain in wild_types.items()}


def _predict(
    model: DeltaTmModel, rows: pd.DataFrame, relatives: Mapping[int, Alignment], scores: Mapping[int, FloatArray]
) -> pd.DataFrame:
    """The estimate of each row, and that of the way back, NaN where the model takes scores of a language model."""
    found = np.full((len(rows), len(_ESTIMATE) + 1), np.nan)
    for _, own in rows.groupby("protein"):
        protein, chain = int(own["protein"].iloc[0]), str(own["wild_type"].iloc[0])
        alignment = relatives.get(protein)
        variants = {text: Variant.parse(text) for text in own["variant"]}
        estimate = model.predict(
            chain,
            list(map(variants.__getitem__, own["variant"])),
            alignment=alignment,
            language_scores=scores.get(protein),
            coverage=COVERAGE,
        )
        found[own.index, :-1] = np.column_stack(estimate)
        if not scores:
            back = {text: _way_back(model, chain, variant, alignment) for text, variant in variants.items()}
            found[own.index, -1] = own["variant"].map(back)
    return pd.DataFrame(found, columns=[*_ESTIMATE, _BACK])


def _way_back(model: DeltaTmModel, chain: str, variant: Variant, alignment: Alignment | None) -> float:
    mutant = variant.apply(chain)
    if alignment is not None:
        aligned = alignment.rows.copy()
        aligned[0, variant.places] = [AMINO_ACIDS.index(one.substitution) for one in variant.substitutions]
        alignment = Alignment(aligned)
    return float(model.predict(mutant, [Variant.between(mutant, chain)], alignment=alignment).delta_tm[0])


def _comparison(
    rows: pd.DataFrame,
    found: Mapping[str, pd.DataFrame],
    related: Mapping[str, npt.NDArray[np.bool_]],
    bootstrap: int,
) -> pd.DataFrame:
    groups = {ALL: np.ones(len(rows), dtype=bool)}
    for name, near in related.items():
        seen = any(np.array_equal(~near, members) for members in groups.values())
        if np.count_nonzero(~near) >= _LEAST_ROWS and not seen:
            groups[UNRELATED if name == LEARNED else f"{UNRELATED} in {name}"] = ~near
    parts = []
    for group, members in groups.items():
        ours: dict[str, npt.ArrayLike] = {}
        for method, predicted in found.items():
            ours[method] = predicted.loc[members, _DELTA_TM]
            ours[method + REVERSE] = predicted.loc[members, _BACK]
        parts.append(compare(rows[members], ours, bootstrap=bootstrap).assign(rows=group))
    return pd.concat(parts, ignore_index=True)


def _interval_figures(rows: pd.DataFrame, predicted: pd.DataFrame) -> dict[str, Any]:
    lower, upper = predicted[_LOWER], predicted[_UPPER]
    inside = (lower <= rows["target"]) & (rows["target"] <= upper)
    bounds = binomtest(int(inside.sum()), len(rows)).proportion_ci(CONFIDENCE, method="wilson")
    observed = {"value": float(inside.mean()), "low": float(bounds.low), "high": float(bounds.high)}
    return {"nominal": COVERAGE, "observed": observed, "mean_width_celsius": float((upper - lower).mean())}


def _notes(measured: pd.DataFrame, *, backward: bool) -> list[str]:
    several, none = int((measured["substitutions"] > 1).sum()), int((measured["substitutions"] == 0).sum())
    notes = {
        f"{several} variants have several substitutions: their effects are added up (additive)": several > 0,
        f"{none} rows without a substitution are left out": none > 0,
        "measured is ddG in kcal/mol, ours are changes of Tm in °C: there is no error, only correlation and sign": set(
            measured["quantity"]
        )
        == {"ddG"},
        "the way back is left out: it takes the language model once for every variant": not backward,
    }
    return [note for note, holds in notes.items() if holds]


def _write(evaluation: VariantEvaluation, predictions: pd.DataFrame, comparison: pd.DataFrame, output: Path) -> None:
    name, best = evaluation.name, list(evaluation.reliability)[-1]
    pictures = {kind: output / f"{name}.{kind}.png" for kind in ("compare", "reliability", "hit_rates")}
    with writing(output):
        (output / f"{name}.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for path in pictures.values():
            path.unlink(missing_ok=True)  # one of an earlier run must not stand beside other figures
    write_table(predictions, output / f"{name}.predictions.csv")
    if comparison.loc[comparison["rows"] == ALL, "pearson"].notna().any():
        shown = comparison[comparison["rows"].isin(comparison["rows"].unique()[:2])]
        compare_plot(shown, pictures["compare"], name=name)
    reliability_curve(evaluation.reliability[best], pictures["reliability"], name=f"{name}: {best}")
    if any(evaluation.hit_rates[best].values()):
        hit_rate_plot(evaluation.hit_rates[best], pictures["hit_rates"], name=f"{name}: {best}")


def _nested(row: Mapping[Hashable, Any]) -> MethodFigures:
    """A row of ``figures.compare`` with each value and its bounds together, and None for NaN."""
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
    values: dict[str, Any] = {}
    for name in MethodFigures.model_fields:
        values[name] = known[name]
        if f"{name}_low" in known and known[name] is not None:
            values[name] = {"value": known[name], "low": known[f"{name}_low"], "high": known[f"{name}_high"]}
    return MethodFigures.model_validate(values)
