"""Descriptors against a slow reference written from their definitions, against hand-computed values, and in batches."""

from __future__ import annotations

import cmath
import itertools
import math
import random
import statistics
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from enzyme_stability.encoders.composition import BLOCKS, CompositionEncoder, ResidueBatch, amino_acid_frequencies
from enzyme_stability.encoders.scales import RESIDUE_CLASSES, SCALES
from enzyme_stability.sequence import AMINO_ACIDS

CHARGES = {"K": 1, "R": 1, "D": -1, "E": -1}

# Hen egg-white lysozyme without its signal, UniProt P00698 19-147.
LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCSALLSSDITASVNCAKKIVSDGNGMNAW"
    "VAWRNRCKGTDVQAWIRGCRL"
)


def share(chain: str, letters: str) -> float:
    return sum(chain.count(letter) for letter in letters) / len(chain)


def windows(values: list[float], width: int) -> list[list[float]]:
    width = min(width, len(values))
    return [values[start : start + width] for start in range(len(values) - width + 1)]


def pairs(chain: str) -> list[str]:
    return [a + b for a, b in itertools.pairwise(chain)]


def charge_at(chain: str, ph: float) -> float:
    positive = {"K": 10.8, "R": 12.5, "H": 6.5}
    negative = {"D": 3.9, "E": 4.1, "C": 8.5, "Y": 10.1}
    groups = [(8.6, 1), (3.6, -1), *((positive[a], 1) for a in chain if a in positive)]
    groups += [(negative[a], -1) for a in chain if a in negative]
    return sum(sign / (1 + 10 ** (sign * (ph - pka))) for pka, sign in groups)


def isoelectric_point(chain: str) -> float:
    low, high = 0.0, 14.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if charge_at(chain, middle) > 0 else (low, middle)
    return low


def amino_acids(chain: str) -> list[float]:
    return [chain.count(letter) / len(chain) for letter in AMINO_ACIDS]


def dipeptides(chain: str) -> list[float]:
    found = pairs(chain)
    return [math.sqrt(found.count(a + b) / len(found)) for a in AMINO_ACIDS for b in AMINO_ACIDS]


def class_patterns(chain: str) -> list[float]:
    values = []
    for classes in RESIDUE_CLASSES.values():
        for one, other in itertools.combinations(classes, 2):
            crossing = [p for p in pairs(chain) if (p[0] in one and p[1] in other) or (p[0] in other and p[1] in one)]
            values.append(len(crossing) / (len(chain) - 1))
    for classes in RESIDUE_CLASSES.values():
        for members in classes:
            places = [place for place, letter in enumerate(chain, start=1) if letter in members]
            values.append(len(places) / len(chain))
            for quantile in (0, 0.25, 0.5, 0.75, 1):
                nth = math.ceil(quantile * (len(places) - 1))
                values.append(places[nth] / len(chain) if places else 0.0)
    return values


def termini(chain: str) -> list[float]:
    return [end.count(letter) / len(end) for end in (chain[:30], chain[-30:], chain[:12]) for letter in AMINO_ACIDS]


def whole_chain(chain: str) -> list[float]:
    net = charge_at(chain, 7.0)
    values = [
        math.log(len(chain)),
        net,
        net / len(chain),
        isoelectric_point(chain),
        share(chain, "KR"),
        share(chain, "DE"),
        share(chain, "DEKR") - share(chain, "NQST"),
        share(chain, "IVYWREL"),
        share(chain, "EK") / (share(chain, "QH") + 0.005),
        share(chain, "R") / (share(chain, "KR") + 0.001),
        share(chain, "E") / (share(chain, "DE") + 0.001),
        share(chain, "I") / (share(chain, "ILV") + 0.001),
        share(chain, "A") + 2.9 * share(chain, "V") + 3.9 * share(chain, "IL"),
        share(chain, "FWY"),
        share(chain, "NQ"),
        share(chain, "GP"),
        share(chain, "IV") / (share(chain, "AL") + 0.001),
        share(chain, "Y") / (share(chain, "FY") + 0.001),
        -sum(share(chain, a) * math.log(share(chain, a)) for a in AMINO_ACIDS if a in chain),
    ]
    for scale in SCALES.values():
        along = [float(scale[AMINO_ACIDS.index(letter)]) for letter in chain]
        values += [statistics.fmean(along), statistics.pstdev(along)]
    return values


