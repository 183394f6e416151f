"""The table a predictor learns from: what is left aside, weighed and clustered, and how what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.errors import DataError
from enzyme_stability.training_table import MINIMUM_CALIBRATION, MINIMUM_PROTEINS, read_training_table, refuse_too_few

BASE = compose(["data.path=table.csv", "encoder=composition", "head=ridge", "split.folds=0"])


@pytest.fixture
def table(made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    """More proteins than any setting here needs."""
    return pd.concat([made_up_proteins] * 2, ignore_index=True).astype({"tm_celsius": object, "sequence": object})


def config_of(table: pd.DataFrame, folder: Path, **data: object) -> TrainConfig:
    path = folder / "table.csv"
    table.to_csv(path, index=False)
    return BASE.model_copy(update={"data": BASE.data.model_copy(update={"path": str(path), **data})})


def refusal(table: pd.DataFrame, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_training_table(config_of(table, folder))
    assert "table.csv" in str(caught.value)
    return str(caught.value)


def with_settings(**changes: object) -> TrainConfig:
    """The base with settings of the split or, by ``head``, another head."""
    head = changes.pop("head", None)
    config = compose(["data.path=table.csv", "encoder=composition", f"head={head}"]) if head else BASE
    return config.model_copy(update={"split": config.split.model_copy(update=changes)})


# Rows


def test_rows_that_cannot_be_learned_from_are_left_aside_and_counted(table: pd.DataFrame, tmp_path: Path) -> None:
    table["split"] = "train"
    table.loc[:9, "split"] = "test"
    table.loc[5:19, "tm_celsius"] = None
    table.loc[18:22, "sequence"] = None
    said: list[str] = []
    read = read_training_table(config_of(table, tmp_path), said.append)
    assert said == ["10 of 960 rows are kept for testing", "13 of 950 rows lack a sequence or a Tm"]
    assert read["id"].tolist() == table["id"].tolist()[23:]
    assert read.index.tolist() == list(range(len(read)))


def test_nothing_is_said_of_a_table_without_a_flaw(table: pd.DataFrame, tmp_path: Path) -> None:
    said: list[str] = []
    assert len(read_training_table(config_of(table, tmp_path), said.append)) == len(table)
    assert said == []


def test_sequences_are_cleaned_as_for_prediction(table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[0, "sequence"] = " mkvla arrwq*"
    table.loc[1, "sequence"] = "MKVLAARRWQU"
    residues = read_training_table(config_of(table, tmp_path))["residues"]
    assert residues[0] == "MKVLAARRWQ"
    assert residues[1] == "MKVLAARRWQC"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("tm_celsius", "warm", "tm_celsius is 'warm'"),
        ("tm_celsius", "inf", "tm_celsius is 'inf'"),
        ("growth_temperature_celsius", "mesophile", "growth_temperature_celsius is 'mesophile'"),
        ("tm_spread_celsius", "large", "tm_spread_celsius is 'large'"),
        ("sequence", "MKV1LAARRWQ", "position 4"),
        ("cluster", None, "cluster"),
    ],
)
def test_a_bad_value_is_named_with_its_row_in_the_file(
    table: pd.DataFrame, tmp_path: Path, column: str, value: object, words: str
) -> None:
    table = table.assign(tm_spread_celsius=0.0, split="train").astype(object)
    table.loc[:3, "split"] = "test"  # a row left aside above does not shift the count
    table.loc[17, column] = value
    message = refusal(table, tmp_path)
    assert "row 18:" in message
    assert words in message


@pytest.mark.parametrize("lost", [["sequence"], ["tm_celsius"], ["sequence", "tm_celsius"]])
def test_a_missing_column_is_named(table: pd.DataFrame, tmp_path: Path, lost: list[str]) -> None:
    message = refusal(table.drop(columns=lost), tmp_path)
    assert f"lacks {', '.join(lost)};" in message
    assert "data prepare" in message


# Weights, growth temperatures, clusters


def test_a_protein_weighs_as_much_as_its_measurements_agree(table: pd.DataFrame, tmp_path: Path) -> None:
    spread = np.full(len(table), np.nan)
    spread[:4] = [0.0, 3.0, 6.0, 30.0]
    table["tm_spread_celsius"] = spread
    weight = read_training_table(config_of(table, tmp_path))["weight"]
    assert weight[:6].tolist() == pytest.approx([1, 1 / 2, 1 / 5, 1 / 101, 1, 1])
    surer = read_training_table(config_of(table, tmp_path, measurement_error_celsius=6.0))["weight"]
    assert surer[1] == pytest.approx(36 / 45)
    named = config_of(table.rename(columns={"tm_spread_celsius": "sd"}), tmp_path, spread_column="sd")
    assert read_training_table(named)["weight"].tolist() == weight.tolist()
    assert (read_training_table(config_of(table, tmp_path, spread_column="sd"))["weight"] == 1).all()


def test_the_first_growth_temperature_that_is_known_counts(table: pd.DataFrame, tmp_path: Path) -> None:
    known = table["growth_temperature_celsius"]
    columns = ("growth_temperature_celsius", "predicted", "absent")
    read = read_training_table(config_of(table.assign(predicted=33.0), tmp_path, growth_temperature_columns=columns))
    np.testing.assert_allclose(read["growth_temperature"], known.fillna(33.0))
    none = read_training_table(config_of(table, tmp_path, growth_temperature_columns=()))
    assert none["growth_temperature"].isna().all()


def test_clusters_of_the_table_are_kept(table: pd.DataFrame, tmp_path: Path) -> None:
    assert read_training_table(config_of(table, tmp_path))["cluster"].tolist() == table["cluster"].tolist()


@pytest.mark.usefixtures("mmseqs")
def test_clusters_are_computed_where_there_are_none(table: pd.DataFrame, tmp_path: Path) -> None:
    said: list[str] = []
    read = read_training_table(config_of(table.drop(columns="cluster"), tmp_path), said.append)
    assert said == ["grouping 960 proteins by their homology"]
    # every protein is there twice, and the copies are one cluster
    assert (read["cluster"][:480].to_numpy() == read["cluster"][480:].to_numpy()).all()
    assert read["cluster"].nunique() > 100


# Enough proteins


def test_too_few_proteins_are_refused_with_both_numbers(table: pd.DataFrame, tmp_path: Path) -> None:
    message = refusal(table[: MINIMUM_PROTEINS - 1], tmp_path)
    assert f"{MINIMUM_PROTEINS - 1} proteins" in message
    assert f"at least {MINIMUM_PROTEINS}" in message
    table.loc[10:, "tm_celsius"] = None
    assert "10 proteins" in refusal(table, tmp_path)


@pytest.mark.parametrize("proteins", [200, 260, 400, 700])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("folds", [0, 2, 5])
def test_too_few_to_calibrate_on_are_refused_with_a_setting_that_works(proteins: int, share: float, folds: int) -> None:
    settings: dict[str, float] = {"calibration_share": share, "folds": folds}
    for _ in range(3):
        config = with_settings(**settings)
        learnt = proteins * (1 - 1 / folds if settings["folds"] else 1)
        try:
            refuse_too_few(proteins, config)
        except DataError as error:
            assert int(learnt * settings["calibration_share"]) < MINIMUM_CALIBRATION
            (name, value) = re.search(r"(?:raise|set) split\.(\w+) to ([\d.]+)$", str(error)).groups()  # type: ignore[union-attr]
            settings[name] = float(value)
        else:
            return
    pytest.fail(f"no advice helped: {settings}")


@pytest.mark.parametrize("head", ["trees", "stacked"])
@pytest.mark.parametrize("proteins", [250, 600])
def test_too_few_for_the_leaves_are_refused_with_a_size_that_works(head: str, proteins: int) -> None:
    config = with_settings(head=head, folds=0, calibration_share=0.3)
    setting = "head.trees.minimum_leaf_size" if head == "stacked" else "head.minimum_leaf_size"

    def of_size(size: int) -> TrainConfig:
        if head == "stacked":
            trees = config.head.trees.model_copy(update={"minimum_leaf_size": size})  # type: ignore[union-attr]
            return config.model_copy(update={"head": config.head.model_copy(update={"trees": trees})})
        return config.model_copy(update={"head": config.head.model_copy(update={"minimum_leaf_size": size})})

    with pytest.raises(DataError, match=rf"set {setting}=\d+ or lower$") as caught:
        refuse_too_few(proteins, of_size(100))
    size = int(re.search(r"=(\d+) or lower", str(caught.value))[1])  # type: ignore[index]
    refuse_too_few(proteins, of_size(size))
    with pytest.raises(DataError, match=setting):
        refuse_too_few(proteins, of_size(size + 1))


def test_proteins_that_only_watch_are_not_offered_to_the_trees() -> None:
    few, many = (with_settings(head="trees", folds=0, calibration_share=0.3, validation_share=v) for v in (0.1, 0.4))
    refuse_too_few(400, few)
    with pytest.raises(DataError, match=r"head\.minimum_leaf_size"):
        refuse_too_few(400, many)
