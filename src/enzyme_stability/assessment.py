"""Evaluates a predictor on a table and leaves figures, pictures and predictions in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from enzyme_stability import card, plots
from enzyme_stability.data.frames import read_table, write_table
from enzyme_stability.data.leakage import leakage
from enzyme_stability.data.preparation import prepare_test_table
from enzyme_stability.data.tables import find_table, known_tables
from enzyme_stability.embeddings.table import EmbeddingTable
from enzyme_stability.errors import DataError
from enzyme_stability.evaluation import PEERS, Evaluation, evaluate, load_peers
from enzyme_stability.manifest import writing
from enzyme_stability.measured import GIVEN_GROWTH, HELD_OUT_FOLDS, known_growth_temperature, predict_table
from enzyme_stability.metrics import coverage_curve
from enzyme_stability.predictor import Predictor

COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_GROWTH_COLUMNS = ("growth_temperature_celsius", "predicted_growth_temperature_celsius")
_FOLDS = {"label": "Tm", "split": "homology-held-out folds", "description": "folds without relatives"}
_FIGURES = ("predicted_celsius", "lower_celsius", "upper_celsius", "in_domain")


def assess(
    predictor: Predictor,
    table: str,
    *,
    root: Path,
    output: Path,
    train: Path | None = None,
    with_growth_temperature: bool = False,
    coverage: float = 0.9,
    embeddings: EmbeddingTable | None = None,
) -> Evaluation:
    """Predict a table with measured temperatures and say how good the predictions are.

    Args:
        predictor: The predictor.
        table: Name of a public table, or path of a table with sequences and temperatures.
        root: Folder with the raw public tables.
        output: Folder for ``<name>.json``, the predictions and the pictures.
        train: The prepared table the predictor learned from: for the baselines and the leakage report.
        with_growth_temperature: Give the predictor the growth temperature; proteins without one are left aside.
        coverage: Coverage of the intervals.
        embeddings: Taken instead of the sequences, by the table's ids.

    Raises:
        ArtifactError: The folder cannot be written to.
        DataError: The table cannot be read, or has no growth temperature where one is wanted.
    """
    rows = prepare_test_table(table, root).table
    name, about = Path(table).stem, {"label": "Tm", "split": "test"}
    if table in known_tables():
        known = find_table(table)
        name, about = table, {**about, "description": known.description, "citation": known.citation}
    for label in ("stability", "optimum"):
        if f"{label}_temperature_celsius" in rows:
            rows["tm_celsius"] = rows[f"{label}_temperature_celsius"]
            about["label"] = f"{label} temperature"
    rows["growth_temperature"] = known_growth_temperature(rows, _GROWTH_COLUMNS)
    if with_growth_temperature:
        rows = rows[rows["growth_temperature"].notna()]
        if rows.empty or not predictor.takes_growth_temperature:
            raise DataError(f"{table} or the predictor knows no growth temperature")
        name, about["description"] = f"{name}_with_growth_temperature", "growth temperature given as an input"
    made = predict_table(predictor, rows, coverage, embeddings)
    predicted = _chosen(rows, made, GIVEN_GROWTH if with_growth_temperature else "")
    learnt = None if train is None else read_table(train)
    report = None
    if learnt is not None:
        if absent := {"sequence", "tm_celsius"}.difference(learnt.columns):
            raise DataError(f"{train} lacks {', '.join(sorted(absent))}; give the table the predictor learned from")
        learnt["growth_temperature"] = known_growth_temperature(learnt, _GROWTH_COLUMNS)
        report = leakage(learnt["sequence"].tolist(), rows["sequence"].tolist()).to_dict()
    peers = None
    if any(peer.table == table for peer in PEERS):
        peers = load_peers(table, rows, root)
    evaluation = evaluate(
        name,
        predicted,
        train=learnt,
        peers=peers,
        leakage=report,
        source=about,
        nominal_coverage=coverage,
        growth_temperature_column="growth_temperature",
    )
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        _write_json(evaluation, output)
        write_table(predicted.drop(columns="sequence"), output / f"{name}.predictions.csv")
        plots.parity(predicted, output / f"{name}_parity.png", name=name, quantity=about["label"])
        plots.error_by_band(predicted, output / f"{name}_error_by_band.png", name=name, quantity=about["label"])
        _plot_coverage(predictor, rows, output / f"{name}_coverage.png", name, with_growth_temperature, embeddings)
    return evaluation


def assess_folds(predictor: Predictor, *, with_growth_temperature: bool = False) -> Evaluation | None:
    """The figures over the homology-held-out folds that training left in the predictor's folder; None without."""
    path = predictor.folder / f"{HELD_OUT_FOLDS}.csv"
    if not path.is_file():
        return None
    rows = read_table(path)
    if with_growth_temperature:
        if not predictor.takes_growth_temperature:
            return None
        rows = rows[rows["growth_temperature"].notna()]
    predicted = _chosen(rows, rows, GIVEN_GROWTH if with_growth_temperature else "")
    name = f"{HELD_OUT_FOLDS}{'_with_growth_temperature' * with_growth_temperature}"
    return evaluate(name, predicted, source=_FOLDS, nominal_coverage=0.9)


