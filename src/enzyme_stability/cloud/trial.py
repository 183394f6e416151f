"""What a machine of the cloud runs: a training that goes on from its mirror, and reports to a tuning job it is part of.

    python -m enzyme_stability.cloud.trial data.path=gs://... mirror=gs://... --head.learning_rate=0.01

Vertex AI hands the values of a trial over as ``--name=value``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from enzyme_stability.config import TrainConfig
from enzyme_stability.errors import EnzymeStabilityError, MissingDependencyError

METRIC = "rmse"
"""What a tuning job minimises, in degC: over the held-out folds, or over the proteins kept for the intervals."""

_TRIAL = "CLOUD_ML_TRIAL_ID"  # set by Vertex AI; 0 or nothing where there is no tuning


def main(arguments: Sequence[str]) -> int:
    """Train, and say in one sentence why not where that fails; the exit code."""
    try:
        run(arguments)
    except EnzymeStabilityError as error:
        _say(f"error: {error}")
        return 2
    return 0


def run(arguments: Sequence[str]) -> None:
    """Train with these settings, from where an earlier machine of the same job was stopped.

    Args:
        arguments: As for ``enzyme-stability train``; a setting may have two dashes before its name.

    Raises:
        EnzymeStabilityError: As ``train``.
        MissingDependencyError: This is a trial of a tuning job, and the extra ``vertex`` is not installed.
    """
    from enzyme_stability.configuration import compose
    from enzyme_stability.processes import process_rank
    from enzyme_stability.run_folder import METRICS, is_finished, is_unfinished
    from enzyme_stability.training import train

    config = compose([argument.removeprefix("--") for argument in arguments])
    trial = os.environ.get(_TRIAL, "").lstrip("0")
    reporter = _reporter() if trial else None
    if trial:
        config = _apart(config, trial)
    if config.mirror is not None and not process_rank() and not config.output.exists():
        _restore(config.mirror, config.output)
    begun = is_unfinished(config.output) or is_finished(config.output)
    train(config, _say, resume=begun)
    if reporter is not None and not process_rank():
        figures = json.loads((config.output / METRICS).read_text(encoding="utf-8"))
        reporter.report_hyperparameter_tuning_metric(METRIC, figures["metrics"]["rmse"]["value"])


def _apart(config: TrainConfig, trial: str) -> TrainConfig:
    """The configuration with a name, a folder and a mirror of the trial's own."""
    mirror = None if config.mirror is None else f"{config.mirror}/{trial}"
    own = {"run_name": f"{config.run_name}-{trial}", "output": config.output / trial, "mirror": mirror}
    return config.model_copy(update=own)


def _restore(mirror: str, folder: Path) -> None:
    from enzyme_stability.storage import Mirror

    if brought := Mirror.restore(mirror, folder):
        _say(f"{brought} files of an earlier start are back from {mirror}")


def _reporter() -> Any:
    try:
        from hypertune import HyperTune
    except ImportError:
        raise MissingDependencyError("Reporting to a tuning job", "vertex") from None
    return HyperTune()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
