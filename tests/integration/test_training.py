"""Training from a table to a predictor, on made-up proteins whose Tm follows from their composition."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from enzyme_stability import Predictor, Record
from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.data.splits import split_by_cluster
from enzyme_stability.errors import ArtifactError, DataError, EnzymeStabilityError
from enzyme_stability.measured import predict_table
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.training import cross_validate, train
from enzyme_stability.training_table import MINIMUM_PROTEINS, read_training_table

Configure = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def configured(
    tmp_path_factory: pytest.TempPathFactory, made_up_proteins: pd.DataFrame, quick_settings: dict[str, Any]
) -> Configure:
    """Makes a configuration: of a table (the made-up proteins by default), with any settings changed."""

    def make(
        table: pd.DataFrame = made_up_proteins, suffix: str = ".csv", folds: int = 0, **changes: Any
    ) -> TrainConfig:
        folder = tmp_path_factory.mktemp("training")
        path = folder / f"table{suffix}"
        table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
        settings = copy.deepcopy(quick_settings) | {"output": folder / "predictor"}
        settings["data"]["path"] = str(path)
        settings["split"]["folds"] = folds
        return TrainConfig.parse(settings | changes, "the test")

    return make


@pytest.fixture(scope="session")
def halves(made_up_proteins: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Proteins to learn from and proteins of other clusters to be asked for."""
    learn = made_up_proteins["cluster"] % 4 != 0
    return made_up_proteins[learn].reset_index(drop=True), made_up_proteins[~learn].reset_index(drop=True)


@pytest.fixture(scope="session")
def trained(configured: Configure, halves: tuple[pd.DataFrame, pd.DataFrame]) -> Predictor:
    return train(configured(halves[0]))


def error_of(predicted: pd.Series, table: pd.DataFrame) -> float:
    return float((predicted - table["tm_celsius"]).abs().mean())


def refusal(config: TrainConfig) -> str:
    with pytest.raises(DataError) as caught:
        train(config)
    assert not config.output.exists()
    return str(caught.value)


