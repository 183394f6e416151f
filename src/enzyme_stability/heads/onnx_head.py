"""Runs an exported head through ONNX Runtime; this is all that prediction needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from enzyme_stability.errors import ArtifactError

BLOCK = 128
"""Rows given to the runtime at once, always: matrix kernels sum in another order for another shape, and a fixed shape
keeps a protein's answer the same to the last bit whether it comes alone or among others."""


class HeadOutput(NamedTuple):
    """Uncalibrated output; every array has shape (n,), float64.

    Attributes:
        tm: Value in degC.
        lower: Lower quantile in degC.
        upper: Upper quantile in degC.
        similarity: Kernel similarity to the nearest landmark protein, 0..1.
    """

    tm: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    similarity: np.ndarray


class OnnxHead:
    """A head loaded from an ONNX file.

    Args:
        model: The file, or its content.
        threads: Blocks, or proteins, run at once; 0 takes all cores.

    Attributes:
        width: Features it takes.
        pooling: What it takes of each protein: one embedding (``mean``) or one of each residue (``residues``).

    Raises:
        ArtifactError: The file is missing or no model.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        import onnxruntime

        self._threads = threads or os.cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # blocks run side by side instead: threads inside one would change its sums
        options.log_severity_level = 3
        what = "the exported head" if isinstance(model, bytes) else model
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has no exception family of its own
            raise ArtifactError(f"{what} cannot be loaded as a model: {error}") from None
        taken = {given.name: given.shape for given in self._session.get_inputs()}
        if not taken.keys() & {"descriptors", "residues"}:
            raise ArtifactError(f"{what} is no head: it takes {', '.join(taken) or 'nothing'}")
        self.pooling: Literal["mean", "residues"] = "residues" if "residues" in taken else "mean"
        self.width: int = taken["residues" if self.pooling == "residues" else "descriptors"][1]

    def predict(
        self, descriptors: np.ndarray | Sequence[np.ndarray], growth_temperature: np.ndarray | None = None
    ) -> HeadOutput:
        """Run the head.

        Args:
            descriptors: Shape (n, width); or, where ``pooling`` is ``residues``, of each protein (length, width).
            growth_temperature: degC, shape (n,), for a head that takes it.
        """
        work: list[Callable[[], np.ndarray]]
        if self.pooling == "residues":
            work = [partial(self._run_protein, residues) for residues in descriptors]
        else:
            inputs = {"descriptors": np.asarray(descriptors, dtype=np.float32)}
            if growth_temperature is not None:
                inputs["growth_temperature"] = growth_temperature.astype(np.float32)[:, None]
            starts = range(0, len(descriptors), BLOCK)
            blocks = [{name: v[start : start + BLOCK] for name, v in inputs.items()} for start in starts]
            work = [partial(self._run_block, block) for block in blocks]
        if len(work) == 1:  # not worth a thread
            results = [work[0]()]
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                results = list(pool.map(lambda run: run(), work))
        columns = np.concatenate([np.empty((0, len(HeadOutput._fields))), *results], dtype=np.float64)
        return HeadOutput(*columns.T)

    def _run_block(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Answers of up to ``BLOCK`` rows, shape (rows, outputs)."""
        padded = {name: _padded(values) for name, values in inputs.items()}
        return np.concatenate(self._session.run(HeadOutput._fields, padded), axis=1)[: len(inputs["descriptors"])]

    def _run_protein(self, residues: np.ndarray) -> np.ndarray:
        answers = self._session.run(HeadOutput._fields, {"residues": residues.astype(np.float32, copy=False)})
        return np.concatenate(answers, axis=1)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], BLOCK - len(values), axis=0)])
