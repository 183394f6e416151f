"""An evaluation stands beside baselines and published predictors, each compared on the very same proteins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from enzyme_stability.errors import DataError
from enzyme_stability.evaluation import PEERS, Evaluation, baselines, evaluate, load_peers
from enzyme_stability.sequence import AMINO_ACIDS

DATA = Path(os.environ.get("ENZYME_STABILITY_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(
    not (DATA / "tm").is_dir(), reason=f"no folder 'tm' in {DATA}; set ENZYME_STABILITY_DATA to the data folder"
)


def proteins(n: int, seed: int) -> pd.DataFrame:
    """Made-up proteins whose Tm is a straight line on their glutamate and glutamine, and nearly one on the growth."""
    random = np.random.default_rng(seed)
    sequences = ["".join(random.choice(list(AMINO_ACIDS), 120, p=random.dirichlet(np.ones(20)))) for _ in range(n)]
    tm = np.array([50 + 100 * (text.count("E") - text.count("Q")) / len(text) for text in sequences])
    growth = tm - 15 + random.normal(0, 2, n)
    return pd.DataFrame({"sequence": sequences, "tm_celsius": tm, "growth_temperature_celsius": growth})


def predicted(table: pd.DataFrame, error: float = 3.0) -> pd.DataFrame:
    random = np.random.default_rng(0)
    guess = table["tm_celsius"] + random.normal(0, error, len(table))
    bounds = {"lower_celsius": guess - 6, "upper_celsius": guess + 6}
    in_domain = random.random(len(table)) > 0.1
    return table.assign(id=[f"P{k}" for k in range(len(table))], predicted_celsius=guess, **bounds, in_domain=in_domain)


TRAIN, TEST = proteins(80, 1), predicted(proteins(60, 2))


def test_the_constant_is_the_mean_of_the_training_table() -> None:
    found = baselines(TRAIN, TEST, bootstrap=20)["constant"]
    error = TRAIN["tm_celsius"].mean() - TEST["tm_celsius"]
    assert found["metrics"]["mae"]["value"] == pytest.approx(error.abs().mean())
    assert found["metrics"]["spearman"] is None
    ours = mean_absolute_error(TEST["tm_celsius"], TEST["predicted_celsius"])
    assert found["difference"]["mae"]["value"] == pytest.approx(ours - error.abs().mean())


def test_the_composition_line_finds_a_line_on_the_composition() -> None:
    assert baselines(TRAIN, TEST, bootstrap=20)["composition"]["metrics"]["r2"]["value"] == pytest.approx(1)


def test_the_growth_line_is_judged_where_the_growth_temperature_is_known() -> None:
    known = TEST["growth_temperature_celsius"].where(TEST.index % 3 == 0)
    train = TRAIN.assign(growth_temperature_celsius=TRAIN["growth_temperature_celsius"].where(TRAIN.index % 2 == 0))
    found = baselines(train, TEST.assign(growth_temperature_celsius=known), bootstrap=20)["growth_temperature"]
    assert found["metrics"]["n"] == found["difference"]["n"] == 20
    rows = known.notna()
    slope, offset = np.polyfit(
        train["growth_temperature_celsius"].dropna(), train["tm_celsius"][train.index % 2 == 0], 1
    )
    expected = r2_score(TEST["tm_celsius"][rows], slope * known[rows] + offset)
    assert found["metrics"]["r2"]["value"] == pytest.approx(expected)


def test_the_growth_line_may_use_another_column() -> None:
    named = {"growth_temperature_celsius": "ogt"}
    found = baselines(
        TRAIN.rename(columns=named), TEST.rename(columns=named), growth_temperature_column="ogt", bootstrap=20
    )
    assert found["growth_temperature"]["metrics"]["n"] == 60


def test_a_baseline_without_its_input_is_left_out() -> None:
    unknown = TEST.assign(growth_temperature_celsius=np.nan).drop(columns="sequence")
    assert list(baselines(TRAIN, unknown, bootstrap=20)) == ["constant"]


def write_peer(name: str, folder: Path, rows: dict[str, list]) -> None:
    path = folder / next(peer.path for peer in PEERS if peer.name == name)
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(path, index=False)


OURS = pd.DataFrame(
    {"id": ["P3", "P1", "P2"], "tm_celsius": [63.0, 61.0, 62.0], "sequence": ["A" * 12, "C" * 12, "D" * 12]}
)


def test_a_peer_is_aligned_by_id_whatever_the_order_and_the_index(tmp_path) -> None:
    rows = {"uniprot_id": ["P0", "P1", "P3"], "Tm": [60.0, 61.00001, 63.0], "prediction": [1.0, 71.0, 73.0]}
    write_peer("TmPred", tmp_path, rows)
    found = load_peers("tmpred_test", OURS.set_axis([7, 8, 9]), tmp_path)
    assert found.index.tolist() == [7, 8, 9]
    assert found["TmPred"].tolist() == pytest.approx([73.0, 71.0, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"uniprot_id": ["P1", "P3"], "Tm": [61.0, 64.0], "prediction": [1.0, 2.0]}, "64 °C for P3, ours is 63 °C; 1 "),
        (
            {"uniprot_id": ["P1", "P1"], "Tm": [61.0, 61.0], "prediction": [1.0, 2.0]},
            "line 3: the protein stands there",
        ),
        ({"uniprot_id": ["Q1", "Q2"], "Tm": [61.0, 61.0], "prediction": [1.0, 2.0]}, "predicts none of the 3 proteins"),
        ({"uniprot_id": ["P1"], "prediction": [1.0]}, r"TmPred needs the columns \['Tm'\]"),
    ],
)
def test_a_peer_that_does_not_fit_is_an_error(tmp_path, rows, message) -> None:
    write_peer("TmPred", tmp_path, rows)
    with pytest.raises(DataError, match=message):
        load_peers("tmpred_test", OURS, tmp_path)


def test_predictions_that_are_not_there_are_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="predictions of TmPred cannot be read"):
        load_peers("tmpred_test", OURS, tmp_path)


def test_a_table_without_published_predictions_has_no_peers(tmp_path) -> None:
    found = load_peers("flip_mixed_test", OURS, tmp_path)
    assert found.shape == (3, 0)


def published(table: str, peer: str) -> tuple[pd.Series, pd.Series]:
    path, names = {
        "tm50_test": ("tm/tm50/Tm50Test.csv", {"uniprot_id": "id", "tm": "tm_celsius"}),
        "tmpred_test": ("tm/tmpred/TmPred_test.csv", {"Entry": "id", "Tm": "tm_celsius", "Sequence": "sequence"}),
    }[table]
    ours = pd.read_csv(DATA / path, encoding="utf-8-sig").rename(columns=names)
    theirs = load_peers(table, ours.sample(frac=1, random_state=0), DATA)[peer]
    pairs = pd.DataFrame({"measured": ours["tm_celsius"], "theirs": theirs}).dropna()
    return pairs["measured"], pairs["theirs"]


@needs_data
@pytest.mark.parametrize(
    ("table", "peer", "n", "r2", "mae"),
    [
        ("tm50_test", "DeepTM", 1548, 0.753, 4.42),  # two of the 1,550 are not among its predictions
        ("tm50_test", "Seq2Tm", 1550, 0.639, 5.65),
        ("tmpred_test", "TmPred", 704, 0.613, 4.13),
    ],
)
def test_published_predictions_give_their_published_figures(table, peer, n, r2, mae) -> None:
    measured, theirs = published(table, peer)
    assert len(measured) == n
    assert r2_score(measured, theirs) == pytest.approx(r2, abs=0.0005)
    assert mean_absolute_error(measured, theirs) == pytest.approx(mae, abs=0.005)


@needs_data
def test_each_fold_of_tmpred_but_the_declared_one_is_about_other_proteins() -> None:
    ours = set(pd.read_csv(DATA / "tm/tmpred/TmPred_test.csv")["Entry"])
    declared = next(Path(peer.path).name for peer in PEERS if peer.name == "TmPred")
    for path in (DATA / "tm/tmpred/peers").glob("*.csv"):
        theirs = set(pd.read_csv(path)["uniprot_id"])
        assert (theirs == ours) if path.name == declared else not (theirs & ours), path.name


def full_evaluation() -> Evaluation:
    table = TEST.assign(organism=["Escherichia coli"] * 30 + ["Thermus thermophilus"] * 30)
    table.loc[[5, 40], ["predicted_celsius", "lower_celsius", "upper_celsius"]] = np.nan
    theirs = (table["tm_celsius"] + 4).where(table.index >= 10)
    return evaluate(
        "made_up",
        table,
        train=TRAIN,
        peers=pd.DataFrame({"DeepTM": theirs}),
        leakage={"duplicates": np.int64(0)},
        source={"description": "Made-up proteins"},
        nominal_coverage=0.9,
        bootstrap=50,
    )


def test_rows_without_a_prediction_are_counted_and_in_no_figure() -> None:
    found = full_evaluation()
    assert found.unpredicted == 2
    assert found.metrics["n"] == found.intervals["overall"]["n"] == found.domain["n"] == 58
    assert found.within_organism["n"] == 58
    assert found.baselines["constant"]["metrics"]["n"] == 58


def test_a_peer_is_compared_on_the_proteins_it_predicts() -> None:
    found = full_evaluation().peers["DeepTM"]
    assert found["metrics"]["n"] == found["difference"]["n"] == 49
    assert found["metrics"]["mae"]["value"] == pytest.approx(4)
    assert found["note"] == "is given a predicted growth temperature"


def test_an_evaluation_comes_back_from_json_as_it_went() -> None:
    found = full_evaluation()
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert Evaluation.from_dict(json.loads(text)).to_dict() == found.to_dict()
    assert Evaluation.from_dict(json.loads(text)).summary() == found.summary()


def test_what_is_not_a_number_becomes_none_and_keys_become_text() -> None:
    found = Evaluation("x", {"n": np.int64(3), "r2": float("nan")}, {0.5: (np.float32(0.5), np.inf)}, {})
    assert found.to_dict()["metrics"] == {"n": 3, "r2": None}
    assert found.to_dict()["intervals"] == {"0.5": [0.5, None]}


def test_a_file_that_is_no_evaluation_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no saved evaluation: .*colour"):
        Evaluation.from_dict({**full_evaluation().to_dict(), "colour": "red"})


def test_a_table_without_predictions_is_an_error() -> None:
    with pytest.raises(DataError, match="no column 'predicted_celsius'"):
        evaluate("x", TRAIN)


def test_the_summary_shows_the_figures_beside_baselines_and_peers() -> None:
    found = full_evaluation()
    text = found.summary()
    assert "made_up: 58 proteins, 2 not predicted" in text
    for name in ("this model", "constant", "composition", "growth temperature", "DeepTM"):
        assert f"│ {name}" in text
    assert f"{found.metrics['r2']['value']:.2f}" in text
    assert f"this model minus DeepTM: R² {found.peers['DeepTM']['difference']['r2']['value']:+.3f}" in text
    assert "intervals (asked for 90%): cover" in text
    assert "within 2 organisms (58 proteins)" in text
    assert max(map(len, text.splitlines())) <= 120
