"""Long sequences in windows, and sequences end to end in one stream of tokens: no padding, so nothing to pay or mask.

Every layer of a transformer but attention treats tokens one by one. So a batch is one stream of tokens, sequence after
sequence; only attention looks where one ends and the next begins, and each attends to itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from enzyme_stability.encoders.tokenisation import quietly, reason
from enzyme_stability.errors import ArtifactError

if TYPE_CHECKING:
    import torch

ATTENTION = "enzyme_stability_packed"
"""Name under which the attention is registered with Transformers."""

_DISPENSABLE = re.compile(r"(^|\.)((pooler|contact_head)\..*|position_ids|inv_freq)$")
"""Weights that no embedding depends on, or that follow from the settings; checkpoints often lack them."""


class Piece(NamedTuple):
    """A stretch of one sequence, residues ``start`` to ``stop`` (0-based, half-open)."""

    sequence: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Residues."""
        return self.stop - self.start


def windows(length: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Stretches of ``window`` residues that cover a sequence, evenly spaced, neighbours sharing ``overlap`` or more.

    A sequence that fits is one stretch. ``overlap`` is less than ``window``. Of
    n = ceil((length - overlap) / (window - overlap)) windows, number k starts at residue
    round(k (length - window) / (n - 1)).
    """
    if length <= window:
        return [(0, length)]
    count = -((overlap - length) // (window - overlap))
    starts = np.round(np.linspace(0, length - window, count)).astype(int)
    return [(int(start), int(start) + window) for start in starts]


def residue_weights(length: int, pieces: Sequence[tuple[int, int]]) -> np.ndarray:
    """One over the number of windows that hold a residue, shape (length,): the share of each window in its vector."""
    held = np.zeros(length, dtype=np.float32)
    for start, stop in pieces:
        held[start:stop] += 1
    weights: np.ndarray = 1 / held
    return weights


def pooled(vectors: torch.Tensor, weights: np.ndarray | None, pooling: str) -> np.ndarray:
    """What one piece adds to the embedding of its sequence, float32.

    Args:
        vectors: Those of its residues, shape (residues, width).
        weights: Share of this piece in each residue, shape (residues,); None where it is the whole sequence.
        pooling: ``mean`` for the mean over residues, or their weighted sum where there are weights; else the residues.
    """
    import torch

    vectors = vectors.float()
    if weights is not None:
        vectors = vectors * torch.from_numpy(weights).to(vectors.device)[:, None]
    if pooling == "mean":
        vectors = vectors.mean(dim=0) if weights is None else vectors.sum(dim=0)
    numbers: np.ndarray = vectors.cpu().numpy()
    return numbers


def batches(pieces: Sequence[Piece], budget: int, specials: int) -> Iterator[list[Piece]]:
    """Pieces in batches of at most ``budget`` tokens, the longest first; a longer piece is a batch of its own."""
    batch: list[Piece] = []
    tokens = 0
    for piece in sorted(pieces, key=lambda p: -p.length):
        if batch and tokens + piece.length + specials > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(piece)
        tokens += piece.length + specials
    if batch:
        yield batch


_lengths: ContextVar[tuple[int, ...]] = ContextVar("lengths of the sequences in the stream")


@contextmanager
def stream_of(lengths: Sequence[int]) -> Iterator[None]:
    """Say which sequences the stream holds while a model runs on it; ``lengths`` are in tokens."""
    before = _lengths.set(tuple(lengths))
    try:
        yield
    finally:
        _lengths.reset(before)


def longest_in_stream() -> int:
    """Tokens of the longest sequence in the stream at hand."""
    return max(_lengths.get())


def attention(
    _module: object,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention in a stream, each sequence to itself, in the form Transformers calls it.

    Args:
        query: Shape (1, heads, tokens, width).
        key: As ``query``.
        value: As ``query``.
        scaling: Factor of the products; one over the square root of the width where None.
        position_bias: Added to the products, shape (1, heads, longest, longest): the relative positions of T5.

    Returns:
        Shape (1, tokens, heads, width), and nothing in place of the attention weights.
    """
    import torch

    run = _padded if query.is_cuda else _one_by_one
    return run(torch.nn.functional.scaled_dot_product_attention, query, key, value, scaling, position_bias), None


def _one_by_one(
    attend: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    position_bias: torch.Tensor | None,
) -> torch.Tensor:
    """The least work, which is what counts on a processor."""
    out = query.new_empty((1, query.shape[2], query.shape[1], query.shape[3]))
    start = 0
    for length in _lengths.get():
        own = slice(start, start + length)
        bias = None if position_bias is None else position_bias[:, :, :length, :length]
        heads = attend(query[:, :, own], key[:, :, own], value[:, :, own], attn_mask=bias, scale=scaling)
        out[:, own] = heads.transpose(1, 2)
        start += length
    return out


def _padded(
    attend: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    position_bias: torch.Tensor | None,
) -> torch.Tensor:
    """Few kernels, which is what counts on an accelerator; only attention sees the padding."""
    import torch

    out = query.new_empty((1, query.shape[2], query.shape[1], query.shape[3]))
    start = 0
    for run in _alike(_lengths.get()):
        lengths = torch.tensor(run, device=query.device)
        starts = start + lengths.cumsum(0) - lengths
        longest = max(run)
        place = torch.arange(longest, device=query.device)
        real = place[None] < lengths[:, None]  # (sequences, longest)
        index = torch.where(real, starts[:, None] + place[None], starts[:, None])
        q, k, v = (t[0][:, index].transpose(0, 1) for t in (query, key, value))  # (sequences, heads, longest, width)
        mask: torch.Tensor = real[:, None, None, :]
        if position_bias is not None:
            hidden = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
            mask = position_bias[:, :, :longest, :longest] + hidden
        heads = attend(q, k, v, attn_mask=mask, scale=scaling)
        out[0, start : start + sum(run)] = heads.transpose(1, 2)[real]
        start += sum(run)
    return out


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The lengths in runs, no sequence shorter than half the first of its run: padding at most doubles the tokens.

    Without it a batch of one long protein and a thousand peptides would be as large as a thousand long proteins.
    """
    run: list[int] = []
    for length in lengths:  # the longest first
        if run and 2 * length < run[0]:
            yield run
            run = []
        run.append(length)
    yield run


def load(folder: Path, kind: str | None, dtype: torch.dtype) -> Any:
    """The model of a checkpoint, all its weights read from there.

    Args:
        folder: Local checkpoint.
        kind: Class of Transformers; its attention keeps to each sequence of a stream. None finds the class by
            config.json, and the model takes no streams.
        dtype: What its weights are turned into.

    Raises:
        ArtifactError: It cannot be loaded, lacks weights or has a decoder.
    """
    import transformers

    register()
    options: dict[str, Any] = {"add_pooling_layer": False} if kind in ("BertModel", "EsmModel") else {}
    try:
        with quietly():
            model, report = getattr(transformers, kind or "AutoModel").from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=ATTENTION if kind else None,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # whatever a broken file makes the library raise
        raise ArtifactError(f"the language model in {folder} cannot be loaded: {reason(error)}") from None
    # Transformers makes up the weights that are missing, and every embedding would be noise.
    if missing := sorted(name for name in report["missing_keys"] if not _DISPENSABLE.search(name)):
        raise ArtifactError(
            f"the language model in {folder} lacks {len(missing)} of its weights, among them {missing[0]}: "
            "the files are incomplete, or config.json is that of another model"
        )
    if model.config.is_encoder_decoder:
        raise ArtifactError(f"{folder}: of the models with a decoder only T5 can embed, not {model.config.model_type}")
    return model


def register() -> None:
    """Make the attention known to Transformers under the name ``ATTENTION``."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
