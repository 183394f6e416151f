"""Evaluation of a predictor on one table: its figures, beside trivial baselines and published predictors.

The table is the one of ``enzyme_stability.metrics``, whose figures this module gathers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LinearRegression

from enzyme_stability.encoders.composition import ResidueBatch
from enzyme_stability.errors import DataError
from enzyme_stability.metrics import (
    FloatArray,
    domain_figures,
    finite_column,
    interval_figures,
    metrics,
    paired_difference,
    within_organism_figures,
)
from enzyme_stability.sequence import clean_sequence

GROWTH_TEMPERATURE = "growth_temperature_celsius"

_SAME_MEASUREMENT_CELSIUS = 0.05  # peers print the measured Tm in single precision or with one decimal
_FEWEST_FOR_A_LINE = 10


@dataclass(frozen=True)
class Peer:
    """Published predictions for a test table.

    Attributes:
        name: Name of the predictor.
        table: Test table, by its name in ``conf/tables.yaml``, that the predictions are for.
        path: CSV file, relative to the data folder.
        key: Column of our table that identifies a protein.
        their_key: Column of the file that holds the same.
        predicted: Column with the prediction, degC.
        measured: Column with the Tm that the peer believes was measured, degC, where the file has it.
        note: What a reader must know to compare fairly.
        source: Where the predictions come from.
    """

    name: str
    table: str
    path: str
    key: Literal["id", "sequence"]
    their_key: str
    predicted: str
    measured: str | None
    note: str
    source: str


PEERS = (
    Peer(
        name="DeepTM",
        table="tm50_test",
        path="tm/tm50/peers/deeptm_test_predictions.csv",
        key="id",  # a row number of the benchmark, not an accession
        their_key="uniprot_id",
        predicted="prediction",
        measured="Tm",
        note="is given a predicted growth temperature",
        source="Li et al. 2023, doi 10.1016/j.csbj.2023.11.006",
    ),
    Peer(
        name="Seq2Tm",
        table="tm50_test",
        path="tm/tm50/peers/seq2tm_test_predictions.csv",
        key="sequence",
        their_key="sequence",
        predicted="pred_tm",
        measured=None,
        note="ESM-2 language model",
        source="Qiu et al., github.com/SizheQiu/Seq2Topt",
    ),
    Peer(
        name="TmPred",
        table="tmpred_test",
        # The five files are the folds of a cross-validation, each of other proteins: this fold is the test table.
        path="tm/tmpred/peers/tmpred_fold2_test_predictions.csv",
        key="id",
        their_key="uniprot_id",
        predicted="prediction",
        measured="Tm",
        note="trained on proteins above 60 °C only",
        source="github.com/alwaysniu/TmPred",
    ),
)
"""Every published prediction this package compares with."""


def load_peers(test_table: str, table: pd.DataFrame, data_folder: Path) -> pd.DataFrame:
    """Published predictions for the proteins of a test table, each brought to the right row by its key.

    Args:
        test_table: Name of the test table in ``conf/tables.yaml``.
        table: Its proteins: ``id``, ``tm_celsius``, ``sequence``; as read by ``data.preparation.prepare_test_table``.
        data_folder: Folder that the declared paths are relative to.

    Returns:
        A column of predictions, degC, by name of the peer; rows and index of ``table``; NaN for a protein the peer
        says nothing about. No column where no peer has published predictions for this table.

    Raises:
        DataError: A file is missing or lacks a column, repeats a protein, knows none of ours, or was made for another
            measured Tm than ours.
    """
    peers = [peer for peer in PEERS if peer.table == test_table]
    columns = {peer.name: _aligned(peer, table, data_folder / peer.path) for peer in peers}
    return pd.DataFrame(columns, index=table.index)


def baselines(
    train: pd.DataFrame,
    table: pd.DataFrame,
    *,
    growth_temperature_column: str = GROWTH_TEMPERATURE,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """What anyone could have predicted without a model: fitted on the training table, judged on the other.

    Args:
        train: Training proteins, ``tm_celsius`` and where known ``sequence`` and growth temperature.
        table: Predictions and measured values.
        growth_temperature_column: Column, of both tables, with the growth temperature, degC.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        By name ``metrics`` of the baseline and ``difference`` (ours minus it, ``paired_difference``): ``constant``
        (mean Tm of the training table), ``composition`` (straight line on the 20 amino-acid frequencies) and
        ``growth_temperature`` (straight line on it, over the proteins where it is known). One whose columns are not
        in both tables, or known for fewer than ten proteins in either, is left out.

    Raises:
        DataError: A column is missing, a value is not finite, or there are fewer than two proteins.
        SequenceError: A sequence is unusable.
    """
    tm = finite_column(train, "tm_celsius")
    predictions = {"constant": np.full(len(table), tm.mean())}
    if "sequence" in train and "sequence" in table:
        predictions["composition"] = _line(_frequencies(train), tm, _frequencies(table))
    if growth_temperature_column in train and growth_temperature_column in table:
        known, asked = (
            pd.to_numeric(rows[growth_temperature_column]).to_numpy(dtype=float)[:, None] for rows in (train, table)
        )
        if min(np.isfinite(known).sum(), np.isfinite(asked).sum()) >= _FEWEST_FOR_A_LINE:
            predictions["growth_temperature"] = _line(known, tm, asked)
    return {name: _compare(table, values, bootstrap, seed) for name, values in predictions.items()}


@dataclass(frozen=True)
class Evaluation:
    """Figures of one predictor on one table, ready for JSON and for the model card.

    Attributes:
        name: What was evaluated on what, for instance 'tm50_test'.
        metrics: ``metrics.metrics``.
        intervals: ``metrics.interval_figures``.
        domain: ``metrics.domain_figures``.
        within_organism: ``metrics.within_organism_figures``, or ``None``.
        baselines: ``baselines``.
        peers: By name of the peer ``metrics`` and ``difference`` over the proteins it predicts, ``note``, ``source``.
        leakage: ``LeakageReport.to_dict()`` of the training and this table, or ``None`` where it was not made.
        source: What is known about the data: ``description``, ``label``, ``split``, ``citation``, ``licence``, ...
        unpredicted: Rows of the table that got no prediction and are in none of the figures.
    """

    name: str
    metrics: dict[str, Any]
    intervals: dict[str, Any]
    domain: dict[str, Any]
    within_organism: dict[str, Any] | None = None
    baselines: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, Any] = field(default_factory=dict)
    leakage: dict[str, Any] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    unpredicted: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values only; what is not a finite number is ``None``."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Inverse of ``to_dict``.

        Raises:
            DataError: A field is missing or unknown.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise DataError(f"this is no saved evaluation: {error}") from error

    def summary(self, width: int = 120) -> str:
        """The figures as text for a terminal of ``width`` columns."""
        n, unpredicted = self.metrics["n"], f", {self.unpredicted} not predicted" if self.unpredicted else ""
        table = Table(title=f"{self.name}: {n} proteins{unpredicted}", title_justify="left")
        table.add_column("", no_wrap=True)
        for heading in ("n", "R²", "RMSE", "MAE", "bias", "Spearman", "AUC"):
            table.add_column(heading, justify="right")
        others = {**self.baselines, **self.peers}
        for name, figures in {"this model": self.metrics, **{k: v["metrics"] for k, v in others.items()}}.items():
            cells = [_cell(figures[key], 2) for key in ("r2", "rmse", "mae", "bias", "spearman", "auc_60")]
            # The bounds go on a line of their own, short enough for a narrow column.
            cells = [cell.replace(" (", "\n").replace(" to ", "..").removesuffix(")") for cell in cells]
            table.add_row(name.replace("_", " "), str(figures["n"]), *cells)
        text = StringIO()
        console = Console(file=text, width=width)
        console.print(table)
        console.print("\n".join(self._lines(others)), highlight=False, markup=False)
        return text.getvalue()

    def _lines(self, others: Mapping[str, Any]) -> list[str]:
        lines = []
        for name, other in others.items():
            r2, mae = _cell(other["difference"]["r2"], 3, "+"), _cell(other["difference"]["mae"], 2, "+")
            lines.append(f"this model minus {name.replace('_', ' ')}: R² {r2}, MAE {mae}")
        asked = f" (asked for {self.intervals['nominal']:.0%})" if self.intervals["nominal"] else ""
        groups = {"intervals": self.intervals["overall"], **self.intervals["bands"]}
        for name, group in groups.items():
            if group:
                coverage, width = _cell(group["coverage"], 3), group["mean_width_celsius"]
                what = f"{name}{asked}" if name == "intervals" else f"  Tm {name} °C"
                lines.append(f"{what}: cover {coverage} of {group['n']}, {width:.1f} °C wide on average")
        flagged = f"flagged as unlike the training data: {self.domain['flagged_share']:.1%}"
        if difference := self.domain["difference"]:
            flagged += f", MAE {_cell(difference['mae'], 2, '+')} against the others"
        lines.append(flagged)
        if within := self.within_organism:
            r2, spearman = _cell(within["r2"], 2), _cell(within["mean_spearman"], 2)
            organisms = f"{len(within['organisms'])} organisms ({within['n']} proteins)"
            lines.append(f"within {organisms}: R² {r2}, mean Spearman {spearman}")
        return lines


def evaluate(
    name: str,
    table: pd.DataFrame,
    *,
    train: pd.DataFrame | None = None,
    peers: pd.DataFrame | None = None,
    leakage: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    nominal_coverage: float | None = None,
    growth_temperature_column: str = GROWTH_TEMPERATURE,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Everything there is to say about the predictions of one table.

    Args:
        name: Name of the evaluation.
        table: Predictions and measured values; a row without ``predicted_celsius`` is counted and left aside.
        train: Training proteins for ``baselines``; none are fitted without.
        peers: As from ``load_peers``, with the rows and the index of ``table``.
        leakage: As from ``LeakageReport.to_dict``.
        source: What is known about the data; see ``Evaluation``.
        nominal_coverage: Coverage that the intervals were asked for.
        growth_temperature_column: See ``baselines``.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Raises:
        DataError: A column is missing, a value is not finite, or fewer than two proteins have a prediction.
        SequenceError: A sequence is unusable.
    """
    if "predicted_celsius" not in table:
        raise DataError(f"the table of predictions has no column 'predicted_celsius'; it has {list(table.columns)}")
    predicted = table["predicted_celsius"].notna()
    rows = table[predicted]
    trivial = {}
    if train is not None:
        trivial = baselines(
            train, rows, growth_temperature_column=growth_temperature_column, bootstrap=bootstrap, seed=seed
        )
    published = {}
    about = {peer.name: {"note": peer.note, "source": peer.source} for peer in PEERS}
    for peer, values in (peers[predicted] if peers is not None else pd.DataFrame()).items():
        compared = _compare(rows, values.to_numpy(dtype=float), bootstrap, seed)
        published[str(peer)] = {**compared, **about.get(str(peer), {})}
    return Evaluation(
        name=name,
        metrics=metrics(rows, bootstrap=bootstrap, seed=seed),
        intervals=interval_figures(rows, nominal=nominal_coverage),
        domain=domain_figures(rows, bootstrap=bootstrap, seed=seed),
        within_organism=within_organism_figures(rows, bootstrap=bootstrap, seed=seed),
        baselines=trivial,
        peers=published,
        leakage=None if leakage is None else dict(leakage),
        source=dict(source or {}),
        unpredicted=int((~predicted).sum()),
    )


