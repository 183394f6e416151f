"""A multilayer perceptron on the pooled embedding. Importing this module imports PyTorch and Lightning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from enzyme_stability.config import Mlp as Settings
from enzyme_stability.config import Trainer
from enzyme_stability.data.splits import folds_by_cluster
from enzyme_stability.heads.graph import Graph
from enzyme_stability.heads.network import Log, Output, Targets, add_linear, fit_network
from enzyme_stability.heads.pooled import Examples


class Perceptron(nn.Module):
    """From (n, width) to (n, 3), see ``Output``.

    Args:
        width: Features.
        hidden: Widths between.
        dropout: Share of hidden units left out while training.
    """

    def __init__(self, width: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        widths = [width, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.output = Output(widths[-1])

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.output.value.weight.device

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Value, reach down and reach up."""
        for layer in self.layers:
            features = self.dropout(torch.relu(layer(features)))
        out: torch.Tensor = self.output(features)
        return out

    def add_to(self, graph: Graph, features: str) -> str:
        """The same in a graph."""
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)  # noqa: S101 - tells the type checker
            features = graph.add("Relu", add_linear(graph, features, layer))
        return self.output.add_to(graph, features)


@dataclass(frozen=True)
class NetworkHead:
    """An ensemble of perceptrons, whose mean is the answer."""

    members: list[Perceptron]
    targets: Targets

    def add_to(self, graph: Graph, features: str) -> dict[str, str]:
        """See ``FittedHead``."""
        return self.targets.add_to(graph, [member.add_to(graph, features) for member in self.members])


def fit_mlp(
    features: np.ndarray,
    examples: Examples,
    settings: Settings,
    trainer: Trainer,
    seed: int,
    folder: Path,
    log: Callable[[str], Log],
) -> NetworkHead:
    """Fit on scaled features (n, k).

    Args:
        features: Shape (n, k).
        examples: What to learn.
        settings: Of the perceptron.
        trainer: How to train, and how many members.
        seed: Seed of every random choice.
        folder: For checkpoints.
        log: Given a member's name, called with the figures of each of its epochs.
    """
    targets = Targets.fit(examples.tm[~examples.validation], examples.weights[~examples.validation])
    tensor = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    members = []
    for number, (own_seed, own) in enumerate(ensemble(examples, trainer, seed)):
        torch.manual_seed(own_seed)
        network = Perceptron(features.shape[1], settings.hidden, settings.dropout)

        def inputs(rows: np.ndarray, network: Perceptron = network) -> torch.Tensor:
            return tensor[torch.from_numpy(rows)].to(network.device)

        name = f"member_{number}"
        fit_network(network, inputs, own, targets, settings, trainer, own_seed, folder / name, log(name))
        members.append(network)
    return NetworkHead(members, targets)


def ensemble(examples: Examples, trainer: Trainer, seed: int) -> list[tuple[int, Examples]]:
    """Seed and examples of each member: the same proteins, or each with another fold of clusters for validation."""
    seeds = range(seed, seed + trainer.ensemble)
    if trainer.ensemble_by == "seeds" or trainer.ensemble == 1:
        return [(own, examples) for own in seeds]
    folds = folds_by_cluster(examples.clusters, trainer.ensemble, seed)
    return [(own, replace(examples, validation=folds == fold)) for fold, own in enumerate(seeds)]
