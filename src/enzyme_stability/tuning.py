"""Hyperparameter search with Optuna: settings are judged on homology-held-out folds, and a search can be continued."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enzyme_stability.command_line import command_line
from enzyme_stability.config import Lora, TrainConfig
from enzyme_stability.config.search import Choice, IntRange, Parameter, as_override
from enzyme_stability.configuration import compose
from enzyme_stability.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    EnzymeStabilityError,
    MissingDependencyError,
)
from enzyme_stability.interruption import Interruption
from enzyme_stability.search import Search
from enzyme_stability.study import open_study, shown

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from enzyme_stability.fitting import Encoded

Report = Callable[[str], None]

STUDY, BEST, TRIALS, IMPORTANCE, HISTORY = "study.db", "best.yaml", "trials.csv", "importance.csv", "history.png"

ENOUGH_FOR_IMPORTANCE = 10
"""Finished trials below which the importance of a setting is not worth telling."""

_LASTING = (ArtifactError, ConfigError, DataError)
_STATES = {"COMPLETE": "finished", "PRUNED": "given up", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Tuned:
    """What a search has found so far.

    Attributes:
        config: The best settings, complete.
        overrides: The same as ``train`` takes them.
        values: What was found for each setting searched.
        rmse_celsius: Root mean squared error on proteins of held-out clusters.
        r2: Share of their variance explained.
        trial: Number of the best trial, from 1.
        trials: How many trials there are, finished or not.
        importance: Share of each setting in what sets the best tenth of the trials apart; empty after few trials.
        folder: Where all is written.
    """

    config: TrainConfig
    overrides: tuple[str, ...]
    values: Mapping[str, Any]
    rmse_celsius: float
    r2: float
    trial: int
    trials: int
    importance: Mapping[str, float]
    folder: Path

    @property
    def command(self) -> str:
        """The command line that trains the best settings."""
        return command_line(["enzyme-stability", "train", *self.overrides])

    def summary(self) -> str:
        """The best settings and the command line, to be printed."""
        width = max(map(len, self.values))
        share = {key: f"  (importance {share:.2f})" for key, share in self.importance.items()}
        best = f"best of {self.trials} trials: RMSE {self.rmse_celsius:.2f} degC, R2 {self.r2:.2f} (trial {self.trial})"
        found = [f"  {key:<{width}}  {as_override(v)}{share.get(key, '')}" for key, v in self.values.items()]
        return "\n".join([best, *found, self.command])


def tune(
    search: Search,
    *,
    trials: int = 50,
    timeout: float | None = None,
    storage: str | None = None,
    name: str | None = None,
    output: Path | None = None,
    report: Report = lambda _: None,
) -> Tuned:
    """Try settings, and write to a folder what was found.

    Args:
        search: What to try.
        trials: How many further trials; 0 only writes what the study holds.
        timeout: Seconds after which no trial is begun.
        storage: Where the trials are kept: an SQLite file, a journal file (``.journal``) or the URL of a database;
            ``study.db`` in the folder where None. Several processes may share it.
        name: Of the study; the ``run_name`` where None. One that is in the storage is continued.
        output: Folder; ``output`` of the run with ``-tune`` behind it where None.
        report: Called with a sentence after each trial.

    Raises:
        DataError: The table cannot be used.
        ConfigError: The study is one of other settings.
        ArtifactError: The folder or the storage cannot be written.
        MissingDependencyError: Optuna is not installed.
        EnzymeStabilityError: No trial came to its end.
    """
    folder = output or search.base.output.with_name(f"{search.base.output.name}-tune")
    where = storage or str(folder / STUDY)
    with open_study(where, name or search.base.run_name, search.base.seed, search.identity()) as study:
        if trials:
            report(f"searching {', '.join(search.space.parameters)}: study '{study.study_name}' in {shown(where)}")
            objective = Objective(search, report, interruption := Interruption())
            with interruption:
                study.optimize(
                    objective, trials, timeout, callbacks=[lambda study, trial: objective.tell(study, trial, trials)]
                )
            if interruption.asked:
                report(f"'{study.study_name}' keeps its finished trials; the same command goes on with it")
                if _finished(study):
                    _write_results(study, search, folder)
                raise KeyboardInterrupt
        if not _finished(study):
            why = [trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs]
            raise EnzymeStabilityError(
                f"no trial of study '{study.study_name}' came to its end{': ' if why else ''}{''.join(why[-1:])}"
            )
        return _write_results(study, search, folder)


class Objective:
    """Mean squared error in degC squared, of the prediction from the sequence alone, on proteins of held-out clusters.

    With ``split.folds`` every protein is predicted, by a predictor that saw none of its cluster; without folds those
    of ``split.validation_share`` are. Test rows are never read.

    Args:
        search: What to try.
        report: Called with a sentence on each trial.
        interruption: Decides when a trial may be interrupted.

    Raises:
        DataError: The table cannot be used.
    """

    def __init__(self, search: Search, report: Report, interruption: Interruption) -> None:
        from enzyme_stability.training_table import read_training_table

        self._search, self._report, self._interruption = search, report, interruption
        table = read_training_table(search.base, report)
        self._table = table.assign(growth_temperature=np.nan)  # else a second head is fitted that is not judged
        self._encoded: tuple[Any, Encoded] | None = None
        self._told = 0

    @cached_property
    def held_out(self) -> list[np.ndarray]:
        """Masks of the proteins to predict, each shape (n,)."""
        from enzyme_stability.data.splits import folds_by_cluster, split_by_cluster

        split, seed, clusters = self._search.base.split, self._search.base.seed, self._table["cluster"].to_numpy()
        if split.folds:
            folds = folds_by_cluster(clusters, split.folds, seed)
            return [folds == fold for fold in range(split.folds)]
        share = split.validation_share
        return [split_by_cluster(clusters, {"train": 1 - share, "held out": share}, seed) == "held out"]

    def __call__(self, trial: Trial) -> float:
        """The error of a trial; NaN where its settings cannot be trained, or it is interrupted."""
        for key, parameter in self._search.space.parameters.items():
            _suggest(trial, key, parameter)
        for before in _finished(trial.study):
            if before.params == trial.params:
                trial.set_user_attr("r2", before.user_attrs["r2"])
                return float(before.values[0])
        try:
            return self._error(trial)
        except EnzymeStabilityError as error:
            trial.set_user_attr("error", str(error))
            if isinstance(error, MissingDependencyError) or (isinstance(error, _LASTING) and not self._told):
                raise  # no other trial would go better
        except KeyboardInterrupt:
            trial.set_user_attr("error", "interrupted")
        except OSError as error:
            raise ArtifactError(f"a trial cannot be written to {tempfile.gettempdir()}: {error}") from None
        return math.nan

    def _error(self, trial: Trial) -> float:
        from optuna import TrialPruned

        from enzyme_stability.fitting import fit_predictor
        from enzyme_stability.training_table import refuse_too_few

        config, table = compose(self._search.chosen(trial.params)), self._table
        try:
            refuse_too_few(len(table), config)
        except DataError as error:  # with these settings, not with all
            raise EnzymeStabilityError(str(error)) from None
        with self._interruption.allowed():
            encoded = self._embeddings(config)
        tm, predicted, seen = (
            table["tm_celsius"].to_numpy(dtype=float),
            np.zeros(len(table)),
            np.zeros(len(table), bool),
        )
        squared = math.nan
        for step, asked in enumerate(self.held_out):
            with self._interruption.allowed(), tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                if isinstance(config.head, Lora):  # what its weights make of the proteins is of use to no other fit
                    config = config.model_copy(update={"store": folder / "store"})
                predictor = fit_predictor(
                    table[~asked], encoded[~asked], config, folder, checkpoints=folder / "checkpoints", log=_unheard
                )
                predicted[asked] = predictor.raw_output(table["residues"][asked].tolist()).tm
            seen |= asked
            squared = float(((predicted - tm)[seen] ** 2).mean())
            if not math.isfinite(squared):
                raise EnzymeStabilityError("a prediction is no number")
            trial.report(squared, step)
            if step + 1 < len(self.held_out) and trial.should_prune():
                raise TrialPruned
        trial.set_user_attr("r2", 1 - squared / float(tm[seen].var()))
        return squared

    def _embeddings(self, config: TrainConfig) -> Encoded:
        """Those of the trial before, where the encoder is the same."""
        from enzyme_stability.fitting import encode

        if self._encoded is None or self._encoded[0] != config.encoder:
            self._encoded = config.encoder, encode(self._table, config, self._report)
        return self._encoded[1]

    def tell(self, study: Study, trial: FrozenTrial, asked: int) -> None:
        """Say how one of the ``asked`` trials went, and whether to go on."""
        if self._interruption.asked:
            study.stop()
        self._told += 1
        number = trial.number + 1
        which = f"trial {number} of {asked}" if number == self._told else f"trial {number} ({self._told} of {asked})"
        best = ""
        if _finished(study):
            best = f" (best {_rmse(study.best_trial):.2f}, trial {study.best_trial.number + 1})"
        match trial.state.name:
            case "COMPLETE":
                self._report(f"{which}: RMSE {_rmse(trial):.2f} degC{best}")
            case "PRUNED":
                folds = f"{len(trial.intermediate_values)} of {len(self.held_out)} folds"
                self._report(f"{which}: given up after {folds} at RMSE {_rmse(trial):.2f} degC{best}")
            case _:
                self._report(f"{which} failed: {trial.user_attrs.get('error')}")


def _unheard(_: str) -> Callable[[Mapping[str, float], int], None]:
    return lambda *_: None


def _suggest(trial: Trial, key: str, parameter: Parameter) -> None:
    if isinstance(parameter, Choice):
        trial.suggest_categorical(key, parameter.values)
    elif isinstance(parameter, IntRange):
        trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)
    else:
        trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def _finished(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    trials: list[FrozenTrial] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return trials


def _rmse(trial: FrozenTrial) -> float:
    """Root of the error, or of the last one reported; NaN where there is none."""
    reported = list(trial.intermediate_values.values())
    value = trial.value if trial.value is not None else (reported[-1] if reported else math.nan)
    return math.sqrt(value)


def _write_results(study: Study, search: Search, folder: Path) -> Tuned:
    """Write best settings, trials, history and, with enough trials, importances; each file is whole or the old one."""
    from omegaconf import OmegaConf

    best, overrides = study.best_trial, tuple(search.chosen(study.best_trial.params))
    config, importance = compose(overrides), _importance(study)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            part = Path(scratch)
            settings = OmegaConf.create(config.model_dump(mode="json"))
            (part / BEST).write_text(OmegaConf.to_yaml(settings), encoding="utf-8")
            _write_trials(study, part / TRIALS)
            _draw_history(study, part / HISTORY)
            if importance:
                lines = ["setting,importance", *(f"{key},{share:.4f}" for key, share in importance.items())]
                (part / IMPORTANCE).write_text("\n".join(lines) + "\n", encoding="utf-8")
            for file in part.iterdir():
                file.replace(folder / file.name)
    except OSError as error:
        raise ArtifactError(f"the results cannot be written to {folder}: {error}") from None
    return Tuned(
        config=config,
        overrides=overrides,
        values={key: best.params[key] for key in search.space.parameters},
        rmse_celsius=_rmse(best),
        r2=best.user_attrs["r2"],
        trial=best.number + 1,
        trials=len(study.get_trials(deepcopy=False)),
        importance=importance,
        folder=folder,
    )


def _importance(study: Study) -> dict[str, float]:
    from optuna.importance import get_param_importances

    enough = len(_finished(study)) >= ENOUGH_FOR_IMPORTANCE
    return dict(get_param_importances(study)) if enough else {}


def _write_trials(study: Study, path: Path) -> None:
    import pandas as pd

    rows = [
        {
            "trial": trial.number + 1,
            "state": _STATES[trial.state.name],
            "rmse_celsius": round(_rmse(trial), 4),
            "r2": round(trial.user_attrs.get("r2", math.nan), 4),
            "folds": len(trial.intermediate_values),
            "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 2),
            **trial.params,
            "error": trial.user_attrs.get("error"),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    table = pd.DataFrame(rows)
    table[[*(column for column in table if column != "error"), "error"]].to_csv(path, index=False)


def _draw_history(study: Study, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from enzyme_stability.plots import BLUE, ORANGE

    finished = _finished(study)
    numbers, errors = [trial.number + 1 for trial in finished], [_rmse(trial) for trial in finished]
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(numbers, errors, s=18, color=BLUE, alpha=0.6, linewidths=0, label="finished trial")
    axes.step(numbers, np.minimum.accumulate(errors), where="post", color=ORANGE, label="best so far")
    axes.set(xlabel="Trial", ylabel="RMSE on held-out clusters (°C)", title=f"{study.study_name}, n = {len(finished)}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