def window_patterns(chain: str) -> list[float]:
    charges = [CHARGES.get(letter, 0) for letter in chain]
    along = {name: [float(scale[AMINO_ACIDS.index(letter)]) for letter in chain] for name, scale in SCALES.items()} | {
        "charge": charges
    }
    values = []
    for name in ("hydropathy", "charge", "helix", "sheet", "flexibility", "hydrophobicity"):
        for width in (7, 19):
            means = [statistics.fmean(window) for window in windows(along[name], width)]
            values += [max(means), min(means), statistics.pstdev(means)]
    mean = statistics.fmean(SCALES["hydrophobicity"].tolist())
    for degrees in (100, 170):
        moments = []
        for window in windows(along["hydrophobicity"], 11):
            turned = [(h - mean) * cmath.rect(1, math.radians(degrees * k)) for k, h in enumerate(window)]
            moments.append(abs(sum(turned)) / len(window))
        values += [statistics.fmean(moments), max(moments), statistics.pstdev(moments)]
    for separation in (1, 2, 3, 4, 5):
        products = [a * b for a, b in zip(charges, charges[separation:], strict=False)]
        values += [products.count(sign) / len(products) for sign in (-1, 1)]
    values.append(statistics.pstdev([statistics.fmean(window) for window in windows(charges, 5)]))
    return values


REFERENCES: dict[str, Callable[[str], list[float]]] = {
    "amino_acids": amino_acids,
    "whole_chain": whole_chain,
    "window_patterns": window_patterns,
    "dipeptides": dipeptides,
    "class_patterns": class_patterns,
    "termini": termini,
}


def fasta_sequences(path: Path) -> list[str]:
    return ["".join(part.split("\n")[1:]) for part in path.read_text().split(">")[1:]]


@pytest.fixture(scope="module")
def odd_and_real(odd_sequences: list[str], examples: Path) -> list[str]:
    return odd_sequences[::4] + fasta_sequences(examples) + [LYSOZYME]


def encode_exactly(block: str, sequences: list[str]) -> np.ndarray:
    """Values of one block before they are cut to float32."""
    return BLOCKS[block](ResidueBatch(sequences))


@pytest.mark.parametrize("block", BLOCKS)
def test_block_agrees_with_its_definition(block: str, odd_and_real: list[str]) -> None:
    found = encode_exactly(block, odd_and_real)
    expected = np.array([REFERENCES[block](sequence) for sequence in odd_and_real])
    assert found.shape == expected.shape
    # the isoelectric point is found to 14 / 2**20; moments are kept in millionths
    tolerance = {"whole_chain": 2e-5, "window_patterns": 2e-6}.get(block, 1e-9)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    if block == "whole_chain":
        others = np.delete(np.arange(found.shape[1]), 3)
        np.testing.assert_allclose(found[:, others], expected[:, others], rtol=0, atol=1e-6)


def test_encoder_lays_the_blocks_side_by_side_in_single_precision(odd_and_real: list[str]) -> None:
    encoder = CompositionEncoder(tuple(BLOCKS))
    encoded = encoder.encode(odd_and_real)
    assert encoded.dtype == np.float32
    assert encoded.shape == (len(odd_and_real), encoder.width)
    assert encoder.width == sum(where.stop - where.start for where in encoder.columns.values())
    for block, where in encoder.columns.items():
        np.testing.assert_array_equal(encoded[:, where], encode_exactly(block, odd_and_real).astype(np.float32))


def test_order_of_the_blocks_is_the_order_asked_for(odd_sequences: list[str]) -> None:
    encoder = CompositionEncoder(["termini", "amino_acids"])
    assert encoder.columns == {"termini": slice(0, 60), "amino_acids": slice(60, 80)}
    np.testing.assert_array_equal(
        encoder.encode(odd_sequences[:5])[:, 60:], amino_acid_frequencies(odd_sequences[:5]).astype(np.float32)
    )