def _compare(table: pd.DataFrame, theirs: FloatArray, bootstrap: int, seed: int) -> dict[str, Any]:
    """Figures of other predictions (NaN where there is none) and how ours differ, over the proteins they cover."""
    rows, theirs = table[np.isfinite(theirs)], theirs[np.isfinite(theirs)]
    difference = paired_difference(
        rows["tm_celsius"], rows["predicted_celsius"], theirs, bootstrap=bootstrap, seed=seed
    )
    return {
        "metrics": metrics(rows.assign(predicted_celsius=theirs), bootstrap=bootstrap, seed=seed),
        "difference": difference,
    }


def _aligned(peer: Peer, table: pd.DataFrame, path: Path) -> pd.Series:
    try:
        file = pd.read_csv(path, dtype={peer.their_key: str})
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the predictions of {peer.name} cannot be read: {error}") from error
    wanted = [column for column in (peer.their_key, peer.predicted, peer.measured) if column]
    for columns, where in ((wanted, file), ([peer.key], table)):
        if absent := [column for column in columns if column not in where]:
            raise DataError(f"comparing with {peer.name} needs the columns {absent}; there are {list(where.columns)}")
    theirs, ours = file[peer.their_key], table[peer.key].astype(str)
    if peer.key == "sequence":
        theirs, ours = (keys.map(lambda text: clean_sequence(text).residues) for keys in (theirs, ours))
    if (again := theirs.duplicated()).any():
        raise DataError(f"{path}, line {int(again.argmax()) + 2}: the protein stands there twice")
    file = file.set_index(theirs).reindex(ours).set_axis(table.index)
    if file[peer.predicted].isna().all():
        raise DataError(f"{path}: predicts none of the {len(table)} proteins of {peer.table}")
    if peer.measured is not None:
        off = (file[peer.measured] - table["tm_celsius"]).abs()
        if (wrong := off > _SAME_MEASUREMENT_CELSIUS).any():
            row = wrong.argmax()
            raise DataError(
                f"{path}: {peer.name} was judged by a Tm of {file[peer.measured].iloc[row]:g} °C for "
                f"{ours.iloc[row]}, ours is {table['tm_celsius'].iloc[row]:g} °C; {int(wrong.sum())} proteins differ"
            )
    return file[peer.predicted].astype(float)


def _frequencies(table: pd.DataFrame) -> FloatArray:
    return ResidueBatch([clean_sequence(text).residues for text in table["sequence"]]).frequencies


def _line(inputs: FloatArray, tm: FloatArray, asked: FloatArray) -> FloatArray:
    """Straight line through (n, k) inputs, at (m, k) others; NaN where an input is unknown."""
    known, answerable = np.isfinite(inputs).all(axis=1), np.isfinite(asked).all(axis=1)
    predicted = np.full(len(asked), np.nan)
    predicted[answerable] = LinearRegression().fit(inputs[known], tm[known]).predict(asked[answerable])
    return predicted


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.generic():
            return _plain(value.item())
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def _cell(figure: Mapping[str, float] | None, digits: int, sign: str = "") -> str:
    if figure is None:
        return "-"
    value, low, high = (f"{figure[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
