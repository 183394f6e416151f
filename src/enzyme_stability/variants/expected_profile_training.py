"""Trains the network of ``enzyme_stability.variants.expected_profile`` on alignments of many unlabelled proteins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from enzyme_stability.config.delta_tm import ExpectedProfileSettings
from enzyme_stability.data.readers import read_records
from enzyme_stability.errors import DataError, MissingDependencyError, SequenceError
from enzyme_stability.heads.graph import Graph, require_onnx
from enzyme_stability.manifest import writing
from enzyme_stability.sequence import clean_sequence
from enzyme_stability.variants.alignment import search_relatives_of
from enzyme_stability.variants.expected_profile import OUTSIDE, REACH, composition
from enzyme_stability.variants.features import UNKNOWN, FloatArray, IntArray, indices
from enzyme_stability.variants.profile import column_counts

if TYPE_CHECKING:
    import torch

_SEARCHED_AT_ONCE = 2000
_STATES = OUTSIDE + 1
_FEWEST_TO_VALIDATE = 20
_OFFSETS = np.arange(-REACH, REACH + 1)
_WARM_UP = 0.1 + 1e-9  # share of the steps; of ten, OneCycleLR divides by zero where it is a tenth to the last digit


@dataclass
class _Columns:
    """Columns of many alignments, end to end.

    Attributes:
        stream: Residues of all chains by index, ``OUTSIDE`` between them.
        place: Of each column in the stream, shape (n,).
        chain: Number of its chain, shape (n,).
        counts: Weighted sequences with each residue there, shape (n, 20), float16.
        shares: Composition of each chain, shape (chains, 20).
    """

    stream: npt.NDArray[np.int8]
    place: IntArray
    chain: IntArray
    counts: npt.NDArray[np.float16]
    shares: npt.NDArray[np.float32]

    @classmethod
    def of(cls, chains: Sequence[IntArray], counts: Sequence[npt.NDArray[np.float16]]) -> _Columns:
        gap = np.full(REACH, OUTSIDE, dtype=np.int8)
        lengths = np.array([len(chain) for chain in chains])
        starts = REACH + np.concatenate([[0], np.cumsum(lengths + REACH)[:-1]])
        return cls(
            np.concatenate([gap, *(part for chain in chains for part in (chain.astype(np.int8), gap))]),
            np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)]),
            np.repeat(np.arange(len(chains)), lengths),
            np.concatenate(counts),
            np.stack([composition(chain) for chain in chains]).astype(np.float32),
        )

    def batch(self, rows: IntArray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Windows (n, 2 REACH + 1), compositions (n, 20) and counts (n, 20) of some columns."""
        import torch

        seen = self.stream[self.place[rows][:, None] + _OFFSETS].astype(np.int64)
        parts = (seen, self.shares[self.chain[rows]], self.counts[rows].astype(np.float32))
        windows, shares, counts = (torch.from_numpy(part) for part in parts)
        return windows, shares, counts