def test_a_block_asked_for_twice_is_refused_or_given_twice(odd_sequences: list[str]) -> None:
    try:
        encoder = CompositionEncoder(["amino_acids", "amino_acids"])
    except ValueError:
        return
    expected = amino_acid_frequencies(odd_sequences).astype(np.float32)
    np.testing.assert_array_equal(encoder.encode(odd_sequences), np.hstack([expected, expected]))


@pytest.mark.parametrize("block", BLOCKS)
def test_neighbours_do_not_move_a_descriptor_by_one_bit(block: str, odd_sequences: list[str]) -> None:
    together = encode_exactly(block, odd_sequences)
    alone = np.concatenate([encode_exactly(block, [sequence]) for sequence in odd_sequences])
    sevens = [encode_exactly(block, odd_sequences[k : k + 7]) for k in range(0, len(odd_sequences), 7)]
    titin = "".join(random.Random(1).choices(AMINO_ACIDS, k=40_000))
    beside_titin = encode_exactly(block, [titin, *odd_sequences, titin])[1:-1]
    backwards = encode_exactly(block, odd_sequences[::-1])[::-1]
    for name, other in {
        "alone": alone,
        "in sevens": np.concatenate(sevens),
        "beside 40,000 residues": beside_titin,
        "backwards": backwards,
    }.items():
        moved = np.argwhere(together != other)
        assert not moved.size, f"{name}: {len(moved)} values moved, the first at (sequence, column) {moved[0]}"


def test_neighbours_do_not_move_an_embedding_by_one_bit(odd_sequences: list[str]) -> None:
    encoder = CompositionEncoder(tuple(BLOCKS))
    together = encoder.encode(odd_sequences)
    alone = np.concatenate([encoder.encode([sequence]) for sequence in odd_sequences])
    moved = np.argwhere(together != alone)
    assert not moved.size, f"{len(moved)} values moved, the first at (sequence, column) {moved[0]}"


def test_splitting_a_large_batch_leaves_rows_in_order() -> None:
    choose = random.Random(3)
    lengths = [300_000, 10, 200_000, 100_000, 50, 262_144, 262_145, 10]  # around the residues encoded at once
    sequences = ["".join(choose.choices(AMINO_ACIDS, k=length)) for length in lengths]
    encoder = CompositionEncoder(["amino_acids", "termini"])
    np.testing.assert_array_equal(encoder.encode(sequences), np.vstack([encoder.encode([s]) for s in sequences]))


@pytest.mark.parametrize("length", range(10, 32))
def test_chains_shorter_than_a_window_have_finite_descriptors(length: int) -> None:
    chains = [(LYSOZYME * 2)[start : start + length] for start in range(0, 100, 13)]
    encoded = CompositionEncoder(tuple(BLOCKS)).encode(chains)
    assert np.isfinite(encoded).all()
    expected = [[value for block in BLOCKS for value in REFERENCES[block](chain)] for chain in chains]
    np.testing.assert_allclose(encoded, expected, rtol=1e-6, atol=2e-5)


def test_terminal_windows_of_a_short_chain_are_the_whole_chain() -> None:
    first, last, start = np.split(encode_exactly("termini", ["MKVLAARRWQ"])[0], 3)
    np.testing.assert_array_equal(first, amino_acid_frequencies(["MKVLAARRWQ"])[0])
    np.testing.assert_array_equal(first, last)
    np.testing.assert_array_equal(first, start)


def test_memory_does_not_grow_with_the_batch() -> None:
    encoder = CompositionEncoder(tuple(BLOCKS))
    chain = "".join(random.Random(5).choices(AMINO_ACIDS, k=2000))

    def working_memory(count: int) -> int:
        tracemalloc.start()
        out = encoder.encode([chain] * count)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak - out.nbytes

    few, many = working_memory(200), working_memory(1600)
    assert many < 1.1 * few
    assert many < 150e6


def test_an_empty_batch_gives_no_rows() -> None:
    encoder = CompositionEncoder(("amino_acids", "whole_chain"))
    assert encoder.encode([]).shape == (0, encoder.width)


