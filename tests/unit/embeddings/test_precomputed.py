"""Training on a file of embeddings: the same predictor as without it, and no file that could give another."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability import cli
from enzyme_stability.config import Composition, TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.data.readers import read_records
from enzyme_stability.embeddings.files import open_embedding_writer, read_embeddings
from enzyme_stability.embeddings.precomputed import made_by
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.errors import ConfigError, DataError
from enzyme_stability.fitting import encode
from enzyme_stability.training import train
from tiny_models import save_tiny_model

BLOCKS = ("amino_acids", "whole_chain")
SETTINGS = (
    *("encoder=composition", f"encoder.blocks=[{','.join(BLOCKS)}]", "head=ridge", "head.inner_folds=3"),
    *("split.calibration_share=0.3", "split.folds=0"),
)


@pytest.fixture(scope="module")
def table(made_up_proteins: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "learn.csv"
    made_up_proteins.to_csv(path, index=False)
    return path


def configured(table: Path, *changes: str) -> TrainConfig:
    return compose([*SETTINGS, f'data.path="{table}"', *changes])


def embed(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["enzyme-stability", "embed", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def settings(table: Path) -> Path:
    path = table.with_name("settings.yaml")
    path.write_text(configured(table).model_dump_json())
    return path


@pytest.fixture(scope="module")
def digest(table: Path) -> str:
    """What identifies the predictor that training makes without a file."""
    return train(configured(table, f'output="{table.with_name("computed")}"')).digest


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
def test_embeddings_from_a_file_train_the_same_predictor(
    suffix: str, digest: str, table: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled = tmp_path / "shuffled.csv"
    pd.read_csv(table).sample(frac=1, random_state=1).to_csv(shuffled, index=False)
    file = tmp_path / f"embeddings{suffix}"
    assert embed(monkeypatch, shuffled, "--encoder", settings, "--output", file) == 0
    looked_up = configured(table, f'output="{tmp_path / "run"}"', f'data.embeddings="{file}"')
    assert train(looked_up).digest == digest


def test_descriptors_are_written_as_the_encoder_makes_them(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "descriptors.parquet"
    assert embed(monkeypatch, examples, "--encoder", "composition", "--output", file) == 0
    records = list(read_records(str(examples)))
    found = read_embeddings(file)
    assert found.ids == [record.id for record in records]
    expected = CompositionEncoder(Composition().blocks).encode([record.sequence for record in records])
    np.testing.assert_array_equal(found.vectors, expected)


@pytest.mark.parametrize(
    ("option", "named"), [(("--layer", 2), "layer"), (("--pooling", "residues"), "--pooling")], ids=["layer", "pooling"]
)
def test_descriptors_have_no_settings_of_a_language_model(
    option: tuple[object, ...],
    named: str,
    examples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "descriptors.h5"
    assert embed(monkeypatch, examples, "--encoder", "composition", "--output", file, *option) == 2
    assert named in capsys.readouterr().err
    assert not file.exists()


def written(path: Path, ids: list[str], vectors: np.ndarray, **metadata: object) -> Path:
    with open_embedding_writer(path, vectors.shape[1], {**made_by(CompositionEncoder(BLOCKS)), **metadata}) as writer:
        writer.write(ids, list(vectors))
    return path


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"id": ["a", "b"], "residues": ["ACDEFGHIKL", "MNPQRSTVWY"]})


def look_up(rows: pd.DataFrame, path: Path, *changes: str) -> np.ndarray:
    return encode(rows, configured(Path("t.csv"), f'data.embeddings="{path}"', *changes), lambda _: None).embeddings


def test_a_protein_without_an_embedding_is_named(rows: pd.DataFrame, tmp_path: Path) -> None:
    vectors = CompositionEncoder(BLOCKS).encode(rows["residues"].tolist())
    file = written(tmp_path / "e.parquet", ["a", "c"], vectors)
    with pytest.raises(DataError, match=r"e\.parquet: 1 of 2 proteins have no embedding, such as b"):
        look_up(rows, file)


def test_two_proteins_of_one_name_are_refused(rows: pd.DataFrame, tmp_path: Path) -> None:
    vectors = CompositionEncoder(BLOCKS).encode(rows["residues"].tolist())
    file = written(tmp_path / "e.parquet", ["a", "b", "b"], vectors[[0, 1, 0]])
    with pytest.raises(DataError, match="two proteins are called b"):
        look_up(rows, file)
    again = written(tmp_path / "again.parquet", ["a", "b", "b"], vectors[[0, 1, 1]])
    np.testing.assert_array_equal(look_up(rows, again), vectors)


def test_descriptors_of_other_blocks_are_refused_by_their_names(rows: pd.DataFrame, tmp_path: Path) -> None:
    vectors = CompositionEncoder(BLOCKS).encode(rows["residues"].tolist())
    file = written(tmp_path / "e.parquet", ["a", "b"], vectors)
    with pytest.raises(ConfigError, match="blocks amino_acids,whole_chain instead of termini"):
        look_up(rows, file, "encoder.blocks=[termini]")


def test_a_file_that_does_not_say_what_made_it_is_refused(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "e.npy"
    np.save(path, CompositionEncoder(BLOCKS).encode(rows["residues"].tolist()))
    with pytest.raises(ConfigError, match="does not say what made its embeddings"):
        look_up(rows, path)


@pytest.mark.parametrize("head", ["light_attention", "lora"])
def test_heads_that_read_residues_take_no_file(head: str) -> None:
    with pytest.raises(ConfigError, match=f"head {head} reads more than one vector a protein: set data.embeddings"):
        compose([f"head={head}", "data.path=t.csv", "data.embeddings=e.parquet"])


def test_embeddings_of_a_language_model_are_told_apart_by_weights_and_layer(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENZYME_STABILITY_STORE", str(tmp_path / "store"))
    table, file = tmp_path / "rows.csv", tmp_path / "e.parquet"
    rows.rename(columns={"residues": "sequence"}).to_csv(table, index=False)
    one, other = (save_tiny_model("esm2", tmp_path / str(seed), seed, width=16, layers=1) for seed in (0, 1))
    assert embed(monkeypatch, table, "--encoder", one, "--layer", 0, "--output", file) == 0

    def of(model: Path, *changes: str) -> np.ndarray:
        known = compose(
            [
                *("encoder=language_model", "head=ridge", "data.path=t.csv"),
                *(f'encoder.model="{model}"', f'data.embeddings="{file}"', *changes),
            ]
        )
        return encode(rows, known, lambda _: None).embeddings

    computed = of(one.rename(tmp_path / "moved"), "encoder.layer=0", "data.embeddings=null")
    np.testing.assert_array_equal(of(tmp_path / "moved", "encoder.layer=0"), computed)
    with pytest.raises(ConfigError, match="layer 0 instead of -1"):
        of(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"model 0 instead of 1; revision \w+ instead of \w+"):
        of(other, "encoder.layer=0")
