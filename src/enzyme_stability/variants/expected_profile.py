"""What the family of a protein would have at each place, foretold from its sequence alone.

A small network sees a residue with its neighbours on either side and the composition of the chain, and gives the
frequencies that an alignment of relatives would show there. It learned them from the alignments of many proteins.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from enzyme_stability.errors import ArtifactError
from enzyme_stability.variants.features import UNKNOWN, FloatArray, IntArray

REACH = 12
"""Neighbours seen on either side."""

OUTSIDE = UNKNOWN + 1
"""Index of a place before the first or after the last residue."""

BLOCK = 256
"""Places given to the runtime at once, always: so a place's answer is the same to the last bit among any others."""

_LEAST = np.finfo(np.float32).tiny  # a softmax may come out as 0, whose logarithm is no number


def windows(chain: IntArray) -> IntArray:
    """Each residue with its neighbours, shape (L, 2 REACH + 1), from residues by index, shape (L,)."""
    padded = np.pad(chain, REACH, constant_values=OUTSIDE)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)


def composition(chain: IntArray) -> FloatArray:
    """Share of each residue among the known ones, shape (20,)."""
    counts = np.bincount(chain, minlength=UNKNOWN + 1)[:UNKNOWN].astype(float)
    return np.asarray(counts / max(counts.sum(), 1.0))


class ExpectedProfile:
    """The network, loaded from an ONNX file.

    Args:
        path: The file.
        threads: Threads; 0 takes all cores.

    Raises:
        ArtifactError: The file is missing or no such network.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has no exception family of its own
            raise ArtifactError(f"{path} cannot be loaded as a model: {error}") from None
        taken = {given.name: given.shape[1:] for given in self._session.get_inputs()}
        made = {given.name: given.shape[1:] for given in self._session.get_outputs()}
        if taken != {"windows": [2 * REACH + 1], "composition": [UNKNOWN]} or made != {"probabilities": [UNKNOWN]}:
            raise ArtifactError(f"{path} does not foretell profiles")

    @property
    def made(self) -> dict[str, Any]:
        """The settings it was trained with, and the figures on proteins left out; empty where unknown."""
        found: dict[str, Any] = json.loads(self._session.get_modelmeta().custom_metadata_map.get("made", "{}"))
        return found

    def probabilities(self, chain: IntArray) -> FloatArray:
        """Of each residue at each place, shape (L, 20); none is 0.

        Args:
            chain: Residues as columns of ``AMINO_ACIDS``, shape (L,); anything else is ``UNKNOWN``.
        """
        seen, share = windows(chain), composition(chain).astype(np.float32)
        blocks = [self._block(seen[start : start + BLOCK], share) for start in range(0, len(seen), BLOCK)]
        found = np.maximum(np.concatenate(blocks), _LEAST).astype(float)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    def _block(self, seen: IntArray, share: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        padded = np.pad(seen, ((0, BLOCK - len(seen)), (0, 0)), constant_values=OUTSIDE)
        inputs = {"windows": padded, "composition": np.broadcast_to(share, (BLOCK, UNKNOWN))}
        given: npt.NDArray[np.float32] = self._session.run(["probabilities"], inputs)[0]
        return given[: len(seen)]
