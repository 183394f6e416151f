"""A training run from settings to its folder: what lies there, that it can be repeated, and where data come from."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from quick_runs import HEADS, configured, heads_in, overrides

from enzyme_stability import Predictor, Record, __version__
from enzyme_stability.cli import main
from enzyme_stability.configuration import compose
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.evaluation import Evaluation
from enzyme_stability.training import train

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def learnt(made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    """What is learned from; three rows cannot be, and their clusters are not among the others."""
    table = made_up_proteins[made_up_proteins["cluster"] % 4 != 0].reset_index(drop=True)
    useless = table[:3].assign(id=["a", "b", "c"], tm_celsius=[np.nan, 50.0, 50.0], cluster=9999)
    useless["sequence"] = [table["sequence"][0], None, table["sequence"][0]]
    return pd.concat([table.assign(split="train"), useless.assign(split=["train", "train", "test"])])


@pytest.fixture(scope="module")
def held_out(made_up_proteins: pd.DataFrame) -> pd.DataFrame:
    return made_up_proteins[made_up_proteins["cluster"] % 4 == 0].reset_index(drop=True)


@pytest.fixture(scope="module")
def table(folder: Path, learnt: pd.DataFrame) -> Path:
    path = folder / "table.csv"
    learnt.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module", params=HEADS)
def run(request: pytest.FixtureRequest, folder: Path, table: Path) -> Predictor:
    """A finished run of each head, with folds."""
    head = request.param
    return train(configured(head, table, folder / head, "split.folds=3", f"run_name=my-{head}"))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["enzyme-stability", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return call


def head_of(run: Predictor) -> str:
    return run.folder.name


# The folder


def test_the_settings_in_the_folder_are_those_of_the_run(run: Predictor, table: Path, folder: Path) -> None:
    again = compose([str(run.folder / "config.yaml")])
    assert again == configured(
        head_of(run), table, folder / head_of(run), "split.folds=3", f"run_name=my-{head_of(run)}"
    )


def test_the_environment_names_versions_and_the_checksum_of_the_data(run: Predictor, table: Path) -> None:
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["enzyme_stability"] == __version__
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert environment["packages"]["numpy"] == np.__version__
    assert environment["data_sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert environment["git_commit"] is None or len(environment["git_commit"].removesuffix("-dirty")) == 40


def test_the_split_names_every_protein_once_and_cuts_no_cluster(run: Predictor, learnt: pd.DataFrame) -> None:
    split = pd.read_csv(run.folder / "split.csv")
    assert split["id"].tolist() == learnt["id"].tolist()[:-3]
    assert split.groupby("cluster")["split"].nunique().max() == 1
    counts = split["split"].value_counts()
    assert set(counts.index) == {"train", "calibration"} | ({"validation"} if head_of(run) != "ridge" else set())
    summary = run.manifest["training"]
    assert counts["calibration"] == summary["calibration_proteins"]
    assert len(split) - counts["calibration"] == summary["train_proteins"]


def test_the_log_says_what_happened_and_when(run: Predictor) -> None:
    lines = (run.folder / "train.log").read_text().splitlines()
    times = pd.to_datetime(pd.Series([line.split(" ", 1)[0] for line in lines]))
    assert times.is_monotonic_increasing
    said = [line.split(" ", 1)[1] for line in lines]
    assert said[0] == "1 of 363 rows are kept for testing"
    assert said[1] == "2 of 362 rows lack a sequence or a Tm"
    assert "360 proteins" in said[2]
    assert f"head {head_of(run)}" in said[2]
    assert [sentence for sentence in said if sentence.startswith("fold ")] == [f"fold {k} of 3" for k in (1, 2, 3)]
    assert said[-1].startswith("folds without relatives: R2 0.")


def test_a_network_leaves_the_figures_of_each_epoch(run: Predictor) -> None:
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["held_out_folds/r2"]) == pytest.approx(
        json.loads((run.folder / "metrics.json").read_text())["metrics"]["r2"]["value"]
    )
    if head_of(run) == "mlp":
        for stage in ("", "fold_0/member_0/", "fold_2/member_0/", "final/with_growth_temperature/member_0/"):
            error = [float(row[f"{stage}validation_mae_celsius"]) for row in rows if row[f"{stage}training_loss"]]
            assert len(error) == 12
            assert error[-1] < error[0]
    else:
        assert not any("loss" in column for column in rows[0])


def test_figures_card_and_pictures_are_of_the_held_out_folds(run: Predictor) -> None:
    figures = json.loads((run.folder / "metrics.json").read_text())
    assert figures["name"] == "held_out_folds"
    assert figures["metrics"]["n"] == 360
    assert figures["metrics"]["r2"]["value"] > 0.4
    card = (run.folder / "CARD.md").read_text()
    assert f"# Model card: my-{head_of(run)}" in card
    assert f"{figures['metrics']['r2']['value']:.3f}" in card
    assert "known for 288 of the\nproteins" in card
    assert {path.name for path in (run.folder / "plots").iterdir()} == {
        "held_out_folds_parity.png",
        "held_out_folds_error_by_band.png",
    }


def test_nothing_is_left_that_only_an_unfinished_run_needs(run: Predictor) -> None:
    assert {path.name for path in run.folder.iterdir()} == {
        "CARD.md",
        "config.yaml",
        "environment.json",
        "head_plain.onnx",
        "head_with_growth_temperature.onnx",
        "held_out_folds.csv",
        "held_out_folds.json",
        "held_out_folds_with_growth_temperature.json",
        "metrics.csv",
        "metrics.json",
        "plots",
        "predictor.json",
        "split.csv",
        "train.log",
    }


def test_the_same_settings_give_the_same_heads_to_the_byte_with_folds_or_without(
    run: Predictor, table: Path, tmp_path: Path
) -> None:
    again = train(configured(head_of(run), table, tmp_path / "again"))
    assert heads_in(again.folder) == heads_in(run.folder)
    assert (tmp_path / "again" / "metrics.json").is_file()
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["name"] == "calibration_proteins"
    assert "proteins kept for the intervals" in (tmp_path / "again" / "CARD.md").read_text()


# The predictor


def test_intervals_hold_and_the_domain_check_lets_through_what_is_alike(run: Predictor, held_out: pd.DataFrame) -> None:
    rows = pd.DataFrame(run.predict(held_out["sequence"].tolist()))
    inside = held_out["tm_celsius"].between(rows["tm_lower_celsius"], rows["tm_upper_celsius"])
    assert inside.mean() >= 0.8
    assert rows["in_domain"].mean() >= 0.8
    assert np.corrcoef(rows["tm_celsius"], held_out["tm_celsius"])[0, 1] > 0.7
    odd = run.predict(["W" * 60])[0]
    assert odd.in_domain is False
    assert "out of domain" in odd.note


def test_a_known_growth_temperature_is_used(run: Predictor, held_out: pd.DataFrame) -> None:
    assert run.takes_growth_temperature
    cold, hot = (run.predict(held_out["sequence"].tolist(), growth_temperature=t) for t in (20.0, 75.0))
    assert np.mean([b.tm_celsius - a.tm_celsius for a, b in zip(cold, hot, strict=True)]) > 0.5
    known = held_out.dropna(subset="growth_temperature_celsius")
    growth = known["growth_temperature_celsius"]
    rows = run.predict([Record("", s, g) for s, g in zip(known["sequence"], growth, strict=True)])
    inside = [
        low <= tm <= high
        for (low, high), tm in zip(
            ((r.tm_lower_celsius, r.tm_upper_celsius) for r in rows), known["tm_celsius"], strict=True
        )
    ]
    assert np.mean(inside) >= 0.8


def test_every_command_takes_the_predictor(run: Predictor, held_out: pd.DataFrame, cli: Cli, tmp_path: Path) -> None:
    held_out.to_csv(tmp_path / "own.csv", index=False)
    assert f"my-{head_of(run)}" in cli("info", run.folder)[1]
    code, _, err = cli("predict", "own.csv", "-m", run.folder, "-o", "out.csv")
    assert code == 0, err
    given = [None if pd.isna(g) else g for g in held_out["growth_temperature_celsius"]]
    records = [Record(*row) for row in zip(held_out["id"], held_out["sequence"], given, strict=True)]
    assert pd.read_csv("out.csv")["tm_celsius"].tolist() == [row.tm_celsius for row in run.predict(records)]
    code, _, err = cli("evaluate", "own.csv", "-m", run.folder, "-o", "figures")
    assert code == 0, err
    evaluation = Evaluation.from_dict(json.loads(Path("figures/own.json").read_text()))
    assert evaluation.metrics["n"] == len(held_out)
    run.save("copy")
    code, _, err = cli("card", "copy", "figures")
    assert code == 0, err
    assert "### own" in Path("copy/CARD.md").read_text()


# Where data come from


def test_a_table_is_read_from_an_address(table: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/table.csv", table.read_bytes())
    here = train(configured("ridge", table, tmp_path / "here"))
    for number, address in enumerate(("memory://bucket/table.csv", table.as_uri())):
        config = configured("ridge", table, tmp_path / str(number), f"data.path={address}")
        assert config.data.path == address
        there = train(config)
        assert heads_in(there.folder) == heads_in(here.folder)
        assert there.manifest["training"] == here.manifest["training"]


@pytest.mark.parametrize(
    ("path", "error"),
    [("nowhere.csv", DataError), ("memory://bucket/nowhere.csv", ArtifactError), ("file:///nowhere.csv", DataError)],
)
def test_a_table_that_is_not_there_is_named(
    path: str, error: type[Exception], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=r"nowhere\.csv"):
        train(configured("ridge", table, tmp_path / "run", f"data.path={path}"))
    assert not (tmp_path / "run").exists()


def test_what_data_prepare_says_of_a_table_goes_into_the_predictor(table: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_bytes(table.read_bytes())
    (tmp_path / "mine.summary.json").write_text('{"proteins": 360}')
    trained = train(configured("ridge", tmp_path / "mine.csv", tmp_path / "run"))
    assert trained.manifest["training"]["data"] == {"proteins": 360}
    (tmp_path / "mine.summary.json").write_text("{")
    with pytest.raises(DataError, match=r"mine\.summary\.json"):
        train(configured("ridge", tmp_path / "mine.csv", tmp_path / "run"))


@pytest.mark.parametrize("head", HEADS)
def test_proteins_whose_measurements_disagree_count_less(head: str, learnt: pd.DataFrame, tmp_path: Path) -> None:
    # Half of the proteins say nothing but noise; only the spread of their measurements tells which.
    noisy = learnt[:-3].copy()
    wrong = np.random.default_rng(2).random(len(noisy)) < 0.5
    truth = noisy["tm_celsius"].to_numpy(copy=True)
    noisy.loc[wrong, "tm_celsius"] = np.random.default_rng(3).permutation(truth[wrong]) + 25
    errors = {}
    for spread in (0.0, 40.0):
        noisy.assign(tm_spread_celsius=np.where(wrong, spread, 0.0)).to_csv(tmp_path / "table.csv", index=False)
        trained = train(configured(head, tmp_path / "table.csv", tmp_path / "run"))
        said = np.array([row.tm_celsius for row in trained.predict(noisy["sequence"].tolist())])
        errors[spread] = np.abs(said - truth).mean()
    assert errors[40.0] < 0.7 * errors[0.0]


# Several runs


def test_a_multirun_trains_into_numbered_folders(cli: Cli, table: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", *overrides("trees", table, tmp_path / "many"), "seed=1,2", "--multirun")
    assert code == 0, err
    assert "run-0: seed=1" in err
    assert "run-1: seed=2" in err
    first, second = (Predictor(tmp_path / "many" / name) for name in ("0", "1"))
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == ["0", "1"]
    assert [p.manifest["training"]["config"]["seed"] for p in (first, second)] == [1, 2]
    assert heads_in(first.folder) != heads_in(second.folder)
    alone = train(configured("trees", table, tmp_path / "alone", "seed=2"))
    assert heads_in(alone.folder) == heads_in(second.folder)
