"""Windows, batches and attention in a stream of sequences."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from enzyme_stability.encoders import packing
from enzyme_stability.encoders.packing import Piece

HEADS, WIDTH = 3, 8
lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@given(st.integers(1, 6000), st.integers(1, 2100), st.integers(0, 2100))
def test_windows_cover_a_sequence_evenly_and_share_the_overlap(length: int, window: int, overlap: int) -> None:
    assume(overlap < window and length / (window - overlap) < 2000)
    found = packing.windows(length, window, overlap)
    if length <= window:
        assert found == [(0, length)]
        return
    starts = np.array([start for start, _ in found])
    assert [stop for _, stop in found] == (starts + window).tolist()
    assert (starts[0], starts[-1]) == (0, length - window)
    assert np.diff(starts).min() > 0
    assert np.diff(starts).max() <= window - overlap
    assert np.ptp(np.diff(starts)) <= 1
    assert len(found) == math.ceil((length - overlap) / (window - overlap))
    assert starts.tolist() == [round(k * (length - window) / (len(found) - 1)) for k in range(len(found))]


@pytest.mark.parametrize(
    ("length", "window", "overlap", "expected"),
    [
        (4, 1, 0, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        (11, 10, 0, [(0, 10), (1, 11)]),
        (11, 10, 9, [(0, 10), (1, 11)]),
        (10, 10, 5, [(0, 10)]),
        (20, 10, 0, [(0, 10), (10, 20)]),
        (21, 10, 0, [(0, 10), (6, 16), (11, 21)]),
        (1023, 1022, 256, [(0, 1022), (1, 1023)]),
    ],
)
def test_windows_at_the_edges(length: int, window: int, overlap: int, expected: list[tuple[int, int]]) -> None:
    assert packing.windows(length, window, overlap) == expected


@given(st.integers(1, 900), st.integers(1, 50), st.integers(0, 49))
def test_the_windows_that_hold_a_residue_share_it_out(length: int, window: int, overlap: int) -> None:
    assume(overlap < window)
    pieces = packing.windows(length, window, overlap)
    weights = packing.residue_weights(length, pieces)
    total = np.zeros(length)
    for start, stop in pieces:
        total[start:stop] += weights[start:stop]
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@given(lengths, st.integers(1, 100), st.integers(0, 2))
def test_batches_hold_every_piece_once_within_the_budget(sizes: list[int], budget: int, specials: int) -> None:
    pieces = [Piece(k, 0, size) for k, size in enumerate(sizes)]
    batches = list(packing.batches(pieces, budget, specials))
    assert sorted(piece for batch in batches for piece in batch) == pieces
    order = [piece.length for batch in batches for piece in batch]
    assert order == sorted(order, reverse=True)
    tokens = [sum(piece.length + specials for piece in batch) for batch in batches]
    assert all(own <= budget or len(batch) == 1 for own, batch in zip(tokens, batches, strict=True))
    for own, following in zip(tokens, batches[1:], strict=False):  # no batch is closed before it has to be
        assert own + following[0].length + specials > budget


def test_nothing_to_embed_makes_no_batches() -> None:
    assert list(packing.batches([], 100, 2)) == []


def _stream(sizes: Sequence[int], seed: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, HEADS, sum(sizes), WIDTH)
    query, key, value = (torch.randn(shape, generator=generator).to(dtype) for _ in range(3))
    bias = torch.randn((1, HEADS, max(sizes), max(sizes)), generator=generator).to(dtype)
    return query, key, value, bias


def _by_formula(
    sizes: Sequence[int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    bias: torch.Tensor,
) -> torch.Tensor:
    out, start = [], 0
    for size in sizes:
        q, k, v = (t[0, :, start : start + size].double() for t in (query, key, value))
        products = q @ k.transpose(1, 2) * scaling + bias[0, :, :size, :size].double()
        out.append((products.softmax(-1) @ v).transpose(0, 1))
        start += size
    return torch.cat(out)[None]


@given(lengths, st.booleans(), st.sampled_from([None, 1.0, 0.3]), st.integers(0, 99))
def test_each_sequence_attends_to_itself_alone_in_both_ways(
    sizes: list[int], biased: bool, scaling: float | None, seed: int
) -> None:
    query, key, value, bias = _stream(sizes, seed)
    expected = _by_formula(sizes, query, key, value, scaling or WIDTH**-0.5, bias if biased else torch.zeros_like(bias))
    with packing.stream_of(sizes):
        for way in (packing._one_by_one, packing._padded):
            found = way(scaled_dot_product_attention, query, key, value, scaling, bias if biased else None)
            assert found.shape == (1, sum(sizes), HEADS, WIDTH)
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("biased", [False, True])
def test_both_ways_agree_in_half_precision(biased: bool) -> None:
    sizes = [300, 120, 119, 7, 2, 1]
    query, key, value, bias = _stream(sizes, 0, torch.bfloat16)
    with packing.stream_of(sizes):
        ways = (packing._one_by_one, packing._padded)
        one, two = (way(scaled_dot_product_attention, query, key, value, 1.0, bias if biased else None) for way in ways)
    assert one.dtype == two.dtype == torch.bfloat16
    torch.testing.assert_close(one, two, rtol=0, atol=2e-2)


def test_the_attention_for_transformers_scales_as_it_is_told() -> None:
    query, key, value, bias = _stream([5, 3], 1)
    with packing.stream_of([5, 3]):
        found, weights = packing.attention(None, query, key, value, None, scaling=1.0, position_bias=bias, dropout=0.0)
    assert weights is None
    torch.testing.assert_close(found.double(), _by_formula([5, 3], query, key, value, 1.0, bias), rtol=1e-5, atol=1e-5)


def test_padding_never_takes_more_room_than_the_sequences() -> None:
    sizes = [2000, *[10] * 300, 9, 4, *[1] * 50]
    query, key, value, _ = _stream(sizes, 2)
    rows = []

    def attend(q: torch.Tensor, *rest: torch.Tensor, **how: object) -> torch.Tensor:
        rows.append(q.shape[0] * q.shape[2])
        return scaled_dot_product_attention(q, *rest, **how)  # type: ignore[arg-type]

    with packing.stream_of(sizes):
        packing._padded(attend, query, key, value, 1.0, None)
    assert sum(sizes) <= sum(rows) <= 2 * sum(sizes)


def test_each_thread_has_its_own_stream() -> None:
    seen = {}
    both_are_inside = threading.Barrier(2, timeout=10)

    def run(longest: int) -> None:
        with packing.stream_of([1, longest]):
            both_are_inside.wait()
            seen[longest] = packing.longest_in_stream()

    threads = [threading.Thread(target=run, args=(longest,)) for longest in (5, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {5: 5, 9: 9}


def test_a_stream_ends_with_its_block_even_after_an_error() -> None:
    with packing.stream_of([4]):
        with pytest.raises(ValueError, match="inside"), packing.stream_of([7, 8]):
            raise ValueError("inside")
        assert packing.longest_in_stream() == 4
    with pytest.raises(LookupError):
        packing.longest_in_stream()


def test_pooling_gives_a_mean_a_weighted_sum_or_the_residues() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.bfloat16)
    shares = np.array([1, 0.5], dtype=np.float32)
    for weights, pooling, expected in (
        (None, "mean", [2, 4]),
        (shares, "mean", [2.5, 5]),
        (None, "residues", [[1, 2], [3, 6]]),
        (shares, "residues", [[1, 2], [1.5, 3]]),
    ):
        found = packing.pooled(vectors, weights, pooling)
        assert found.dtype == np.float32
        assert found.tolist() == expected