@pytest.mark.parametrize("bad", ["MKVX", "mkv", "MK V", "", "MKV*"])
def test_descriptors_refuse_what_was_not_cleaned(bad: str) -> None:
    with pytest.raises(ValueError, match="cleaned sequences"):
        amino_acid_frequencies(["MKVLAARRWQ", bad])


def whole_chain_value(chain: str, column: int) -> float:
    return float(encode_exactly("whole_chain", [chain])[0, column])


@pytest.mark.parametrize(
    ("chain", "isoelectric"),
    [
        ("GGGGGGGGGG", (8.6 + 3.6) / 2),  # only the two ends: half-way between their constants
        ("GGGGKGGGGG", (8.6 + 10.8) / 2),  # one charge to lose, shared by two bases
        ("GGGGDGGGGG", (3.6 + 3.9) / 2),  # one charge to gain, shared by two acids
    ],
)
def test_isoelectric_point_of_a_peptide_worked_out_by_hand(chain: str, isoelectric: float) -> None:
    assert whole_chain_value(chain, 3) == pytest.approx(isoelectric, abs=2e-4)


def test_isoelectric_point_stays_on_the_ph_scale() -> None:
    assert whole_chain_value("K" * 5000, 3) == pytest.approx(14, abs=1e-4)
    assert 0 < whole_chain_value("D" * 5000, 3) < 2


def test_net_charge_of_peptides_worked_out_by_hand() -> None:
    ends = 1 / (1 + 10 ** (7 - 8.6)) - 1 / (1 + 10 ** (3.6 - 7))
    assert whole_chain_value("GGGGGGGGGG", 1) == pytest.approx(ends)
    assert whole_chain_value("GGKGGRGGGG", 1) == pytest.approx(ends + 2, abs=1e-3)
    assert whole_chain_value("GGDGGEGGGG", 1) == pytest.approx(ends - 2, abs=3e-3)
    assert whole_chain_value("GGHGGGGGGG", 1) == pytest.approx(ends + 1 / (1 + 10 ** (7 - 6.5)))
    assert whole_chain_value("GGHGGGGGGG", 2) == pytest.approx((ends + 1 / (1 + 10 ** (7 - 6.5))) / 10)


def test_lysozyme_has_the_properties_known_of_it() -> None:
    values = encode_exactly("whole_chain", [LYSOZYME])[0]
    assert len(LYSOZYME) == 129
    assert values[1] == pytest.approx(17 - 9, abs=0.6)  # 6 Lys, 11 Arg, 7 Asp, 2 Glu
    assert 9 < values[3] < 11.5  # measured: 11.35
    # ProtParam (doi 10.1385/1-59259-890-0:571): grand average of hydropathy; aliphatic index by its formula
    assert values[19] == pytest.approx(-0.472, abs=5e-4)
    counts = {letter: LYSOZYME.count(letter) for letter in "AVIL"}
    assert counts == {"A": 12, "V": 6, "I": 6, "L": 8}
    assert values[12] == pytest.approx((12 + 2.9 * 6 + 3.9 * (6 + 8)) / 129)


@pytest.mark.parametrize(("letter", "index"), [("A", 1.0), ("V", 2.9), ("I", 3.9), ("L", 3.9), ("G", 0.0)])
def test_aliphatic_index_weighs_side_chains_as_ikai_did(letter: str, index: float) -> None:
    assert whole_chain_value(letter * 20, 12) == pytest.approx(index)


def test_entropy_runs_from_one_letter_to_twenty() -> None:
    assert whole_chain_value("W" * 30, 18) == 0
    assert whole_chain_value(AMINO_ACIDS, 18) == pytest.approx(math.log(20))


def test_a_homopolymer_has_no_spread() -> None:
    for letter in AMINO_ACIDS:
        values = encode_exactly("whole_chain", [letter * 25])[0]
        np.testing.assert_allclose(values[20::2], 0, atol=1e-9, err_msg=letter)


def test_salt_bridges_along_a_helix_are_counted_at_their_separation() -> None:
    # E....K repeated: opposite charges four apart
    opposite, alike = encode_exactly("window_patterns", ["EAAAKAAAEAAAKAAA"])[0][42 + 6 : 42 + 8]
    assert opposite == pytest.approx(3 / 12)
    assert alike == 0
