"""Attention over residues (Staerk et al. 2021, doi 10.1093/bioadv/vbab035): a head on per-residue embeddings.

Importing this module imports PyTorch and Lightning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from enzyme_stability.config import LightAttention as Settings
from enzyme_stability.config import Trainer
from enzyme_stability.heads.graph import Graph, require_onnx
from enzyme_stability.heads.mlp import ensemble
from enzyme_stability.heads.network import Log, Output, Targets, add_linear, fit_network
from enzyme_stability.heads.pooled import Examples, Memory, Scaling

Embed = Callable[[Sequence[str]], list[np.ndarray]]
"""Embeddings of the residues of some sequences, each of shape (length, width), float32."""

_SCALED_ON = 200
"""Proteins whose residues the scaling is fitted on: a hundred residues of each are a large sample already."""
_SCALED_ON_RESIDUES = 20_000
_GROUP_RESIDUES = 16_384
"""Residues, with padding, that go through the convolutions at once."""


class Group(NamedTuple):
    """Proteins of about the same length, padded to the longest.

    Attributes:
        places: Where they stand in the batch, shape (g,), int64.
        residues: Embeddings, 0 after the end of a protein, shape (g, length, width).
        lengths: Residues of each, shape (g,), int64.
    """

    places: torch.Tensor
    residues: torch.Tensor
    lengths: torch.Tensor


class AttentionNetwork(nn.Module):
    """From groups of proteins to (n, 3), see ``Output``. Padding never matters.

    Args:
        scaling: Of a residue's features.
        settings: Widths and dropout.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, scaling: Scaling, settings: Settings) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(scaling.mean))
        self.register_buffer("deviation", torch.from_numpy(scaling.deviation))
        width, channels, kernel = scaling.mean.size, settings.channels, settings.kernel
        self.feature = nn.Conv1d(width, channels, kernel, padding=kernel // 2)
        # Without bias, which would cancel in the softmax and only be moved by rounding.
        self.attention = nn.Conv1d(width, channels, kernel, padding=kernel // 2, bias=False)
        self.hidden = nn.Linear(2 * channels, settings.hidden)
        self.dropout = nn.Dropout(settings.dropout)
        self.output = Output(settings.hidden)

    def forward(self, groups: Iterable[Group]) -> torch.Tensor:
        """Value, reach down and reach up of each protein, in the order of ``places``."""
        places, pooled = [], []
        for group in groups:
            places.append(group.places)
            pooled.append(self._pool(*(part.to(self.hidden.weight.device) for part in group[1:])))
        if not pooled:  # a process without a share of a step; its gradient is 0, which the others wait for
            nobody = self.hidden.weight.new_zeros(1, 1, self.feature.in_channels)
            pooled.append(self._pool(nobody, torch.ones(1, device=nobody.device))[:0])
            places.append(torch.empty(0, dtype=torch.int64))
        joined = torch.cat(pooled)[torch.argsort(torch.cat(places)).to(pooled[0].device)]
        out: torch.Tensor = self.output(self.dropout(torch.relu(self.hidden(joined))))
        return out

    def _pool(self, residues: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        real = torch.arange(residues.shape[1], device=residues.device)[None] < lengths[:, None]  # (g, length)
        scaled = (residues - self.mean) / self.deviation * real[:, :, None]
        beyond = ~real[:, None]
        channels_first = scaled.transpose(1, 2)
        features = self.dropout(self.feature(channels_first))  # (g, channels, length)
        attention = self.attention(channels_first).masked_fill(beyond, float("-inf")).softmax(dim=2)
        largest = features.masked_fill(beyond, float("-inf")).amax(dim=2)
        return torch.cat([(features * attention).sum(dim=2), largest], dim=1)

    def add_to(self, graph: Graph, scaled: str) -> str:
        """The same in a graph, for the scaled residues (length, width) of one protein."""
        channels_first = graph.add("Transpose", scaled, perm=[1, 0])
        batch = graph.add("Unsqueeze", channels_first, graph.constant(np.array([0], dtype=np.int64)))
        features = _add_convolution(graph, batch, self.feature)
        attention = graph.add("Softmax", _add_convolution(graph, batch, self.attention), axis=2)
        weighted = graph.add("Mul", features, attention)
        mean = graph.add("ReduceSum", weighted, graph.constant(np.array([2], dtype=np.int64)), keepdims=0)
        largest = graph.add("ReduceMax", features, axes=[2], keepdims=0)
        pooled = graph.add("Concat", mean, largest, axis=1)
        return self.output.add_to(graph, graph.add("Relu", add_linear(graph, pooled, self.hidden)))


def _add_convolution(graph: Graph, residues: str, layer: nn.Conv1d) -> str:
    weights = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    constants = [graph.constant(values.detach().float().cpu().numpy()) for values in weights]
    return graph.add("Conv", residues, *constants, pads=[layer.kernel_size[0] // 2] * 2)


@dataclass(frozen=True)
class LightAttentionHead:
    """An ensemble of attention networks, whose mean is the answer.

    Attributes:
        members: Trained networks.
        targets: Centre and spread of the temperatures.
        scaling: Of a residue's features.
    """

    members: list[AttentionNetwork]
    targets: Targets
    scaling: Scaling

    def to_onnx(self, pooled_scaling: Scaling, memory: Memory) -> bytes:
        """The serialised graph; it takes the ``residues`` (length, width) of one protein.

        Args:
            pooled_scaling: Of the mean over residues, for the similarity alone.
            memory: Of means scaled by it.
        """
        require_onnx()
        graph = Graph()
        memory.add_to(graph, pooled_scaling.add_to(graph, graph.add("ReduceMean", "residues", axes=[0], keepdims=1)))
        scaled = self.scaling.add_to(graph, "residues")
        answers = self.targets.add_to(graph, [member.add_to(graph, scaled) for member in self.members])
        for name, value in answers.items():
            graph.add("Identity", value, name=name)
        return graph.serialise({"residues": (None, self.scaling.mean.size)})


def fit_light_attention(
    examples: Examples,
    settings: Settings,
    trainer: Trainer,
    seed: int,
    folder: Path,
    log: Callable[[str], Log],
    embed: Embed,
) -> LightAttentionHead:
    """Fit on the residues of ``examples``.

    Args:
        examples: What to learn; ``residues`` are the sequences.
        settings: Of the network.
        trainer: How to train, and how many members.
        seed: Seed of every random choice.
        folder: For checkpoints.
        log: Given a member's name, called with the figures of each of its epochs.
        embed: Called for the proteins of every step; nothing is kept.

    Raises:
        ArtifactError: As ``fit_network``, as are ``ConfigError`` and ``EnzymeStabilityError``.
    """
    targets = Targets.fit(examples.tm[~examples.validation], examples.weights[~examples.validation])
    scaling = _scaling(examples, embed, seed)
    members = []
    for number, (own_seed, own) in enumerate(ensemble(examples, trainer, seed)):
        torch.manual_seed(own_seed)
        network = AttentionNetwork(scaling, settings)

        def inputs(rows: np.ndarray) -> Iterator[Group]:
            return grouped([examples.residues[row] for row in rows], embed)

        name = f"member_{number}"
        fit_network(network, inputs, own, targets, settings, trainer, own_seed, folder / name, log(name))
        members.append(network)
    return LightAttentionHead(members, targets, scaling)


def grouped(sequences: Sequence[str], embed: Embed, budget: int = _GROUP_RESIDUES) -> Iterator[Group]:
    """Embed sequences in groups of similar length, each when it is its turn.

    Args:
        sequences: Of a batch.
        embed: Embeds some of them.
        budget: Most residues of a group, with padding; a longer sequence is a group of its own.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        places = order[start : start + max(1, budget // longest)]
        padded = np.zeros((len(places), longest, 0), dtype=np.float32)
        for k, vectors in enumerate(embed([sequences[place] for place in places])):
            if not k:
                padded = np.zeros((len(places), longest, vectors.shape[1]), dtype=np.float32)
            padded[k, : len(vectors)] = vectors
        yield Group(*(torch.from_numpy(values) for values in (places, padded, lengths[places])))
        start += len(places)


def _scaling(examples: Examples, embed: Embed, seed: int) -> Scaling:
    random = np.random.default_rng(seed)
    chosen = random.permutation(np.flatnonzero(~examples.validation))[:_SCALED_ON]
    residues = np.concatenate(embed([examples.residues[row] for row in chosen]))
    return Scaling.fit(residues[random.permutation(len(residues))[:_SCALED_ON_RESIDUES]])
