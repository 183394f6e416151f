"""Answers from embeddings made elsewhere, by a predictor of a tiny language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from running_service import served_here
from safetensors.numpy import save_file

from enzyme_stability import Predictor
from enzyme_stability.configuration import compose
from enzyme_stability.training import train
from tiny_models import WIDTH, save_tiny_model


def sent(client: httpx.Client, data: bytes, name: str) -> httpx.Response:
    return client.post("/v1/predict/embeddings", files={"file": (name, data)})


@pytest.fixture(scope="module")
def on_embeddings(
    tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame
) -> Iterator[tuple[httpx.Client, Predictor]]:
    """A service with a predictor of a tiny language model, and that predictor."""
    folder = tmp_path_factory.mktemp("embeddings")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ENZYME_STABILITY_STORE", str(folder / "store"))
        patched.setenv("HF_HUB_OFFLINE", "1")
        model = save_tiny_model("esm2", folder / "tiny")
        made_up_proteins[:220].to_csv(folder / "table.csv", index=False)
        settings = {
            "data.path": f'"{folder / "table.csv"}"',
            "head": "ridge",
            "head.inner_folds": 3,
            "encoder": "language_model",
            "encoder.model": f'"{model}"',
            "encoder.device": "cpu",
            "split.calibration_share": 0.4,
            "split.folds": 0,
            "output": f'"{folder / "predictor"}"',
        }
        predictor = train(compose([f"{name}={value}" for name, value in settings.items()]))
        with served_here(model=str(predictor.folder)) as client:
            yield client, predictor


def _saved(vectors: np.ndarray, folder: Path) -> dict[str, bytes]:
    """The same embeddings in every format."""
    names = [f"embedding_{k + 1}" for k in range(len(vectors))]
    np.save(folder / "a.npy", vectors)
    torch.save(torch.from_numpy(vectors), folder / "a.pt")
    save_file({name: np.ascontiguousarray(v) for name, v in zip(names, vectors, strict=True)}, folder / "a.safetensors")
    with h5py.File(folder / "a.h5", "w") as file:
        for name, vector in zip(names, vectors, strict=True):
            file[name] = vector
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def test_embeddings_give_the_same_rows_in_every_format(
    on_embeddings: tuple[httpx.Client, Predictor], tmp_path: Path
) -> None:
    client, predictor = on_embeddings
    vectors = np.random.default_rng(3).normal(size=(3, WIDTH)).astype(np.float32)
    expected = [row.tm_celsius for row in predictor.predict_embeddings(["a", "b", "c"], vectors)]
    for suffix, data in _saved(vectors, tmp_path).items():
        rows = sent(client, data, f"x{suffix}").raise_for_status().json()["predictions"]
        assert [row["tm_celsius"] for row in rows] == expected, suffix
        assert {row["length"] for row in rows} == {None}


def test_embeddings_of_another_width_are_explained(
    on_embeddings: tuple[httpx.Client, Predictor], tmp_path: Path
) -> None:
    client, predictor = on_embeddings
    for suffix, data in _saved(np.ones((2, WIDTH + 1), np.float32), tmp_path).items():
        refused = sent(client, data, f"x{suffix}")
        message = refused.json()["error"]["message"]
        assert refused.status_code == 422, suffix
        assert f"{WIDTH + 1} wide" in message
        assert str(predictor.folder.parent) not in message


def test_a_model_of_sequences_takes_no_embeddings_and_says_so(client: httpx.Client, tmp_path: Path) -> None:
    for suffix, data in _saved(np.ones((2, 32), np.float32), tmp_path).items():
        refused = sent(client, data, f"x{suffix}")
        assert (refused.status_code, refused.json()["error"]["message"]) == (
            422,
            "builtin does not take embeddings; give it sequences",
        )
