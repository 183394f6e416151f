"""The training loop of every network, on Lightning: early stopping, checkpoints, any number of processes.

Importing this module imports PyTorch and Lightning.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lightning
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from torch import nn

from enzyme_stability.config import Neural, Trainer
from enzyme_stability.errors import ArtifactError, ConfigError, EnzymeStabilityError
from enzyme_stability.heads.graph import Graph
from enzyme_stability.heads.pooled import Examples
from enzyme_stability.profiling import before_batch

Log = Callable[[Mapping[str, float], int], None]

LAST, BEST = "last.ckpt", "best.ckpt"

_CHATTY = ("lightning.pytorch", "lightning.fabric")


class Inputs(Protocol):
    """Where a network's inputs come from."""

    def __call__(self, rows: np.ndarray) -> Any:
        """The inputs of some proteins, as the network takes them."""
        ...


class Output(nn.Module):
    """Last layer: the value and how far down and up the raw interval reaches, in units of the targets' deviation.

    The interval reads the last hidden layer but never changes it, so asking for one costs the value nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, 1)
        self.reach = nn.Linear(width, 2)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """From (n, width) to (n, 3): value, reach down, reach up."""
        reach = nn.functional.softplus(self.reach(hidden.detach()))
        return torch.cat([self.value(hidden), reach], dim=1)

    def add_to(self, graph: Graph, hidden: str) -> str:
        """The same in a graph."""
        value = add_linear(graph, hidden, self.value)
        return graph.add("Concat", value, graph.add("Softplus", add_linear(graph, hidden, self.reach)), axis=1)


def add_linear(graph: Graph, features: str, layer: nn.Linear) -> str:
    """A linear layer in a graph."""
    weight, bias = (values.detach().float().cpu().numpy() for values in (layer.weight, layer.bias))
    return graph.add("Gemm", features, graph.constant(weight), graph.constant(bias), transB=1)


@dataclass(frozen=True)
class Targets:
    """Centre and spread of the temperatures learned from, degC."""

    mean: float
    deviation: float

    @classmethod
    def fit(cls, tm: np.ndarray, weights: np.ndarray) -> Targets:
        """Of Tm in degC and how much each counts, both of shape (n,)."""
        mean = float(np.average(tm, weights=weights))
        return cls(mean, max(float(np.average((tm - mean) ** 2, weights=weights)) ** 0.5, 1e-3))

    def add_to(self, graph: Graph, members: Sequence[str]) -> dict[str, str]:
        """Value and raw bounds in degC of the mean of ensemble members, each (n, 3)."""
        mean = graph.add("Mean", *members)
        scaled = graph.add("Mul", mean, graph.constant(np.array(self.deviation, dtype=np.float32)))
        value, down, up = (
            graph.add("Gather", scaled, graph.constant(np.array([k], dtype=np.int64)), axis=1) for k in range(3)
        )
        tm = graph.add("Add", value, graph.constant(np.array(self.mean, dtype=np.float32)))
        return {"tm": tm, "lower": graph.add("Sub", tm, down), "upper": graph.add("Add", tm, up)}


class Batches:
    """Indices of the proteins of each step, drawn anew each epoch; every process gets its share of every step.

    No protein is missed or seen twice in an epoch, whatever the number of processes: each draws the same order and
    takes every ``processes``-th of a step's proteins, which may be none in the last step.

    Args:
        rows: Proteins to draw from, shape (n,).
        weights: Of all proteins.
        size: Proteins in a step, over all processes.
        seed: Seed of the order.
    """

    def __init__(self, rows: np.ndarray, weights: np.ndarray, size: int, seed: int) -> None:
        self._rows, self._weights, self._size, self._seed = rows, weights, size, seed
        self._epoch = 0
        self.rank, self.processes = 0, 1
        self.sampler, self.batch_sampler = self, None  # where Lightning looks for set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Said by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yield indices, and the factor that makes the sum of weighted losses the mean over the step's proteins."""
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._rows)
        for start in range(0, len(order), self._size):
            step = order[start : start + self._size]
            yield step[self.rank :: self.processes], self.processes / float(self._weights[step].sum())


