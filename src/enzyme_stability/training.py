"""Training: from a prepared table to a predictor, and the same on homology-held-out folds to report how good it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.domain import ApplicabilityDomain
from enzyme_stability.encoders.composition import CompositionEncoder, amino_acid_frequencies
from enzyme_stability.errors import DataError, SequenceError
from enzyme_stability.heads.onnx_export import to_onnx
from enzyme_stability.heads.onnx_head import OnnxHead
from enzyme_stability.heads.stacked import fit_stack
from enzyme_stability.measured import HELD_OUT_FOLDS, known_growth_temperature, predict_table
from enzyme_stability.predictor import PLAIN, WITH_GROWTH, Predictor, write_predictor
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.uncertainty import ConformalInterval

if TYPE_CHECKING:
    import pandas as pd

    from enzyme_stability.config import TrainConfig

MINIMUM_PROTEINS = 200
"""Fewer training proteins than this give neither trees nor intervals worth having."""

MINIMUM_CALIBRATION = 60
"""Calibration proteins below which the shorter tail of a 90 % interval may have no rank of its own."""


def train(config: TrainConfig, report: Callable[[str], None] = lambda _: None) -> Predictor:
    """Train a predictor and write it to ``config.output``.

    Args:
        config: Everything that decides the run.
        report: Called with a sentence on what happens next.

    Raises:
        DataError: The table cannot be used.
        ArtifactError: The folder cannot be written.
    """
    report(f"reading {config.data.path}")
    table = read_training_table(config)
    folds = None
    if config.cross_validation_folds:
        folds = cross_validate(table, config, report)
    report(f"fitting {config.name} on {len(table)} proteins")
    predictor = _fit(table, config, config.output)
    if folds is not None:
        folds.to_csv(config.output / f"{HELD_OUT_FOLDS}.csv", index=False, float_format="%.3f")
    return predictor


def read_training_table(config: TrainConfig) -> pd.DataFrame:
    """The prepared table with clean residues and columns ``cluster`` and ``growth_temperature``.

    Clusters are computed unless the table brings a ``cluster`` column; rows whose ``split`` is ``test`` are left aside.
    """
    from enzyme_stability.data.frames import read_table
    from enzyme_stability.data.homology import cluster

    path = config.data.path
    table = read_table(path)
    if missing := {"sequence", "tm_celsius"}.difference(table.columns):
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; make it with 'enzyme-stability data prepare'")
    if "split" in table:
        table = table[table["split"] != "test"]
    table = table.dropna(subset=["sequence", "tm_celsius"]).reset_index(drop=True)
    _refuse_too_few(len(table), config)
    growth_columns = [column for column in config.data.growth_temperature_columns if column in table]
    for column in ("tm_celsius", *growth_columns):
        table[column] = _numbers(table, column, path)
    table["residues"] = _residues(table, path)
    table["growth_temperature"] = known_growth_temperature(table, growth_columns)
    if "cluster" not in table:
        table["cluster"] = cluster(
            table["residues"].tolist(), config.data.cluster_identity, config.data.cluster_coverage
        )
    return table


def _numbers(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """A column as numbers; what is neither a finite number nor missing is an error that names the row."""
    import pandas as pd

    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    bad = table[column].notna() & ~np.isfinite(numbers)
    if bad.any():
        row = bad.to_numpy().argmax()
        raise DataError(f"{path}, row {row + 1}: {column} is '{table[column].iloc[row]}', which is no temperature")
    return numbers


def _residues(table: pd.DataFrame, path: Path) -> list[str]:
    residues = []
    for row, sequence in enumerate(table["sequence"], start=1):
        try:
            residues.append(clean_sequence(str(sequence)).residues)
        except SequenceError as error:
            raise DataError(f"{path}, row {row}: {error}") from None
    return residues


def _refuse_too_few(proteins: int, config: TrainConfig) -> None:
    """Say before anything is fitted that the settings ask for more proteins than there are."""
    path, trees, share = config.data.path.name, config.head.trees, config.data.calibration_share
    if proteins < MINIMUM_PROTEINS:
        raise DataError(f"{path} has {proteins} proteins with a Tm; at least {MINIMUM_PROTEINS} are needed")
    folds = config.cross_validation_folds
    learnt = proteins * (1 - 1 / folds if folds else 1)
    if (calibration := int(learnt * share)) < MINIMUM_CALIBRATION:
        raise DataError(
            f"{path} would leave {calibration} proteins to calibrate the intervals on, and {MINIMUM_CALIBRATION} are "
            f"needed: raise data.calibration_share to {min(0.45, MINIMUM_CALIBRATION / learnt + 0.02):.2f}"
        )
    if (offered := int(learnt * (1 - share) * trees.row_share)) < 8 * trees.minimum_leaf_size:
        raise DataError(
            f"{path} would offer {offered} proteins to a tree, too few for leaves of {trees.minimum_leaf_size}: "
            f"set head.trees.minimum_leaf_size={max(2, offered // 8)} or lower"
        )


def cross_validate(
    table: pd.DataFrame, config: TrainConfig, report: Callable[[str], None] = lambda _: None
) -> pd.DataFrame:
    """Predict every protein by a predictor that saw no protein of its cluster.

    Returns:
        One row per protein, in the order of the table: ``id, tm_celsius, predicted_celsius, lower_celsius,
        upper_celsius, in_domain, fold`` and, where a growth temperature is known, the same given it.
    """
    import pandas as pd

    from enzyme_stability.data.splits import folds_by_cluster

    folds = folds_by_cluster(table["cluster"].to_numpy(), config.cross_validation_folds, config.seed)
    parts = []
    for fold in range(config.cross_validation_folds):
        report(f"fold {fold + 1} of {config.cross_validation_folds}")
        held_out = table[folds == fold]
        with tempfile.TemporaryDirectory() as folder:
            predictor = _fit(table[folds != fold], config, Path(folder))
            parts.append(predict_table(predictor, held_out).assign(fold=fold))
    return pd.concat(parts).loc[table.index]


def _fit(table: pd.DataFrame, config: TrainConfig, folder: Path) -> Predictor:
    from enzyme_stability.data.splits import split_by_cluster

    share = config.data.calibration_share
    split = split_by_cluster(table["cluster"].to_numpy(), {"train": 1 - share, "calibration": share}, config.seed)
    encoder = CompositionEncoder(config.encoder.blocks)
    descriptors = encoder.encode(table["residues"].tolist())
    tm = table["tm_celsius"].to_numpy(dtype=float)
    growth = table["growth_temperature"].to_numpy(dtype=float)
    learn = split == "train"
    stack = fit_stack(
        descriptors[learn],
        encoder.columns,
        tm[learn],
        table["cluster"].to_numpy()[learn],
        growth[learn],
        config.head,
        config.seed,
        config.threads,
    )
    heads, intervals = {}, {}
    for kind in (PLAIN, WITH_GROWTH):
        use = ~learn if kind == PLAIN else ~learn & np.isfinite(growth)
        if kind == WITH_GROWTH and (stack.trees_with_growth is None or use.sum() < MINIMUM_PROTEINS // 4):
            continue
        heads[kind] = to_onnx(stack, with_growth_temperature=kind == WITH_GROWTH)
        out = OnnxHead(heads[kind]).predict(descriptors[use], growth[use] if kind == WITH_GROWTH else None)
        intervals[kind] = ConformalInterval.fit(tm[use], out.tm, out.lower, out.upper, config.interval.upper_tail_share)
        if kind == PLAIN:
            similarity = out.similarity
    residues = table["residues"]
    domain = ApplicabilityDomain.fit(
        residues[learn].str.len().to_numpy(),
        amino_acid_frequencies(residues[learn].tolist()),
        amino_acid_frequencies(residues[~learn].tolist()),
        similarity,
        config.domain.flagged_share,
        config.domain.nonstandard_share,
    )
    return write_predictor(
        folder,
        name=config.name,
        description=config.description,
        encoder=config.encoder.model_dump(mode="json"),
        heads=heads,
        intervals=intervals,
        domain=domain,
        training=_training_summary(table, learn, config),
    )


def _training_summary(table: pd.DataFrame, learn: np.ndarray, config: TrainConfig) -> dict[str, Any]:
    settings = config.model_dump(mode="json")
    for local in ("output", "threads"):
        del settings[local]
    settings["data"]["path"] = config.data.path.name
    from enzyme_stability.data.frames import SUMMARY_SUFFIX

    account = config.data.path.with_suffix(SUMMARY_SUFFIX)
    return {
        "config": settings,
        "data": json.loads(account.read_text(encoding="utf-8")) if account.is_file() else {},
        "train_proteins": int(learn.sum()),
        "calibration_proteins": int((~learn).sum()),
        "clusters": int(table["cluster"].nunique()),
        "tm_celsius": {k: round(float(table["tm_celsius"].quantile(q)), 2) for k, q in _QUANTILES.items()},
        "with_growth_temperature": int(table["growth_temperature"].notna().sum()),
    }


_QUANTILES = {"minimum": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "maximum": 1.0}
