"""Runs an exported head through ONNX Runtime; this is all that prediction needs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

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
        threads: Blocks run at once; 0 takes all cores.

    Raises:
        ArtifactError: The file is missing or no model.
    """

    def __init__(self, model: Path | bytes, threads: int = 0) -> None:
        import onnxruntime

        self._threads = threads or os.cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # blocks run side by side instead: threads inside one would change its sums
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has no exception family of its own
            what = "the exported head" if isinstance(model, bytes) else model
            raise ArtifactError(f"{what} cannot be loaded as a model: {error}") from None
        self.width: int = self._session.get_inputs()[0].shape[1]

    def predict(self, descriptors: np.ndarray, growth_temperature: np.ndarray | None = None) -> HeadOutput:
        """Run the head on descriptors (n, width) and, for a head that takes it, growth temperatures (n,) in degC."""
        inputs = {"descriptors": descriptors.astype(np.float32)}
        if growth_temperature is not None:
            inputs["growth_temperature"] = growth_temperature.astype(np.float32)[:, None]
        blocks = [slice(start, start + BLOCK) for start in range(0, len(descriptors), BLOCK)]

        def run(rows: slice) -> np.ndarray:
            block = {name: _padded(values[rows]) for name, values in inputs.items()}
            results = self._session.run(HeadOutput._fields, block)
            return np.concatenate(results, axis=1)[: len(descriptors[rows])].T

        with ThreadPoolExecutor(self._threads) as pool:
            results = [np.empty((len(HeadOutput._fields), 0)), *pool.map(run, blocks)]
        return HeadOutput(*np.concatenate(results, axis=1, dtype=np.float64))


def _padded(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.repeat(values[-1:], BLOCK - len(values), axis=0)])