class Task(lightning.LightningModule):
    """Learns the value by weighted squared error and its interval by pinball loss.

    Args:
        network: Gives (n, 3), see ``Output``.
        inputs: Where its inputs come from.
        examples: What to learn.
        targets: Centre and spread of the temperatures.
        settings: Of the head.
        seed: Seed of every random choice.
    """

    def __init__(
        self, network: nn.Module, inputs: Inputs, examples: Examples, targets: Targets, settings: Neural, seed: int
    ) -> None:
        super().__init__()
        self.network = network
        self._inputs, self._examples, self._targets, self._settings = inputs, examples, targets, settings
        self._seed = seed
        self._goal = torch.from_numpy(((examples.tm - targets.mean) / targets.deviation).astype(np.float32))
        self._weights = torch.from_numpy(examples.weights.astype(np.float32))
        self._total = 0.0
        self.strict_loading = False  # what is not trained is not in a checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained alone: a frozen language model is large, and there already."""
        trained = _trained(self)
        checkpoint["state_dict"] = {name: v for name, v in checkpoint["state_dict"].items() if name in trained}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over what is trained."""
        settings = self._settings
        return torch.optim.AdamW(_trained(self).values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Draw dropout by epoch, so that a resumed run goes on as one that was never interrupted."""
        torch.manual_seed((self._seed * 1_000_003 + self.current_epoch) * 64 + self.global_rank)
        self._total = 0.0

    def training_step(self, batch: tuple[np.ndarray, float], _: int) -> torch.Tensor:
        """Loss of a step."""
        before_batch("training")
        rows, factor = batch
        found, goal, weights = self._found(rows)
        value, (low, high) = found[:, 0], self._settings.quantiles
        centre = value.detach()
        loss = (value - goal) ** 2
        loss = loss + _pinball(goal - (centre - found[:, 1]), low) + _pinball(goal - (centre + found[:, 2]), high)
        self._total += float((weights * (centre - goal) ** 2).sum())
        return (weights * loss).sum() * factor

    def validation_step(self, batch: tuple[np.ndarray, float], _: int) -> None:
        """Squared error on proteins that are not learned from; every process looks at all of them."""
        rows, _factor = batch
        found, goal, weights = self._found(rows)
        error = found[:, 0] - goal
        share = weights / self._weights[self._examples.validation].sum()
        self.log("validation_loss", (share * error**2).sum(), batch_size=1, reduce_fx="sum")
        absolute = (share * error.abs()).sum() * self._targets.deviation
        self.log("validation_mae_celsius", absolute, batch_size=1, reduce_fx="sum")

    def _found(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.network(self._inputs(rows)).float()
        return found, self._goal[rows].to(found.device), self._weights[rows].to(found.device)

    def training_error(self) -> float:
        """Mean squared error over the epoch, in units of the targets' deviation; every process must ask."""
        total = self.trainer.strategy.reduce(torch.tensor(self._total, device=self.device), reduce_op="sum")
        return float(total) / float(self._examples.weights[~self._examples.validation].sum())


def _pinball(error: torch.Tensor, level: float) -> torch.Tensor:
    return torch.maximum(level * error, (level - 1) * error)


class _Stopping(EarlyStopping):
    """Stops a run that is taken up again after it had already stopped."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class _Epochs(Callback):
    """Hands the figures of each epoch on."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def on_train_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        assert isinstance(task, Task)  # noqa: S101 - tells the type checker
        error = task.training_error()
        if trainer.is_global_zero:
            figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self._log({"training_loss": error, **figures}, trainer.current_epoch)


def fit_network(
    network: nn.Module,
    inputs: Inputs,
    examples: Examples,
    targets: Targets,
    settings: Neural,
    trainer: Trainer,
    seed: int,
    folder: Path,
    log: Log,
) -> None:
    """Train ``network`` in place: as it was when it did best on the validation proteins.

    Args:
        network: What to train.
        inputs: Where its inputs come from.
        examples: What to learn; ``examples.validation`` decides when to stop.
        targets: Centre and spread of the temperatures.
        settings: Of the head.
        trainer: How to train.
        seed: Seed of every random choice.
        folder: For checkpoints; one that is there already is taken up.
        log: Called with the figures of each epoch.

    Raises:
        ArtifactError: A checkpoint is damaged, of another network, or cannot be written.
        ConfigError: There is no such accelerator, or not as many devices.
        EnzymeStabilityError: The loss is no longer a number, or a step does not fit into memory.
    """
    batches = Batches(np.flatnonzero(~examples.validation), examples.weights, trainer.batch_size, seed)
    watched = Batches(np.flatnonzero(examples.validation), examples.weights, max(trainer.batch_size, 1024), seed)
    task = Task(network, inputs, examples, targets, settings, seed)
    best = ModelCheckpoint(
        folder, filename=BEST.removesuffix(".ckpt"), monitor="validation_loss", enable_version_counter=False
    )
    # A second one: save_last of the first would only save at a new best, and a run be taken up again from there.
    every = ModelCheckpoint(folder, filename=LAST.removesuffix(".ckpt"), enable_version_counter=False)
    stopping = _Stopping("validation_loss", patience=trainer.patience, check_finite=True)
    last = folder / LAST
    if last.is_file():
        _read_checkpoint(last, task)
    with _quiet():
        loop = _trainer(trainer, folder, [stopping, _Epochs(log), best, every])
        batches.rank, batches.processes = loop.global_rank, loop.world_size
        try:
            loop.fit(task, batches, watched, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
        except SystemExit:
            if loop.interrupted:  # Lightning's answer to Ctrl-C
                raise KeyboardInterrupt from None
            raise
        except torch.OutOfMemoryError:
            raise EnzymeStabilityError(
                f"a step of {trainer.batch_size} proteins does not fit into memory; set trainer.batch_size to less"
            ) from None
        except (OSError, RuntimeError) as error:
            raise ArtifactError(f"training in {folder} cannot go on: {error}") from None
    if stopping.stopping_reason is EarlyStoppingReason.NON_FINITE_METRIC:
        if loop.is_global_zero:
            for checkpoint in (last, folder / BEST):  # nothing to take up again
                checkpoint.unlink(missing_ok=True)
        raise EnzymeStabilityError(
            f"the loss is no number after epoch {stopping.stopped_epoch}: set head.learning_rate to less than "
            f"{settings.learning_rate:g}, and see that every Tm and every embedding is a number"
        )
    task.load_state_dict(_read_checkpoint(folder / BEST, task), strict=False)
    network.eval().cpu()


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _read_checkpoint(path: Path, task: Task) -> dict[str, torch.Tensor]:
    """What was trained, by name."""
    try:
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        found = {name: values.shape for name, values in state.items()}
    except Exception as error:  # whatever a broken file makes the library raise
        raise ArtifactError(f"{path} cannot be read, delete it to start again: {error}") from None
    if found != {name: parameter.shape for name, parameter in _trained(task).items()}:
        raise ArtifactError(f"{path} is of another network; delete the folder or train in another one")
    return state


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice and advertisements."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _trainer(settings: Trainer, folder: Path, callbacks: list[Callback]) -> lightning.Trainer:
    several = settings.devices * settings.nodes > 1
    try:
        return lightning.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="ddp" if several else "auto",
            precision=settings.precision,
            max_epochs=settings.max_epochs,
            gradient_clip_val=settings.gradient_clip,
            deterministic=True,
            callbacks=callbacks,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"trainer does not fit this machine: {error}") from None