def train_expected_profile(
    sequences: Path, settings: ExpectedProfileSettings, output: Path, report: Callable[[str], None], threads: int = 0
) -> dict[str, Any]:
    """Find relatives of many proteins among themselves, learn their profiles from single sequences, write the network.

    Args:
        sequences: FASTA file of unlabelled proteins.
        settings: How many proteins, and how to learn.
        output: ONNX file to write.
        report: Told of progress.
        threads: Threads of the search; 0 takes all cores.

    Returns:
        ``proteins``, ``columns``, and the cross-entropies in nats a sequence on proteins left out: ``background`` (the
        composition of all), ``validation`` (the network).

    Raises:
        ArtifactError: The network cannot be written.
        DataError: There are too few proteins with relatives.
        MissingDependencyError: PyTorch, ONNX or MMseqs2 is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("Training the network of profiles", "plm") from None

    require_onnx()
    torch.manual_seed(settings.seed)
    if threads:
        torch.set_num_threads(threads)
    random = np.random.default_rng(settings.seed)
    chains, counts = [], []
    chosen = _choose(sequences, settings, random)
    for start in range(0, len(chosen), _SEARCHED_AT_ONCE):
        for chain, column in _profiles(chosen[start : start + _SEARCHED_AT_ONCE], sequences, settings, threads):
            chains.append(indices(chain))
            counts.append(column)
        report(f"{min(start + _SEARCHED_AT_ONCE, len(chosen)):,} of {len(chosen):,} proteins searched")
    left_out = random.random(len(chains)) < settings.validation_share
    if left_out.sum() < _FEWEST_TO_VALIDATE or (~left_out).sum() < _FEWEST_TO_VALIDATE:
        raise DataError(f"{sequences}: only {len(chains)} proteins have {settings.least_relatives} relatives or more")
    columns = _Columns.of(chains, counts)
    validation = left_out[columns.chain]
    network = _network(settings.width)
    learn, check = np.flatnonzero(~validation), np.flatnonzero(validation)
    background = columns.counts[learn].sum(axis=0, dtype=np.float64)
    figures: dict[str, Any] = {
        "proteins": len(chains),
        "columns": int(learn.size),
        "background": _cross_entropy(np.log(background / background.sum())[None], columns.counts[check]),
    }
    for epoch, value in enumerate(_fit(network, columns, learn, check, settings, random), start=1):
        report(f"epoch {epoch} of {settings.epochs}: cross-entropy {value:.4f} ({figures['background']:.4f} without)")
        figures["validation"] = value
    with writing(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(_to_onnx(network, {"settings": settings.model_dump(mode="json"), "figures": figures}))
    return figures


def _choose(path: Path, settings: ExpectedProfileSettings, random: np.random.Generator) -> list[str]:
    """Proteins of usable length, in random order."""
    found = []
    for record in read_records(path):
        try:
            chain = clean_sequence(record.sequence).chain
        except SequenceError:
            continue
        if settings.shortest <= len(chain) <= settings.longest:
            found.append(chain)
    return [found[k] for k in random.permutation(len(found))[: settings.proteins].tolist()]


def _profiles(
    chains: Sequence[str], database: Path, settings: ExpectedProfileSettings, threads: int
) -> Iterator[tuple[str, npt.NDArray[np.float16]]]:
    found = search_relatives_of(
        chains,
        database,
        threads=threads,
        max_relatives=settings.most_relatives,
        iterations=1,
        sensitivity=settings.sensitivity,
    )
    for chain, alignment in zip(chains, found, strict=True):
        if len(alignment.rows) > settings.least_relatives:
            yield chain, column_counts(alignment)[:, :UNKNOWN].astype(np.float16)


def _network(width: int) -> Any:
    import torch
    from torch import nn

    class Network(nn.Module):
        """Sum of a vector for each neighbour at each offset, then two layers; and a straight way past them."""

        def __init__(self) -> None:
            super().__init__()
            places = len(_OFFSETS) * _STATES
            self.register_buffer("first", torch.arange(len(_OFFSETS)) * _STATES)
            self.neighbours, self.straight = nn.Embedding(places, width), nn.Embedding(places, UNKNOWN)
            nn.init.normal_(self.neighbours.weight, std=0.1)
            nn.init.zeros_(self.straight.weight)
            self.composition, self.norm = nn.Linear(UNKNOWN, width), nn.LayerNorm(width)
            self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, UNKNOWN)

        def forward(self, windows: torch.Tensor, composition: torch.Tensor) -> torch.Tensor:
            where = windows + self.get_buffer("first")
            bag = nn.functional.embedding_bag
            state = bag(where, self.neighbours.weight, mode="sum") + self.composition(10 * composition)
            state = torch.relu(self.hidden(torch.relu(self.norm(state))))
            logits: torch.Tensor = self.out(state) + bag(where, self.straight.weight, mode="sum")
            return logits

    return Network()


def _fit(
    network: Any,
    columns: _Columns,
    learn: IntArray,
    check: IntArray,
    settings: ExpectedProfileSettings,
    random: np.random.Generator,
) -> Iterator[float]:
    """Cross-entropy on the proteins left out, after each epoch."""
    import torch

    batches = max(1, learn.size // settings.batch)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=batches * settings.epochs, pct_start=_WARM_UP
    )
    for _ in range(settings.epochs):
        network.train()
        for rows in np.array_split(random.permutation(learn), batches):
            windows, shares, counts = columns.batch(rows)
            total = counts.sum(dim=1, keepdim=True).clamp(min=1e-3)
            trust = total / (total + settings.pseudocount)
            loss = -(trust * counts / total * network(windows, shares).log_softmax(1)).sum() / trust.sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            parts = np.array_split(check, max(1, check.size // 8192))
            logarithms = [network(*columns.batch(rows)[:2]).log_softmax(1).numpy() for rows in parts]
        yield _cross_entropy(np.concatenate(logarithms), columns.counts[check])


def _cross_entropy(logarithms: FloatArray, counts: npt.NDArray[np.float16]) -> float:
    seen = counts.astype(float)
    return float(-(seen * logarithms).sum() / seen.sum())


def _to_onnx(network: Any, made: Mapping[str, Any]) -> bytes:
    """Inputs ``windows`` (n, 2 REACH + 1) int64 and ``composition`` (n, 20); output ``probabilities`` (n, 20)."""
    graph = Graph()
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    where = graph.add("Add", "windows", graph.constant(weights["first"]))
    axis = graph.constant(np.array([1], dtype=np.int64))

    def bag(name: str) -> str:
        vectors = graph.add("Gather", graph.constant(weights[f"{name}.weight"]), where)
        return graph.add("ReduceSum", vectors, axis, keepdims=0)

    def linear(name: str, values: str) -> str:
        product = graph.add("MatMul", values, graph.constant(weights[f"{name}.weight"].T))
        return graph.add("Add", product, graph.constant(weights[f"{name}.bias"]))

    scaled = graph.add("Mul", "composition", graph.constant(np.array(10, dtype=np.float32)))
    state = graph.add("Add", bag("neighbours"), linear("composition", scaled))
    norm = [graph.constant(weights[f"norm.{part}"]) for part in ("weight", "bias")]
    state = graph.add("Relu", graph.add("LayerNormalization", state, *norm, axis=-1, epsilon=1e-5))
    state = graph.add("Relu", linear("hidden", state))
    graph.add("Softmax", graph.add("Add", linear("out", state), bag("straight")), name="probabilities", axis=-1)
    return graph.serialise(
        {"windows": (None, len(_OFFSETS)), "composition": (None, UNKNOWN)},
        {"made": json.dumps(made)},
        integers=("windows",),
        outputs={"probabilities": UNKNOWN},
    )