def assess_run(predictor: Predictor, calibration: pd.DataFrame, learnt: pd.DataFrame, folder: Path) -> Evaluation:
    """How good a fresh predictor is: over the held-out folds or, without any, on the proteins kept for the intervals.

    Args:
        predictor: As training left it.
        calibration: Proteins of clusters it was not fitted on; its intervals were calibrated on them.
        learnt: Proteins it was fitted on, for the baselines.
        folder: For the pictures and, without folds, the figures.

    Raises:
        ArtifactError: The folder cannot be written to.
    """
    evaluation = assess_folds(predictor)
    if evaluation is not None:
        predicted = read_table(predictor.folder / f"{HELD_OUT_FOLDS}.csv")
    else:
        predicted = _chosen(calibration, predict_table(predictor, calibration), "")
        source = {"label": "Tm", "split": "calibration", "description": "proteins kept for the intervals"}
        evaluation = evaluate("calibration_proteins", predicted, train=learnt, source=source, nominal_coverage=0.9)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if evaluation.name != HELD_OUT_FOLDS:  # those have their file beside the card
            _write_json(evaluation, folder)
        plots.parity(predicted, folder / f"{evaluation.name}_parity.png", name=evaluation.name)
        plots.error_by_band(predicted, folder / f"{evaluation.name}_error_by_band.png", name=evaluation.name)
    return evaluation


def main_figures(evaluation: Evaluation) -> dict[str, float]:
    """The figures that are known, without their bounds."""
    figures = {**evaluation.metrics, "coverage": evaluation.intervals["overall"]["coverage"]}
    return {
        key: figure["value"]
        for key, figure in figures.items()
        if isinstance(figure, Mapping) and figure.get("value") is not None
    }


def write_main_figures(evaluation: Evaluation, predictor: Predictor, path: Path) -> None:
    """Write the main figures of an evaluation and of the folds of the predictor's training, by name of each.

    Raises:
        ArtifactError: The file cannot be written.
    """
    evaluations = [e for e in (evaluation, assess_folds(predictor)) if e is not None]
    with writing(path):
        path.write_text(json.dumps({e.name: main_figures(e) for e in evaluations}, indent=1) + "\n", encoding="utf-8")


def write_card(predictor: Predictor, evaluations: Path) -> Path:
    """Write ``CARD.md`` into the predictor's folder from the run and from saved evaluations.

    Args:
        predictor: The predictor.
        evaluations: Folder with the JSON files that ``assess`` leaves.

    Raises:
        ArtifactError: The predictor's folder cannot be written to.
        DataError: The folder is missing, or holds no evaluation or a damaged one.
    """
    found = sorted(evaluations.glob("*.json"))
    if not found and not (predictor.folder / f"{HELD_OUT_FOLDS}.csv").is_file():
        raise DataError(f"{evaluations} holds no evaluation; make some with 'enzyme-stability evaluate'")
    saved = [_read_evaluation(path) for path in found]
    folds = [assess_folds(predictor, with_growth_temperature=given) for given in (False, True)]
    tests = [e for e in saved if e.source.get("label") == "Tm"] + [e for e in folds[1:] if e is not None]
    purified = [e for e in saved if e.source.get("label") != "Tm"]
    training = predictor.manifest["training"]
    text = card.render_card(
        {"name": predictor.name, "description": predictor.manifest["description"], **training},
        cross_validation=None if folds[0] is None else folds[0].to_dict(),
        tests=[e.to_dict() for e in tests],
        purified=[e.to_dict() for e in purified],
        artefact_bytes=sum(path.stat().st_size for path in predictor.model_files()),
        calibration_proteins=training["calibration_proteins"],
    )
    path = predictor.folder / "CARD.md"
    with writing(predictor.folder):
        for evaluation in folds:
            if evaluation is not None:
                _write_json(evaluation, predictor.folder)
        path.write_text(text, encoding="utf-8")
    return path


def _read_evaluation(path: Path) -> Evaluation:
    try:
        return Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, DataError, KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an evaluation: {error}") from None


def _write_json(evaluation: Evaluation, folder: Path) -> None:
    text = json.dumps(evaluation.to_dict(), indent=1) + "\n"
    (folder / f"{evaluation.name}.json").write_text(text, encoding="utf-8")


def _chosen(rows: pd.DataFrame, made: pd.DataFrame, suffix: str) -> pd.DataFrame:
    """Measured values and the predictions with or without the growth temperature, under their plain names."""
    kept = [c for c in ("id", "sequence", "tm_celsius", "organism", "growth_temperature") if c in rows]
    figures = {name: made[f"{name}{suffix}"] for name in _FIGURES}
    figures["in_domain"] = figures["in_domain"].astype(bool)
    return rows[kept].assign(**figures)


def _plot_coverage(
    predictor: Predictor,
    rows: pd.DataFrame,
    path: Path,
    name: str,
    with_growth_temperature: bool,
    embeddings: EmbeddingTable | None,
) -> None:
    suffix = GIVEN_GROWTH if with_growth_temperature else ""
    bounds: dict[float, Any] = {}
    for level in COVERAGES:
        made = predict_table(predictor, rows, level, embeddings)
        bounds[level] = (made[f"lower_celsius{suffix}"], made[f"upper_celsius{suffix}"])
    plots.coverage(coverage_curve(np.asarray(rows["tm_celsius"]), bounds), path, name=name)
