"""Training: from a prepared table to a predictor, and the same on homology-held-out folds to report how good it is."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enzyme_stability.assessment import assess_run, main_figures, write_card
from enzyme_stability.config import Neural, TrainConfig
from enzyme_stability.errors import DataError, MissingDependencyError
from enzyme_stability.fitting import Encoded, encode, fit_predictor, set_apart
from enzyme_stability.manifest import writing
from enzyme_stability.measured import predict_table
from enzyme_stability.predictor import Predictor
from enzyme_stability.processes import process_rank, wait_for_all
from enzyme_stability.run_folder import CHECKPOINTS, FOLDS, PLOTS, RunFolder, is_finished, refuse_unusable
from enzyme_stability.storage import Mirror, fetch, mirror
from enzyme_stability.tracking import Tracker
from enzyme_stability.training_table import read_training_table

if TYPE_CHECKING:
    import pandas as pd

    from enzyme_stability.evaluation import Evaluation

Report = Callable[[str], None]
MIRROR_EVERY_S = 30.0
"""Seconds from one copy of the run's folder to its mirror to the next."""

LogOfStage = Callable[[str, str], Callable[[Mapping[str, float], int], None]]
"""Given stage (``fold_0``, ``final``) and network, what to call with the figures of each epoch."""


def train(config: TrainConfig, report: Report = lambda _: None, *, resume: bool = False) -> Predictor:
    """Train a predictor and write it, with all that belongs to the run, to ``config.output``.

    Args:
        config: Everything that decides the run.
        report: Called with a sentence on what happens next.
        resume: Go on with the interrupted run in ``config.output``.

    Raises:
        DataError: The table cannot be used.
        ConfigError: The folder holds another run that is not finished, or none that could be resumed.
        ArtifactError: The folder cannot be written.
    """
    if resume and is_finished(config.output):
        report(f"the run in {config.output} is finished: there is nothing to go on with")
        return Predictor(config.output, store=config.store)
    if process_rank():
        return _take_part(config)
    refuse_unusable(config, resume=resume)
    _refuse_missing_packages(config)
    said: list[str] = []

    def tell(sentence: str) -> None:
        report(sentence)
        said.append(sentence)  # there is no folder yet to log it in

    table = read_training_table(config, tell)
    parts = set_apart(table, config)
    run = RunFolder(config, report, resume=resume)
    for sentence in said:
        run.log(sentence)
    settings = config.model_dump(mode="json")
    copy = _Copy(None if config.mirror is None else mirror(run.path, config.mirror, run.report))
    with Tracker.open(config.tracking, run.path, config.run_name, settings, run.report) as tracker:
        run.write_split(table, parts)
        run.report(
            f"{len(table):,} proteins from {config.data.path}, encoder {_encoder_name(config)}, head {config.head.kind}"
        )
        copy.keep_up()
        encoded = encode(table, config, run.report)

        def log(stage: str, name: str) -> Callable[[Mapping[str, float], int], None]:
            plain = config.trainer.ensemble == 1 and stage == "final" and name == "member_0"
            prefix = "" if plain else f"{stage}/{name}/"

            def epoch(figures: Mapping[str, float], step: int) -> None:
                tracker.metrics({f"{prefix}{key}": value for key, value in figures.items()}, step)
                copy.keep_up()

            return epoch

        if config.split.folds:
            kept, checkpoints = run.path / FOLDS, run.path / CHECKPOINTS
            folds = cross_validate(
                table, config, run.report, encoded=encoded, kept=kept, checkpoints=checkpoints, log=log
            )
            run.write_folds(folds)
        run.report(f"fitting {config.run_name} on {len(table):,} proteins")
        predictor = fit_predictor(
            table,
            encoded,
            config,
            run.path,
            checkpoints=run.path / CHECKPOINTS / "final",
            log=lambda name: log("final", name),
            training=_training_summary(table, config),
        )
        evaluation = assess_run(
            predictor, table[parts == "calibration"], table[parts != "calibration"], run.path / PLOTS
        )
        write_card(predictor, run.path / PLOTS)
        run.write_metrics(evaluation.to_dict())
        _tell(tracker, predictor, evaluation, run)
        wait_for_all()  # another process may still read a checkpoint
        run.finish()
    copy.complete()
    return predictor


class _Copy:
    """The copy of the run's folder at another address, where one is wanted."""

    def __init__(self, kept: Mirror | None) -> None:
        self._kept = kept
        self._next = 0.0

    def keep_up(self) -> None:
        """Copy what is new, unless that was done a moment ago: an epoch may be shorter than a transfer."""
        if self._kept is not None and time.monotonic() >= self._next:
            self._kept.sync()
            self._next = time.monotonic() + MIRROR_EVERY_S

    def complete(self) -> None:
        """Copy all that is left."""
        if self._kept is not None:
            self._kept.close()


