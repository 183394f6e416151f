"""From a table to a predictor: who learns, who watches, who calibrates, and that none of them sees too much."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enzyme_stability import Predictor
from enzyme_stability.config import TrainConfig
from enzyme_stability.configuration import compose
from enzyme_stability.encoders.composition import CompositionEncoder
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.fitting import Encoded, encode, fit_predictor, set_apart

COMMON = ("data.path=t.csv", "encoder=composition", "encoder.blocks=[amino_acids]", "split.calibration_share=0.3")
HEADS: dict[str, tuple[str, ...]] = {
    "ridge": ("head=ridge", "head.inner_folds=3"),
    "trees": ("head=trees", "head.trees=30", "head.learning_rate=0.2", "head.minimum_leaf_size=8"),
    "mlp": ("head=mlp", "head.hidden=[8]", "trainer.max_epochs=3", "trainer.accelerator=cpu"),
    "stacked": (
        *("head=stacked", "head.trees.trees=20", "head.trees.minimum_leaf_size=8", "head.trees.blocks=[amino_acids]"),
        *("head.inner_folds=3", "head.ridges=[{block_weights:{amino_acids:1},landmarks:40}]"),
    ),
}
CONFIGS = {head: compose([*COMMON, *own]) for head, own in HEADS.items()}


@pytest.fixture(scope="module")
def table(made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    """As ``read_training_table`` gives it."""
    return made_up_proteins.assign(
        residues=made_up_proteins["sequence"],
        growth_temperature=made_up_proteins["growth_temperature_celsius"],
        weight=1.0,
    )


@pytest.fixture(scope="module")
def encoded(table: pd.DataFrame) -> Encoded:
    return encode(table, CONFIGS["ridge"], lambda _: None)


Fit = Callable[..., Predictor]


@pytest.fixture
def fit(table: pd.DataFrame, encoded: Encoded, tmp_path: Path) -> Fit:
    """Fits to the table with some of its columns changed, into a folder of its own."""
    made: list[Path] = []

    def run(head: str, config: TrainConfig | None = None, **columns: object) -> Predictor:
        made.append(tmp_path / str(len(made)))
        return fit_predictor(
            table.assign(**columns),
            encoded,
            config or CONFIGS[head],
            made[-1],
            checkpoints=made[-1] / "checkpoints",
            log=lambda _: lambda *_: None,
        )

    return run


def heads(predictor: Predictor) -> Mapping[str, object]:
    found: Mapping[str, object] = predictor.manifest["heads"]
    return found


# Setting apart


@pytest.mark.parametrize("head", HEADS)
def test_parts_have_their_shares_and_cut_no_cluster(head: str, table: pd.DataFrame) -> None:
    parts = pd.Series(set_apart(table, CONFIGS[head]))
    shares = parts.value_counts(normalize=True)
    watched = head in {"trees", "mlp"}
    assert set(shares.index) == {"train", "calibration"} | ({"validation"} if watched else set())
    assert shares["calibration"] == pytest.approx(0.3, abs=0.02)
    if watched:
        assert shares["validation"] == pytest.approx(0.7 * 0.1, abs=0.02)
    assert parts.groupby(table["cluster"].to_numpy()).nunique().max() == 1


def test_every_head_calibrates_on_the_same_proteins(table: pd.DataFrame) -> None:
    parts = [set_apart(table, config) == "calibration" for config in CONFIGS.values()]
    assert all((part == parts[0]).all() for part in parts)


def test_the_seed_decides_who_is_set_apart(table: pd.DataFrame) -> None:
    config = CONFIGS["mlp"]
    again, other = (set_apart(table, config.model_copy(update={"seed": seed})) for seed in (config.seed, 5))
    assert (again == set_apart(table, config)).all()
    assert (other != again).any()


def test_too_few_proteins_to_watch_are_refused_with_the_setting(table: pd.DataFrame) -> None:
    split = CONFIGS["mlp"].split.model_copy(update={"validation_share": 0.01})
    with pytest.raises(DataError, match=r"raise split\.validation_share"):
        set_apart(table, CONFIGS["mlp"].model_copy(update={"split": split}))


# Fitting


@pytest.mark.parametrize("head", HEADS)
def test_heads_know_nothing_of_the_calibration_proteins(
    head: str, table: pd.DataFrame, encoded: Encoded, fit: Fit, tmp_path: Path
) -> None:
    kept = set_apart(table, CONFIGS[head]) == "calibration"
    plain = fit(head)
    tm = table["tm_celsius"].where(~kept, 20.0)
    growth = table["growth_temperature"].where(~kept | table["growth_temperature"].isna(), -5.0)
    assert heads(fit(head, tm_celsius=tm, growth_temperature=growth, weight=np.where(kept, 9.0, 1.0))) == heads(plain)
    moved = encoded.embeddings.copy()
    moved[kept] += 1
    elsewhere = fit_predictor(
        table,
        dataclasses.replace(encoded, embeddings=moved),
        CONFIGS[head],
        tmp_path / "elsewhere",
        checkpoints=tmp_path / "elsewhere" / "checkpoints",
        log=lambda _: lambda *_: None,
    )
    assert heads(elsewhere) == heads(plain)
    assert elsewhere.manifest["intervals"] != plain.manifest["intervals"]


@pytest.mark.parametrize("head", ["ridge", "trees", "mlp"])
def test_heads_learn_from_weights_and_temperatures_of_the_others(head: str, table: pd.DataFrame, fit: Fit) -> None:
    plain = fit(head)
    rows = np.flatnonzero(set_apart(table, CONFIGS[head]) == "train")
    heavy, hot = np.ones(len(table)), table["tm_celsius"].copy()
    heavy[rows[::2]], hot.iloc[rows[::2]] = 0.1, 90.0
    assert heads(fit(head, weight=heavy))["plain"] != heads(plain)["plain"]
    assert heads(fit(head, tm_celsius=hot))["plain"] != heads(plain)["plain"]


@pytest.mark.parametrize("head", ["trees", "mlp"])
def test_proteins_that_watch_decide_when_to_stop_and_teach_nothing(head: str, table: pd.DataFrame, fit: Fit) -> None:
    watching = set_apart(table, CONFIGS[head]) == "validation"
    reversed_tm = table["tm_celsius"].where(~watching, 120 - table["tm_celsius"])
    if head == "trees":
        assert fit(head, tm_celsius=reversed_tm).folder.joinpath("head_plain.onnx").stat().st_size < (
            0.5 * fit(head).folder.joinpath("head_plain.onnx").stat().st_size
        )
    else:
        weights = np.where(watching, 5.0, 1.0)  # all alike among themselves, so that the best epoch is the same one
        assert heads(fit(head, weight=weights)) == heads(fit(head))


def test_counts_and_settings_are_in_the_manifest(table: pd.DataFrame, fit: Fit) -> None:
    manifest = fit("ridge").manifest
    kept = int((set_apart(table, CONFIGS["ridge"]) == "calibration").sum())
    assert manifest["training"] == {"train_proteins": len(table) - kept, "calibration_proteins": kept}
    assert manifest["encoder"] == {"kind": "composition", "blocks": ["amino_acids"]}


@pytest.mark.parametrize("head", ["ridge", "trees", "mlp"])
def test_the_head_with_growth_temperature_is_told_apart_in_the_log(
    head: str, table: pd.DataFrame, encoded: Encoded, tmp_path: Path
) -> None:
    logged: dict[str, int] = {}

    def log(name: str) -> Callable[[Mapping[str, float], int], None]:
        def epoch(figures: Mapping[str, float], _: int) -> None:
            assert "validation_loss" in figures
            logged[name] = logged.get(name, 0) + 1

        return epoch

    fit_predictor(table, encoded, CONFIGS[head], tmp_path, checkpoints=tmp_path / "checkpoints", log=log)
    expected = {"member_0": 3, "with_growth_temperature/member_0": 3} if head == "mlp" else {}
    assert logged == expected


@pytest.mark.parametrize(
    ("head", "part", "known"),
    [*((head, "calibration", 40) for head in HEADS), *((head, "train", 60) for head in ("ridge", "trees", "mlp"))],
)
def test_too_few_growth_temperatures_give_no_second_head(
    head: str, part: str, known: int, table: pd.DataFrame, fit: Fit
) -> None:
    rows = np.flatnonzero(set_apart(table, CONFIGS[head]) == part)
    growth = table["growth_temperature"].fillna(37.0)
    assert fit(head, growth_temperature=growth).takes_growth_temperature
    growth.iloc[rows[known:]] = np.nan
    assert not fit(head, growth_temperature=growth).takes_growth_temperature


@pytest.mark.parametrize("head", ["trees", "mlp"])
def test_no_second_head_is_fitted_where_nobody_could_watch_it(head: str, table: pd.DataFrame, fit: Fit) -> None:
    watching = set_apart(table, CONFIGS[head]) == "validation"
    growth = table["growth_temperature"].fillna(37.0).where(~watching)
    assert not fit(head, growth_temperature=growth).takes_growth_temperature


def test_an_ensemble_logs_each_member(table: pd.DataFrame, encoded: Encoded, tmp_path: Path) -> None:
    trainer = CONFIGS["mlp"].trainer.model_copy(update={"ensemble": 2, "max_epochs": 1})
    logged: list[str] = []
    fit_predictor(
        table.assign(growth_temperature=np.nan),
        encoded,
        CONFIGS["mlp"].model_copy(update={"trainer": trainer}),
        tmp_path,
        checkpoints=tmp_path / "checkpoints",
        log=lambda name: lambda *_: logged.append(name),
    )
    assert logged == ["member_0", "member_1"]


def test_part_of_the_embeddings_keeps_its_encoder(table: pd.DataFrame, encoded: Encoded) -> None:
    some = encoded[table["cluster"].to_numpy() < 10]
    assert some.embeddings.shape == (30, 20)
    assert isinstance(some.encoder, CompositionEncoder)
    np.testing.assert_array_equal(some.embeddings, encoded.embeddings[:30])


def test_a_folder_that_cannot_be_written_is_named(table: pd.DataFrame, encoded: Encoded, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ArtifactError, match=r"cannot write to .*file"):
        fit_predictor(
            table,
            encoded,
            CONFIGS["ridge"],
            tmp_path / "file" / "below",
            checkpoints=tmp_path / "checkpoints",
            log=lambda _: lambda *_: None,
        )
