"""How fast a head trains on embeddings: the package's in-memory batches beside the usual DataLoader with workers.

Prints a table and writes head_training.json: seconds an epoch (as ratios) and the loss reached by

- Lightning with a DataLoader of two worker processes, as its documentation shows it, and with none;
- the package's own loop, in the same steps, with the same network, optimiser and batch size.

26,000 made-up embeddings 1,024 wide, the published perceptron 1024-512-256-1. Variants take turns; medians over the
rounds. Needs the extra 'dev'.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import lightning
import numpy as np
import torch
import typer
from torch.utils.data import DataLoader, TensorDataset

from enzyme_stability.config import Mlp, Trainer
from enzyme_stability.heads.mlp import Perceptron, fit_mlp
from enzyme_stability.heads.pooled import Examples
from reporting import RESULTS, Results, Smoke, keep, machine, number, run, show

PROTEINS, WIDTH, BATCH = 26_000, 1024, 256
_VALIDATION = 0.1
_SEED = 0


class UsualTask(lightning.LightningModule):
    """The same loss on batches of a DataLoader."""

    def __init__(self, settings: Mlp) -> None:
        super().__init__()
        self.network = Perceptron(WIDTH, settings.hidden, settings.dropout)
        self.settings = settings
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Squared error, and the pinball losses of the interval."""
        features, goal = batch
        found = self.network(features)
        centre = found[:, 0].detach()
        low, high = self.settings.quantiles
        down, up = goal - (centre - found[:, 1]), goal - (centre + found[:, 2])
        loss = (found[:, 0] - goal) ** 2
        loss = loss + torch.maximum(low * down, (low - 1) * down) + torch.maximum(high * up, (high - 1) * up)
        return loss.mean()

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        """Mean squared error."""
        features, goal = batch
        error = (self.network(features)[:, 0] - goal) ** 2
        self.log("validation_loss", error.mean())

    def on_validation_epoch_end(self) -> None:
        """Keep the figure of the epoch."""
        self.losses.append(float(self.trainer.callback_metrics["validation_loss"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        settings = self.settings
        return torch.optim.AdamW(self.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)


def main(
    results: Results = RESULTS,
    smoke: Smoke = False,
    epochs: Annotated[int, typer.Option(min=2)] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Times that every variant has its turn.")] = 3,
) -> None:
    """Time the variants on the same made-up embeddings."""
    facts = machine()
    epochs, rounds, proteins = (2, 1, 1000) if smoke else (epochs, rounds, PROTEINS)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    features, tm = made_up(proteins)
    validation = np.arange(proteins) < proteins * _VALIDATION
    variants: dict[str, Callable[[], float]] = {
        "Lightning, DataLoader with 2 workers": lambda: _usual(features, tm, validation, epochs, workers=2),
        "Lightning, DataLoader without workers": lambda: _usual(features, tm, validation, epochs, workers=0),
        "ours": lambda: _ours(features, tm, validation, epochs, "32-true"),
        "ours, trainer.precision=bf16-mixed": lambda: _ours(features, tm, validation, epochs, "bf16-mixed"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in variants.items():
            started = time.perf_counter()
            losses[name] = work()
            seconds[name].append(time.perf_counter() - started)
    usual = statistics.median(next(iter(seconds.values())))
    rows = {
        name: {"times_usual": usual / statistics.median(times), "validation_loss": losses[name]}
        for name, times in seconds.items()
    }
    content = {
        "proteins": proteins,
        "width": WIDTH,
        "batch_size": BATCH,
        "epochs": epochs,
        "rounds": rounds,
        "rows": rows,
    }
    kept = keep("head_training", results, content, facts, smoke=smoke)
    show(
        f"{proteins:,} embeddings {WIDTH} wide, batches of {BATCH}, {epochs} epochs",
        ("variant", "times as fast", "validation loss"),
        ((name, number(row["times_usual"], 2), number(row["validation_loss"], 4)) for name, row in rows.items()),
    )
    print(f"\nfigures are in {kept.name}")


def made_up(proteins: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and temperatures that follow from some of their columns."""
    random = np.random.default_rng(_SEED)
    features = random.standard_normal((proteins, WIDTH), dtype=np.float32)
    signal = features[:, :8].sum(axis=1) + features[:, 8] * features[:, 9]
    return features, 55 + 5 * signal + random.standard_normal(proteins)


def _usual(features: np.ndarray, tm: np.ndarray, validation: np.ndarray, epochs: int, workers: int) -> float:
    settings = Mlp(dropout=0.2)
    torch.manual_seed(_SEED)
    goal = (tm - tm[~validation].mean()) / tm[~validation].std()
    parts = [
        TensorDataset(torch.from_numpy(features[rows]), torch.from_numpy(goal[rows].astype(np.float32)))
        for rows in (~validation, validation)
    ]
    loaders = [
        DataLoader(part, batch_size=BATCH, shuffle=not number_, num_workers=workers)
        for number_, part in enumerate(parts)
    ]
    task = UsualTask(settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            gradient_clip_val=1.0,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, *loaders)
    return task.losses[-1]


def _ours(features: np.ndarray, tm: np.ndarray, validation: np.ndarray, epochs: int, precision: Any) -> float:
    count = len(tm)
    examples = Examples(
        embeddings=features,
        tm=tm,
        growth_temperature=np.full(count, np.nan),
        weights=np.ones(count),
        clusters=np.arange(count),
        validation=validation,
    )
    losses: list[float] = []
    trainer = Trainer(max_epochs=epochs, patience=epochs, batch_size=BATCH, accelerator="cpu", precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        fit_mlp(
            features,
            examples,
            Mlp(dropout=0.2),
            trainer,
            _SEED,
            Path(folder),
            lambda _: lambda figures, _step: losses.append(figures["validation_loss"]),
        )
    return losses[-1]


if __name__ == "__main__":
    run(main)