def _tell(tracker: Tracker, predictor: Predictor, evaluation: Evaluation, run: RunFolder) -> None:
    figures = main_figures(evaluation)
    tracker.summary({f"{evaluation.name}/{key}": value for key, value in figures.items()})
    for picture in sorted((run.path / PLOTS).glob("*.png")):
        tracker.picture(picture.stem, picture)
    tracker.artefact(predictor.folder, predictor.files(), predictor.name)
    shown = ", ".join(f"{name} {figures[key]:.2f}" for key, name in _SHOWN.items() if key in figures)
    run.report(f"{evaluation.source['description']}: {shown}")


_SHOWN = {"r2": "R2", "mae": "MAE (degC)", "spearman": "Spearman"}


def _refuse_missing_packages(config: TrainConfig) -> None:
    """Say what is not installed before anything is computed."""
    if isinstance(config.head, Neural) and find_spec("lightning") is None:
        raise MissingDependencyError(f"head {config.head.kind}", "plm")


def _take_part(config: TrainConfig) -> Predictor:
    """Train along in a further process: the same steps, nothing written but what all of them share."""
    table = read_training_table(config)
    encoded = encode(table, config, lambda _: None)

    def log(*_: str) -> Callable[[Mapping[str, float], int], None]:
        return lambda *_: None

    checkpoints = config.output / CHECKPOINTS
    if config.split.folds:
        cross_validate(table, config, encoded=encoded, kept=config.output / FOLDS, checkpoints=checkpoints, log=log)
    scratch = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)  # this process may want to predict with it
    predictor = fit_predictor(table, encoded, config, scratch, checkpoints=checkpoints / "final", log=log)
    wait_for_all()
    return predictor


def cross_validate(
    table: pd.DataFrame,
    config: TrainConfig,
    report: Report = lambda _: None,
    *,
    encoded: Encoded | None = None,
    kept: Path | None = None,
    checkpoints: Path | None = None,
    log: LogOfStage = lambda *_: lambda *_: None,
) -> pd.DataFrame:
    """Predict every protein by a predictor that saw no protein of its cluster.

    Args:
        table: As ``read_training_table`` gives it.
        config: The run; ``config.split.folds`` says how many folds.
        report: Called with a sentence on what happens next.
        encoded: Embeddings of the proteins; made where None.
        kept: Folder where finished folds are kept, to be taken up by a resumed run.
        checkpoints: Folder where networks keep their checkpoints.
        log: Given stage and network, what to call with the figures of each epoch.

    Returns:
        One row per protein, in the order of the table: ``id, tm_celsius, predicted_celsius, lower_celsius,
        upper_celsius, in_domain, fold`` and, where a growth temperature is known, the same given it.
    """
    import pandas as pd

    from enzyme_stability.data.splits import folds_by_cluster

    encoded = encoded or encode(table, config, report)
    folds = folds_by_cluster(table["cluster"].to_numpy(), config.split.folds, config.seed)
    parts = []
    for fold in range(config.split.folds):
        finished = None if kept is None else kept / f"fold_{fold}.parquet"
        if finished is not None and finished.is_file():
            parts.append(pd.read_parquet(finished))
            continue
        report(f"fold {fold + 1} of {config.split.folds}")
        stage, inside = f"fold_{fold}", folds != fold
        with tempfile.TemporaryDirectory() as scratch:
            predictor = fit_predictor(
                table[inside],
                encoded[inside],
                config,
                Path(scratch),
                checkpoints=(checkpoints or Path(scratch)) / stage,
                log=partial(log, stage),
            )
            parts.append(predict_table(predictor, table[~inside]).assign(fold=fold))
        if finished is not None and not process_rank():
            _keep(parts[-1], finished)
    return pd.concat(parts).loc[table.index]


def _keep(fold: pd.DataFrame, path: Path) -> None:
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        fold.to_parquet(unfinished)
        unfinished.replace(path)


def _training_summary(table: pd.DataFrame, config: TrainConfig) -> dict[str, Any]:
    from enzyme_stability.data.frames import SUMMARY_SUFFIX

    settings = config.model_dump(mode="json")
    for local in ("output", "threads", "store", "mirror", "tracking"):
        del settings[local]
    settings["data"]["path"] = config.data.path.rsplit("/", 1)[-1]
    del settings["data"]["embeddings"]  # what is looked up is what would be computed
    return {
        "config": settings,
        "data": _account(fetch(config.data.path).with_suffix(SUMMARY_SUFFIX)),
        "clusters": int(table["cluster"].nunique()),
        "tm_celsius": {k: round(float(table["tm_celsius"].quantile(q)), 2) for k, q in _QUANTILES.items()},
        "with_growth_temperature": int(table["growth_temperature"].notna().sum()),
    }


def _account(path: Path) -> Any:
    """What 'data prepare' says of the table; nothing where it was made in another way."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read, delete it or prepare the data again: {error}") from None


_QUANTILES = {"minimum": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "maximum": 1.0}


def _encoder_name(config: TrainConfig) -> str:
    return getattr(config.encoder, "model", config.encoder.kind)
