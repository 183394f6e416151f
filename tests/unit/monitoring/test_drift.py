"""Drift is called when a quantity has moved both far and surely, and each protein counts once."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from enzyme_stability import Predictor, Record
from enzyme_stability.errors import ArtifactError, DataError, MissingDependencyError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.drift import DriftReport, drift, psi, stability_indices
from enzyme_stability.monitoring.drift_report import write_evidently
from enzyme_stability.monitoring.history import logged
from enzyme_stability.monitoring.prediction_log import PredictionLog
from enzyme_stability.reference import COLUMNS, GIVEN_GROWTH, INPUTS, PREDICTIONS, Histogram, Reference, logged_rows
from enzyme_stability.sequence import AMINO_ACIDS


def made_up(n: int, seed: int, *, lysine: float = 1.0, warmer: float = 0.0, growth: float = np.nan) -> pd.DataFrame:
    """Logged predictions of ``n`` proteins: so much more lysine, so many degC more than proteins usually have."""
    random = np.random.default_rng(seed)
    weights = np.full(20, 5.0) * (1 + (lysine - 1) * (np.array(list(AMINO_ACIDS)) == "K"))
    tm = random.normal(52 + warmer, 8, n).round(2)
    half = random.uniform(4, 10, n) * (1 if np.isnan(growth) else 0.5)
    return pd.DataFrame(
        {
            "sequence_hash": [f"{seed}-{k}" for k in range(n)],
            "length": random.lognormal(5.8, 0.5, n).astype(int) + 20,
            **dict(zip(AMINO_ACIDS, random.dirichlet(weights, n).round(4).T, strict=True)),
            "similarity": random.beta(6, 4, n),
            "growth_temperature_celsius": growth,
            "tm_celsius": tm,
            "tm_lower_celsius": (tm - half).round(2),
            "tm_upper_celsius": (tm + half).round(2),
            "coverage": 0.9,
            "in_domain": random.random(n) > 0.04,
            "status": "ok",
        }
    )


def failed(n: int) -> pd.DataFrame:
    """Logged rows without an answer."""
    return made_up(n, 99).assign(status="error", sequence_hash=None, tm_celsius=np.nan, in_domain=None)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(made_up(800, 0))


def figures(report: DriftReport) -> dict[str, Any]:
    return {one.name: one for one in report.quantities}


# Verdicts


def test_other_proteins_of_the_same_kind_give_no_alarm(reference: Reference) -> None:
    verdicts = [drift(reference, made_up(n, seed)).verdict for seed in range(1, 21) for n in (100, 400)]
    assert verdicts == ["no drift"] * 40


def test_another_composition_is_drift_and_named(reference: Reference) -> None:
    report = drift(reference, made_up(150, 1, lysine=1.8))
    assert report.verdict == "drift"
    assert report.drifted[0] == "share_of_K"
    lysine = figures(report)["share_of_K"]
    assert lysine.mean > lysine.reference_mean + lysine.reference_sd * 0.5
    assert lysine.psi > 0.2
    assert lysine.p_value < 0.01


def test_answers_that_move_alone_are_a_shift_of_predictions(reference: Reference) -> None:
    report = drift(reference, made_up(300, 1, warmer=8))
    assert report.verdict == "shift of predictions"
    assert report.drifted == ["tm_celsius"]
    assert figures(report)["tm_celsius"].of == "predictions"
    assert drift(reference, made_up(300, 1, warmer=8, lysine=2)).verdict == "drift"


def test_many_proteins_do_not_make_an_alarm_of_a_trifle() -> None:
    trifle = figures(drift(Reference.of(made_up(20_000, 0)), made_up(20_000, 1, warmer=0.8)))["tm_celsius"]
    assert trifle.p_value < 1e-6
    assert trifle.psi < 0.05
    assert not trifle.drifted


def test_few_proteins_do_not_make_an_alarm_of_chance(reference: Reference) -> None:
    reports = [drift(reference, made_up(100, seed)) for seed in range(1, 41)]
    far = sum(any(one.psi > 0.2 for one in report.quantities) for report in reports)
    assert far > 10  # alarms had the index alone been asked
    assert sum(report.verdict != "no drift" for report in reports) <= 1


def test_thresholds_are_those_asked_for(reference: Reference) -> None:
    rows = made_up(300, 1, warmer=8)
    index = figures(drift(reference, rows))["tm_celsius"].psi
    assert drift(reference, rows, psi_threshold=index + 0.01).verdict == "no drift"
    assert drift(reference, rows, significance=1e-300).verdict == "no drift"
    assert drift(reference, rows, minimum_proteins=301).verdict == "too few"


def test_one_protein_sent_thousands_of_times_is_one(reference: Reference) -> None:
    report = drift(reference, pd.concat([made_up(1, 5, warmer=30)] * 5000))
    assert (report.verdict, report.rows, report.proteins) == ("too few", 5000, 1)
    assert {(one.psi, one.p_value, one.drifted) for one in report.quantities} == {(None, None, False)}
    usual = made_up(300, 1)
    repeated = drift(reference, pd.concat([usual, *[usual[:1]] * 5000]))
    assert repeated.quantities == drift(reference, usual).quantities


# What is compared with what


def test_answers_given_a_growth_temperature_are_compared_among_themselves() -> None:
    both = Reference.of(pd.concat([made_up(800, 0), made_up(800, 0, growth=37)]))
    report = drift(both, made_up(300, 1, growth=70.0))
    assert report.verdict == "no drift"
    assert {one.name for one in report.quantities if one.psi is None} == set(PREDICTIONS[:2])
    shifted = drift(both, pd.concat([made_up(300, 1), made_up(300, 2, warmer=9, growth=37)]))
    assert shifted.drifted == ["tm_celsius" + GIVEN_GROWTH]


def test_a_reference_without_growth_temperatures_takes_all_answers(reference: Reference) -> None:
    values = figures(drift(reference, pd.concat([made_up(80, 1), made_up(80, 2, growth=37)])))
    assert values["tm_celsius"].n == 160


def test_widths_of_intervals_of_another_coverage_are_left_out(reference: Reference) -> None:
    wide = made_up(300, 1).assign(coverage=0.99, tm_lower_celsius=0.0, tm_upper_celsius=99.0)
    assert figures(drift(reference, wide))["interval_width_celsius"].psi is None
    report = drift(reference, wide.assign(coverage=0.9))
    assert report.drifted == ["interval_width_celsius"]
    assert report.verdict == "shift of predictions"


def test_shares_stand_beside_those_expected(reference: Reference) -> None:
    rows = made_up(200, 1).assign(in_domain=[True] * 150 + [False] * 50)
    report = drift(reference, pd.concat([rows, rows[:100], failed(100)]))
    assert (report.out_of_domain.value, report.errors.value) == (0.25, 0.25)
    assert report.errors.expected == 0
    assert report.out_of_domain.expected == pytest.approx(0.04, abs=0.02)
    assert report.proteins == 200


@pytest.mark.parametrize("rows", [made_up(0, 1), failed(500)], ids=["nothing", "errors alone"])
def test_nothing_answered_is_too_few(reference: Reference, rows: pd.DataFrame) -> None:
    report = drift(reference, rows)
    assert (report.verdict, report.proteins, report.out_of_domain.value) == ("too few", 0, None)
    json.dumps(report.to_dict(), allow_nan=False)


def test_values_as_a_database_gives_them_are_understood(reference: Reference) -> None:
    rows = pd.concat([made_up(200, 1), failed(3)], ignore_index=True)
    objects = rows.astype(object).where(rows.notna(), None)
    assert drift(reference, objects) == drift(reference, rows)


def test_the_log_holds_what_a_reference_is_made_of(sqlite_url: str, builtin: Predictor) -> None:
    random = np.random.default_rng(3)
    records = [
        Record(f"r{k}", "".join(random.choice(list(AMINO_ACIDS), 60)), None if k % 2 else 37.0) for k in range(240)
    ]
    answers = builtin.predict([*records, Record("bad", "MK1")])
    database = Database(sqlite_url)
    database.migrate()
    log = PredictionLog(database, keep_days=1, keep_rows=1000)
    about = {"model": "builtin", "model_hash": builtin.digest, "coverage": 0.9, "latency_s": 0.1}
    log.add([*records, Record("bad", "MK1")], answers, **about)
    log.close(20)
    rows = logged(database, dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    database.close()
    growth = [record.growth_temperature for record in records]
    expected = Reference.of(logged_rows([r.sequence for r in records], answers[:-1], growth_temperature=growth))
    assert Reference.of(rows) == replace(expected, error_share=pytest.approx(1 / 241, abs=1e-6))
    assert drift(builtin.reference, rows).verdict == "drift"  # random chains are no proteins


def test_a_missing_column_is_named(reference: Reference) -> None:
    with pytest.raises(DataError, match="lacks the columns K, similarity"):
        drift(reference, made_up(200, 1).drop(columns=["similarity", "K"]))
    assert set(made_up(1, 1)) == set(COLUMNS)


def test_the_report_is_plain_json(reference: Reference) -> None:
    content = json.loads(json.dumps(drift(reference, made_up(150, 1, lysine=2)).to_dict(), allow_nan=False))
    assert content["verdict"] == "drift"
    assert "share_of_K" in content["drifted"]
    assert {one["name"] for one in content["quantities"]} == {*INPUTS, *PREDICTIONS[:2]}
    assert content["out_of_domain"].keys() == {"value", "expected"}


# Figures


def test_the_index_is_nought_for_itself_and_symmetric() -> None:
    random = np.random.default_rng(0)
    values, other = random.normal(0, 1, 1000), random.normal(0.5, 1, 1000)
    kept = Histogram.of(values)
    assert psi(kept, values) == pytest.approx(0, abs=1e-9)
    # Two normal distributions half a standard deviation apart diverge by 0.25; bins lose a little of it.
    assert psi(kept, other) == pytest.approx(0.25, abs=0.06)


def test_the_index_is_finite_where_a_bin_is_empty() -> None:
    kept = Histogram.of(np.arange(1000.0))
    assert 1 < psi(kept, np.full(100, 1e6)) < 10


def test_p_values_are_those_of_scipy_after_holm(reference: Reference) -> None:
    from scipy.stats import chi2_contingency

    rows = made_up(300, 1, warmer=3, lysine=1.1)
    values = reference.values(rows)
    raw = {
        name: chi2_contingency(np.stack([kept.counts, kept.count(values[name])])).pvalue
        for name, kept in reference.quantities.items()
    }
    adjusted = {one.name: one.p_value for one in drift(reference, rows).quantities}
    first, second, *_ = sorted(raw, key=lambda name: raw[name])
    assert adjusted[first] == pytest.approx(raw[first] * len(raw), rel=1e-4)
    assert adjusted[second] == pytest.approx(max(raw[second] * (len(raw) - 1), adjusted[first]), rel=1e-4)
    assert all(raw[name] <= adjusted[name] <= 1 for name in raw)


def test_a_constant_is_compared_too() -> None:
    def same(seed: int, value: float) -> pd.DataFrame:
        return made_up(300, seed).assign(similarity=value)

    kept = Reference.of(same(0, 1.0))
    assert drift(kept, same(1, 1.0)).verdict == "no drift"
    assert drift(kept, same(1, 0.9)).drifted == ["similarity"]


def test_gauges_are_the_indices_of_the_report(reference: Reference) -> None:
    rows = made_up(150, 1)
    assert stability_indices(reference, rows) == {one.name: one.psi for one in drift(reference, rows).quantities}
    assert stability_indices(reference, rows[:99]) == {}


def test_importing_is_quick() -> None:
    code = (
        "import sys; from enzyme_stability.monitoring import drift, drift_report; "
        "assert not {'pandas', 'scipy', 'evidently'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scipy_drift_says_what_to_install(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[monitor\]"):
        drift(reference, made_up(150, 1))
    assert len(stability_indices(reference, made_up(150, 1))) == len(reference.quantities)


# Evidently


def test_evidently_shows_every_quantity_and_finds_the_one_that_moved(reference: Reference, tmp_path: Path) -> None:
    pytest.importorskip("evidently")
    watched = {name: reference.quantities[name] for name in ("share_of_K", "similarity")}
    write_evidently(replace(reference, quantities=watched), made_up(400, 1, lysine=2), tmp_path / "drift.html")
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    for name in watched:
        assert name in page
    assert "Drift is detected for 50.0% of columns (1 out of 2)" in page
    assert [path.name for path in tmp_path.iterdir()] == ["drift.html"]


def test_evidently_is_refused_too_few_proteins_and_an_absent_folder(reference: Reference, tmp_path: Path) -> None:
    pytest.importorskip("evidently")
    with pytest.raises(DataError, match="at least 100 distinct proteins"):
        write_evidently(reference, made_up(99, 1), tmp_path / "drift.html")
    with pytest.raises(ArtifactError, match="cannot write to"):
        write_evidently(reference, made_up(150, 1), tmp_path / "absent" / "drift.html")


def test_without_evidently_the_message_says_what_to_install(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "evidently", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[evidently\]"):
        write_evidently(reference, made_up(150, 1), tmp_path / "drift.html")
