"""Descriptors of a sequence that need no language model: composition, charge, patterns, termini.

Every descriptor of a sequence depends on that sequence alone, to the last bit: running sums over a batch are
taken in integers, so neither the neighbours nor the order of a batch can move a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from enzyme_stability.encoders import scales
from enzyme_stability.sequence import AMINO_ACIDS

_LETTERS = len(AMINO_ACIDS)
_CODE = np.full(256, -1, dtype=np.int8)
_CODE[np.frombuffer(AMINO_ACIDS.encode(), np.uint8)] = np.arange(_LETTERS, dtype=np.int8)
_INDEX = {letter: k for k, letter in enumerate(AMINO_ACIDS)}

_UNITS = 1000  # scales have at most three decimals: thousandths are exact integers
_WINDOW_SCALES = ("hydropathy", "charge", "helix", "sheet", "flexibility", "hydrophobicity")
_WINDOW_LENGTHS = (7, 19)  # a turn or two of a helix; a membrane-spanning helix
_MOMENT_ANGLES = (100, 170)  # degrees per residue of a helix and of a strand, doi 10.1038/299371a0
_MOMENT_WINDOW = 11
_PATTERN_WINDOW = 5
_PAIR_SEPARATIONS = (1, 2, 3, 4, 5)
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_TERMINI = (("first", 30), ("last", 30), ("first", 12))


class ResidueBatch:
    """Sequences laid end to end as small integers, with what several descriptors share.

    Attributes:
        codes: Residue codes 0..19 of all sequences, shape (total residues,).
        starts: Where each sequence begins, shape (n,).
        lengths: Residues in each sequence, shape (n,).
        owner: Which sequence a residue belongs to, shape (total residues,).
        rank: 0-based position of a residue within its sequence, shape (total residues,).
        counts: Amino-acid counts, shape (n, 20).
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self.codes = _CODE[np.frombuffer("".join(sequences).encode("ascii"), np.uint8)]
        self.lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
        if self.lengths.min(initial=1) < 1 or (self.codes < 0).any():
            raise ValueError("descriptors take cleaned sequences of the twenty standard residues")
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.owner = np.repeat(np.arange(len(sequences)), self.lengths)
        self.rank = np.arange(self.codes.size) - np.repeat(self.starts, self.lengths)
        self.counts = self.count(self.codes, _LETTERS)
        self.frequencies = self.counts / self.lengths[:, None]

    def __len__(self) -> int:
        return self.lengths.size

    def count(self, values: np.ndarray, size: int, where: np.ndarray | None = None) -> np.ndarray:
        """Histogram of ``values`` (0..size-1) for each sequence, shape (n, size)."""
        owner = self.owner if where is None else self.owner[where]
        bins = owner * size + (values if where is None else values[where])
        return np.bincount(bins, minlength=len(self) * size).reshape(len(self), size)

    @property
    def pairs(self) -> np.ndarray:
        """Counts of adjacent residue pairs, shape (n, 400)."""
        if not hasattr(self, "_pairs"):
            has_next = np.flatnonzero(self.rank[1:])
            pair = self.codes[has_next].astype(np.int64) * _LETTERS + self.codes[has_next + 1]
            bins = self.owner[has_next] * _LETTERS**2 + pair
            self._pairs = np.bincount(bins, minlength=len(self) * _LETTERS**2).reshape(len(self), -1)
        return self._pairs

    def window_sums(self, values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums of integer ``values`` over every window inside a sequence.

        A sequence shorter than ``width`` has one window: all of it.

        Returns:
            Sums of all windows in order, the first window of each sequence, and the residues in its windows.
        """
        running = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
        width_of = np.minimum(self.lengths, width)
        windows = self.lengths - width_of + 1
        first = np.cumsum(windows) - windows
        begin = np.flatnonzero(self.rank < np.repeat(windows, self.lengths))
        end = begin + np.repeat(width_of, windows)
        return running[end] - running[begin], first, width_of


def _amino_acids(batch: ResidueBatch) -> np.ndarray:
    return batch.frequencies


def _dipeptides(batch: ResidueBatch) -> np.ndarray:
    return np.sqrt(batch.pairs / np.maximum(batch.lengths - 1, 1)[:, None])


@cache
def _transition_table() -> np.ndarray:
    """Which of the 400 pairs change class, shape (400, 21), three kinds of change for each property."""
    columns = []
    for classes in scales.RESIDUE_CLASSES.values():
        table = scales.class_table(classes)
        left, right = np.repeat(table, _LETTERS), np.tile(table, _LETTERS)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            columns.append(((left == a) & (right == b)) | ((left == b) & (right == a)))
    return np.stack(columns, axis=1).astype(np.float64)


def _class_patterns(batch: ResidueBatch) -> np.ndarray:
    """Composition, transition and distribution (Dubchak et al. 1995, doi 10.1073/pnas.92.19.8700)."""
    # a product of floats is many times as fast, and exact: no sum of counts comes near 2**53
    blocks = [(batch.pairs.astype(np.float64) @ _transition_table()) / np.maximum(batch.lengths - 1, 1)[:, None]]
    for classes in scales.RESIDUE_CLASSES.values():
        table = scales.class_table(classes)
        member = table[batch.codes]
        for k in range(len(classes)):
            size = batch.counts[:, table == k].sum(axis=1)
            where = np.flatnonzero(member == k)
            first = np.cumsum(size) - size
            blocks.append((size / batch.lengths)[:, None])
            places = np.zeros((len(batch), len(_QUANTILES)))
            some = size > 0
            for j, quantile in enumerate(_QUANTILES):
                nth = first[some] + np.ceil(quantile * (size[some] - 1)).astype(np.int64)
                places[some, j] = (batch.rank[where[nth]] + 1) / batch.lengths[some]
            blocks.append(places)
    return np.concatenate(blocks, axis=1)


def _termini(batch: ResidueBatch) -> np.ndarray:
    blocks = []
    from_end = np.repeat(batch.lengths, batch.lengths) - 1 - batch.rank
    for side, residues in _TERMINI:
        inside = np.flatnonzero((batch.rank if side == "first" else from_end) < residues)
        blocks.append(batch.count(batch.codes, _LETTERS, inside) / np.minimum(batch.lengths, residues)[:, None])
    return np.concatenate(blocks, axis=1)


def _net_charge(counts: np.ndarray, ph: np.ndarray) -> np.ndarray:
    """Net charge by Henderson-Hasselbalch; ``counts`` (n, 20), ``ph`` (n,)."""
    positive = 1 / (1 + 10 ** (ph - scales.PKA_AMINO_TERMINUS))
    for residue, pka in scales.PKA_POSITIVE.items():
        positive = positive + counts[:, _INDEX[residue]] / (1 + 10 ** (ph - pka))
    negative = 1 / (1 + 10 ** (scales.PKA_CARBOXYL_TERMINUS - ph))
    for residue, pka in scales.PKA_NEGATIVE.items():
        negative = negative + counts[:, _INDEX[residue]] / (1 + 10 ** (pka - ph))
    return positive - negative


def _isoelectric_point(counts: np.ndarray) -> np.ndarray:
    """PH of zero net charge, by bisection to 14 / 2**20."""
    low, high = np.zeros(len(counts)), np.full(len(counts), 14.0)
    for _ in range(20):
        middle = (low + high) / 2
        positive = _net_charge(counts, middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return low


def _whole_chain(batch: ResidueBatch) -> np.ndarray:
    """Charge, isoelectric point, residue-class shares and ratios, means and spreads of every scale."""
    counts, share, length = batch.counts, batch.frequencies, batch.lengths

    def of(letters: str) -> np.ndarray:
        share_of: np.ndarray = counts[:, [_INDEX[a] for a in letters]].sum(axis=1) / length
        return share_of

    charge = _net_charge(counts, np.full(len(batch), 7.0))
    columns = [
        np.log(length),
        charge,
        charge / length,
        _isoelectric_point(counts),
        of("KR"),
        of("DE"),
        of("DEKR") - of("NQST"),  # charged minus polar, doi 10.1074/jbc.M306015200
        of("IVYWREL"),  # doi 10.1371/journal.pcbi.0030005
        of("EK") / (of("QH") + 0.005),
        of("R") / (of("KR") + 0.001),
        of("E") / (of("DE") + 0.001),
        of("I") / (of("ILV") + 0.001),
        of("A") + 2.9 * of("V") + 3.9 * of("IL"),  # aliphatic index / 100, doi 10.1093/oxfordjournals.jbchem.a133168
        of("FWY"),
        of("NQ"),
        of("GP"),
        of("IV") / (of("AL") + 0.001),
        of("Y") / (of("FY") + 0.001),
        -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1),  # Shannon entropy, nats
    ]
    for values in scales.SCALES.values():
        units = np.rint(values * _UNITS).astype(np.int64)
        total, squares = counts @ units, counts @ units**2  # integers: a product of floats sums by the batch's shape
        columns += [total / (length * _UNITS), np.sqrt(length * squares - total**2) / (length * _UNITS)]
    return np.stack(columns, axis=1)


def _window_patterns(batch: ResidueBatch) -> np.ndarray:
    """Extremes and spread of windowed scales, hydrophobic moments, charge pairs and charge patterning."""
    columns: list[np.ndarray] = []
    for name in _WINDOW_SCALES:
        scale = np.rint((scales.CHARGE if name == "charge" else scales.SCALES[name]) * float(_UNITS))
        values = scale.astype(np.int64)[batch.codes]
        for width in _WINDOW_LENGTHS:
            sums, first, size = batch.window_sums(values, width)
            unit = size * float(_UNITS)
            columns += [np.maximum.reduceat(sums, first) / unit, np.minimum.reduceat(sums, first) / unit]
            columns.append(_spread(sums, first) / unit)
    centred = scales.SCALES["hydrophobicity"] - scales.SCALES["hydrophobicity"].mean()
    for degrees in _MOMENT_ANGLES:
        cycle = 360 // np.gcd(360, degrees)
        angle = np.deg2rad(degrees * np.arange(cycle))
        parts = []
        for wave in (np.cos(angle), np.sin(angle)):
            table = np.rint(np.outer(centred, wave) * _UNITS**2).astype(np.int64)
            parts.append(batch.window_sums(table[batch.codes, batch.rank % cycle], _MOMENT_WINDOW)[0])
        _, first, size = batch.window_sums(np.zeros_like(batch.rank), _MOMENT_WINDOW)
        moment = np.rint(np.hypot(*parts)).astype(np.int64)  # integers again: exact sums below
        unit = size * float(_UNITS**2)
        windows = batch.lengths - size + 1
        columns += [np.add.reduceat(moment, first) / windows / unit, np.maximum.reduceat(moment, first) / unit]
        columns.append(_spread(moment, first) / unit)
    charge = scales.CHARGE[batch.codes]
    for separation in _PAIR_SEPARATIONS:
        product = np.zeros(batch.codes.size, dtype=np.int8)
        product[separation:] = charge[separation:] * charge[:-separation]
        product[batch.rank < separation] = 0
        places = np.maximum(batch.lengths - separation, 1)
        columns += [np.add.reduceat((product == sign).astype(np.int64), batch.starts) / places for sign in (-1, 1)]
    sums, first, size = batch.window_sums(charge, _PATTERN_WINDOW)
    columns.append(_spread(sums, first) / size)
    return np.stack(columns, axis=1)


def _spread(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Standard deviation of integer ``values`` within each stretch beginning at ``first``; exact sums."""
    size = np.diff(np.append(first, values.size))
    total = np.add.reduceat(values, first).astype(np.float64)
    squares = np.add.reduceat(values.astype(np.float64) ** 2, first)
    return np.sqrt(np.maximum(squares / size - (total / size) ** 2, 0))


BLOCKS: dict[str, Callable[[ResidueBatch], np.ndarray]] = {
    "amino_acids": _amino_acids,
    "whole_chain": _whole_chain,
    "window_patterns": _window_patterns,
    "dipeptides": _dipeptides,
    "class_patterns": _class_patterns,
    "termini": _termini,
}


_WORKING_SET = 262_144  # residues encoded at once: keeps memory flat whatever the batch holds


def amino_acid_frequencies(sequences: Sequence[str]) -> np.ndarray:
    """Frequencies of the twenty residues in cleaned sequences, shape (n, 20)."""
    return ResidueBatch(sequences).frequencies


class CompositionEncoder:
    """Turns cleaned sequences into descriptors, shape (n, width), float32.

    Args:
        blocks: Names from ``BLOCKS``, in the order of the columns.
    """

    def __init__(self, blocks: Sequence[str]) -> None:
        self.blocks = tuple(blocks)
        if len(set(self.blocks)) < len(self.blocks):
            raise ValueError(f"a descriptor block is asked for twice: {', '.join(self.blocks)}")
        probe = ResidueBatch([AMINO_ACIDS])
        widths = [BLOCKS[name](probe).shape[1] for name in self.blocks]
        edges = np.concatenate(([0], np.cumsum(widths)))
        self.columns = {name: slice(edges[k], edges[k + 1]) for k, name in enumerate(self.blocks)}
        self.width = int(edges[-1])

    def encode(self, sequences: Sequence[str]) -> np.ndarray:
        """Descriptors of ``sequences`` (standard residues only), shape (n, width), float32."""
        out = np.empty((len(sequences), self.width), dtype=np.float32)
        start = 0
        while start < len(sequences):
            stop, residues = start, 0
            while stop < len(sequences) and (stop == start or residues + len(sequences[stop]) <= _WORKING_SET):
                residues += len(sequences[stop])
                stop += 1
            batch = ResidueBatch(sequences[start:stop])
            for name, where in self.columns.items():
                out[start:stop, where] = BLOCKS[name](batch)
            start = stop
        return out