def test_a_trained_predictor_beats_the_mean_on_proteins_it_has_not_seen(
    trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    learned, held_out = halves
    rows = pd.DataFrame(trained.predict(held_out["sequence"].tolist()))
    constant = pd.Series(learned["tm_celsius"].mean(), index=held_out.index)
    assert error_of(rows["tm_celsius"], held_out) < 0.5 * error_of(constant, held_out)
    inside = held_out["tm_celsius"].between(rows["tm_lower_celsius"], rows["tm_upper_celsius"])
    assert inside.mean() > 0.8
    assert rows["in_domain"].mean() > 0.8


def test_a_known_growth_temperature_makes_the_answer_better(
    trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    known = halves[1].dropna(subset="growth_temperature_celsius").reset_index(drop=True)
    records = [
        Record(i, s, g)
        for i, s, g in zip(known["id"], known["sequence"], known["growth_temperature_celsius"], strict=True)
    ]
    assert trained.takes_growth_temperature
    with_growth = pd.DataFrame(trained.predict(records))["tm_celsius"]
    without = pd.DataFrame(trained.predict(known["sequence"].tolist()))["tm_celsius"]
    assert error_of(with_growth, known) < error_of(without, known)


def test_without_growth_temperatures_one_head_is_trained(configured: Configure, made_up_proteins: pd.DataFrame) -> None:
    predictor = train(configured(made_up_proteins.drop(columns="growth_temperature_celsius")))
    assert not predictor.takes_growth_temperature
    assert sorted(path.name for path in predictor.folder.glob("*.onnx")) == ["head_plain.onnx"]
    sequence = made_up_proteins["sequence"][0]
    assert predictor.predict([sequence], growth_temperature=80.0) == predictor.predict([sequence])


def test_too_few_growth_temperatures_train_no_second_head(
    configured: Configure, made_up_proteins: pd.DataFrame
) -> None:
    few = made_up_proteins.copy()
    few.loc[60:, "growth_temperature_celsius"] = np.nan
    assert not train(configured(few)).takes_growth_temperature


def test_the_same_seed_gives_the_same_predictor_to_the_bit(
    configured: Configure, trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    again = train(configured(halves[0]))
    assert again.digest == trained.digest
    for head in trained.folder.glob("*.onnx"):
        assert (again.folder / head.name).read_bytes() == head.read_bytes()
    sequences = halves[1]["sequence"].tolist()
    assert again.predict(sequences) == trained.predict(sequences)


def test_another_seed_gives_another_predictor(
    configured: Configure, trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    assert train(configured(halves[0], seed=1)).digest != trained.digest


def test_threads_and_folder_leave_no_trace_in_the_predictor(
    configured: Configure, quick_settings: dict[str, Any]
) -> None:
    head = quick_settings["head"] | {"trees": quick_settings["head"]["trees"] | {"trees": 3}}
    assert train(configured(head=head, threads=2)).digest == train(configured(head=head)).digest


def test_parquet_and_csv_train_the_same_predictor(
    configured: Configure, trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    from_parquet = train(configured(halves[0], suffix=".parquet"))
    heads = (trained.manifest["heads"], from_parquet.manifest["heads"])
    assert heads[0] == heads[1]


def test_training_opens_what_it_wrote(trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    loaded = Predictor(trained.folder)
    sequences = halves[1]["sequence"][:30].tolist()
    assert loaded.predict(sequences) == trained.predict(sequences)
    summary = json.loads((trained.folder / "predictor.json").read_text())["training"]
    assert summary["train_proteins"] + summary["calibration_proteins"] == len(halves[0])
    assert summary["clusters"] == halves[0]["cluster"].nunique()
    assert summary["with_growth_temperature"] == halves[0]["growth_temperature_celsius"].notna().sum()
    assert str(trained.folder.parent) not in json.dumps(summary)


def test_intervals_are_calibrated_on_proteins_left_out_for_it(
    configured: Configure, trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    table = halves[0]
    split = split_by_cluster(table["cluster"], {"train": 0.7, "calibration": 0.3}, configured().seed)
    left_out = table[split == "calibration"]
    assert trained.manifest["training"]["calibration_proteins"] == len(left_out)
    known = left_out.dropna()
    for part, growth in ((left_out, [None] * len(left_out)), (known, known["growth_temperature_celsius"])):
        rows = trained.predict([Record("", s, g) for s, g in zip(part["sequence"], growth, strict=True)])
        # on the calibration proteins themselves the misses are those of the ranks; rounding may move one
        allowed = len(part) - math.ceil((len(part) + 1) * 0.95)
        below = sum(tm < (row.tm_lower_celsius or 0) for row, tm in zip(rows, part["tm_celsius"], strict=True))
        above = sum(tm > (row.tm_upper_celsius or 0) for row, tm in zip(rows, part["tm_celsius"], strict=True))
        assert (below, above) == pytest.approx((allowed, allowed), abs=1)


def families(count: int, size: int, seed: int) -> pd.DataFrame:
    """Clusters of near-copies that share a Tm drawn without regard to sequence: nothing to learn but copies."""
    random = np.random.default_rng(seed)
    rows = []
    for cluster in range(count):
        chain, tm = random.choice(list(AMINO_ACIDS), 150), random.normal(55, 8)
        for _ in range(size):
            chain[random.integers(150)] = random.choice(list(AMINO_ACIDS))
            rows.append(("".join(chain), tm, cluster))
    return pd.DataFrame(rows, columns=["sequence", "tm_celsius", "cluster"])


def test_intervals_are_not_calibrated_on_copies_of_what_was_learned(configured: Configure) -> None:
    predictor = train(configured(families(60, 6, seed=0)))
    fresh = families(200, 1, seed=1)
    rows = pd.DataFrame(predictor.predict(fresh["sequence"].tolist()))
    inside = fresh["tm_celsius"].between(rows["tm_lower_celsius"], rows["tm_upper_celsius"])
    assert inside.mean() > 0.83  # 0.74 where the copies of one family come apart


def test_cross_validation_shows_that_there_is_nothing_to_learn_but_copies(configured: Configure) -> None:
    folds = pd.read_csv(train(configured(families(60, 6, seed=0), folds=3)).folder / "held_out_folds.csv")
    assert np.corrcoef(folds["predicted_celsius"], folds["tm_celsius"])[0, 1] < 0.3  # 0.68 where a fold sees itself


def test_rows_kept_for_testing_are_left_aside(configured: Configure, made_up_proteins: pd.DataFrame) -> None:
    split = np.where(made_up_proteins["cluster"] % 4 == 0, "test", "train")
    marked = train(configured(made_up_proteins.assign(split=split)))
    removed = train(configured(made_up_proteins[split == "train"].assign(split="train")))
    assert marked.manifest["heads"] == removed.manifest["heads"]


def test_cross_validation_predicts_each_protein_by_a_model_without_its_cluster(
    configured: Configure, made_up_proteins: pd.DataFrame
) -> None:
    config = configured(folds=3)
    said: list[str] = []
    predictor = train(config, said.append)
    assert any("fold 3 of 3" in sentence for sentence in said)
    folds = pd.read_csv(predictor.folder / "held_out_folds.csv")
    assert {
        "id",
        "tm_celsius",
        "growth_temperature",
        "predicted_celsius",
        "lower_celsius",
        "upper_celsius",
        "in_domain",
        "predicted_celsius_given_growth_temperature",
        "lower_celsius_given_growth_temperature",
        "upper_celsius_given_growth_temperature",
        "in_domain_given_growth_temperature",
        "fold",
    } == set(folds.columns)
    assert folds["id"].tolist() == made_up_proteins["id"].tolist()
    assert sorted(folds["fold"].unique()) == [0, 1, 2]
    assert folds.groupby(made_up_proteins["cluster"])["fold"].nunique().max() == 1
    assert folds["predicted_celsius"].notna().all()
    constant = pd.Series(made_up_proteins["tm_celsius"].mean(), index=folds.index)
    assert error_of(folds["predicted_celsius"], made_up_proteins) < 0.6 * error_of(constant, made_up_proteins)


def test_cross_validation_does_not_change_the_predictor(configured: Configure) -> None:
    with_folds, without = (train(configured(folds=k)) for k in (2, 0))
    assert with_folds.manifest["heads"] == without.manifest["heads"]


def test_cross_validated_rows_keep_the_order_of_the_table(configured: Configure) -> None:
    config = configured(folds=2)
    table = read_training_table(config)
    folds = cross_validate(table, config)
    assert folds.index.tolist() == table.index.tolist()
    np.testing.assert_array_equal(folds["tm_celsius"], table["tm_celsius"])


def test_predictions_beside_a_table_are_those_of_the_predictor(
    trained: Predictor, halves: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    held_out = halves[1].rename(columns={"growth_temperature_celsius": "growth_temperature"})
    beside = predict_table(trained, held_out)
    rows = trained.predict(held_out["sequence"].tolist())
    assert beside["predicted_celsius"].tolist() == [row.tm_celsius for row in rows]
    unknown = held_out["growth_temperature"].isna()
    given = beside["predicted_celsius_given_growth_temperature"]
    assert (given[unknown] == beside["predicted_celsius"][unknown]).all()
    assert (given[~unknown] != beside["predicted_celsius"][~unknown]).mean() > 0.9


def test_training_again_into_a_folder_leaves_nothing_of_the_earlier_predictor(
    configured: Configure, made_up_proteins: pd.DataFrame
) -> None:
    first = train(configured(folds=2))
    (first.folder / "CARD.md").write_text("figures of the first")
    plain = configured(made_up_proteins.drop(columns="growth_temperature_celsius"))
    second = train(plain.model_copy(update={"output": first.folder}))
    card = (second.folder / "CARD.md").read_text()
    assert "figures of the first" not in card
    assert {path.name for path in second.folder.iterdir()} == {
        "CARD.md",
        "config.yaml",
        "environment.json",
        "head_plain.onnx",
        "metrics.csv",
        "metrics.json",
        "plots",
        "predictor.json",
        "split.csv",
        "train.log",
    }


def test_too_few_proteins_to_calibrate_are_refused_with_a_share_that_works(
    configured: Configure, made_up_proteins: pd.DataFrame
) -> None:
    table = made_up_proteins[:260]
    config = configured(table, interval=compose(["builtin"]).interval)
    small = config.model_copy(update={"split": config.split.model_copy(update={"calibration_share": 0.1})})
    share = float(re.search(r"raise split.calibration_share to ([\d.]+)$", refusal(small))[1])  # type: ignore[index]
    enough = config.model_copy(update={"split": config.split.model_copy(update={"calibration_share": share})})
    assert train(enough).predict(table["sequence"][:1].tolist())[0].status == "ok"


def test_too_few_proteins_for_the_leaves_are_refused_with_a_size_that_works(
    configured: Configure, made_up_proteins: pd.DataFrame, quick_settings: dict[str, Any]
) -> None:
    def head(smallest: int) -> dict[str, Any]:
        head: dict[str, Any] = quick_settings["head"]
        return head | {"trees": head["trees"] | {"minimum_leaf_size": smallest}}

    table = made_up_proteins[:300]
    message = refusal(configured(table, head=head(80)))
    size = int(re.search(r"head.trees.minimum_leaf_size=(\d+)", message)[1])  # type: ignore[index]
    predictor = train(configured(table, head=head(size)))
    assert len({row.tm_celsius for row in predictor.predict(table["sequence"].tolist())}) > 10


def test_the_smallest_table_accepted_gives_a_predictor_that_answers(
    configured: Configure, made_up_proteins: pd.DataFrame
) -> None:
    table = made_up_proteins[:MINIMUM_PROTEINS]
    assert train(configured(table)).predict(table["sequence"][:1].tolist())[0].status == "ok"


def test_proteins_that_all_lack_an_amino_acid_train_without_a_warning(
    configured: Configure, made_up_proteins: pd.DataFrame
) -> None:
    table = made_up_proteins.assign(sequence=made_up_proteins["sequence"].str.replace("C", "S"))
    predictor = train(configured(table))
    assert np.isfinite(predictor.domain.maximum_composition_distance)
    assert predictor.predict(["C" * 50])[0].in_domain is False


def test_point_mutants_of_one_protein_train_to_finite_answers(configured: Configure) -> None:
    # both termini are the same in nearly all of them
    random = np.random.default_rng(8)
    wild = "".join(random.choice(list(AMINO_ACIDS), 200))
    places = random.integers(60, 140, 300)
    letters = random.choice(list(AMINO_ACIDS), 300)
    mutants = [wild[:k] + letter + wild[k + 1 :] for k, letter in zip(places, letters, strict=True)]
    tm = 50 + 10 * np.isin(letters, list("EKIV")) + random.normal(0, 1, 300)
    predictor = train(configured(pd.DataFrame({"sequence": mutants, "tm_celsius": tm, "cluster": range(300)})))
    rows = predictor.predict([*mutants[:20], wild])
    assert all(40 < (row.tm_celsius or 0) < 70 for row in rows)


def test_a_single_cluster_is_refused(configured: Configure, made_up_proteins: pd.DataFrame) -> None:
    assert "clusters" in refusal(configured(made_up_proteins.assign(cluster=0)))


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe\x00" * 50, b"PAR1 but not really"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_that_is_no_table_is_refused_by_its_path(configured: Configure, content: bytes, suffix: str) -> None:
    config = configured()
    path = Path(config.data.path).with_suffix(suffix)
    path.write_bytes(content)
    message = refusal(config.model_copy(update={"data": config.data.model_copy(update={"path": str(path)})}))
    assert str(path) in message


def test_a_missing_table_is_refused_by_its_path(configured: Configure) -> None:
    config = configured()
    Path(config.data.path).unlink()
    assert config.data.path in refusal(config)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("tm_celsius", "55 C"),
        ("tm_celsius", "inf"),
        ("growth_temperature_celsius", "mesophile"),
        ("sequence", "MKV1LAARRWQ"),
        ("sequence", "XXXXXXXXXXXX"),
    ],
)
def test_one_bad_value_is_refused_with_its_row(
    configured: Configure, made_up_proteins: pd.DataFrame, column: str, value: str
) -> None:
    table = made_up_proteins.astype({column: object})
    table.loc[17, column] = value
    config = configured(table)
    with pytest.raises(EnzymeStabilityError) as caught:
        train(config)
    message = str(caught.value)
    assert Path(config.data.path).name in message
    assert "protein_17" in message or "row 18" in message or "line 19" in message


def test_a_folder_that_cannot_be_made_is_refused(configured: Configure) -> None:
    config = configured()
    with pytest.raises(ArtifactError, match=r"cannot write to .*below a file"):
        train(config.model_copy(update={"output": Path(config.data.path, "below a file")}))
