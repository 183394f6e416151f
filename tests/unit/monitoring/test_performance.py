"""How predictions turned out: figures that can be checked by hand, and alerts that neither cry wolf nor sleep."""

from __future__ import annotations

import datetime as dt
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert

from enzyme_stability.errors import ConfigError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.performance import Performance, gauges, performance
from enzyme_stability.monitoring.tables import FeedbackRow

MONDAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
MODEL = "a" * 64


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    opened = Database(sqlite_url)
    opened.migrate()
    yield opened
    opened.close()


def came_back(database: Database, errors: list[float], **columns: Any) -> None:
    """A protein a row: measured at 50, 51, ... degC, predicted ``errors`` above it within 10 degC on both sides.

    ``days`` after Monday, ``hours`` apart; a callable column is called with the number of the row.
    """
    days, hours = columns.pop("days", 0), columns.pop("hours", 0)
    rows = []
    for k, error in enumerate(errors):
        measured = 50.0 + k
        values = {
            "received_at": MONDAY + dt.timedelta(days=days, hours=hours * k),
            "name": f"protein_{k}",
            "sequence_hash": f"{days:032}{k:032}",
            "measured_tm_celsius": measured,
            "tm_celsius": measured + error,
            "tm_lower_celsius": measured + error - 10,
            "tm_upper_celsius": measured + error + 10,
            "coverage": 0.9,
            "model": "model",
            "model_hash": MODEL,
        }
        rows.append(values | {name: value(k) if callable(value) else value for name, value in columns.items()})
    with database.session() as session:
        session.execute(insert(FeedbackRow), rows)


def judged(database: Database, **settings: Any) -> Performance:
    return performance(database, **{"since": MONDAY} | settings)


# Figures


def test_the_figures_are_those_one_works_out_by_hand(database: Database) -> None:
    came_back(database, [1.0, -3.0, 20.0, 2.0])
    done = judged(database)
    assert done.overall is not None
    figures = done.overall
    assert (figures.n, figures.mae, figures.bias) == (4, pytest.approx(6.5), pytest.approx(5.0))
    assert figures.rmse == pytest.approx(math.sqrt((1 + 9 + 400 + 4) / 4))
    assert figures.spearman == pytest.approx(0.6)  # 51, 48, 72 and 55 against 50, 51, 52 and 53
    assert figures.bias_error == pytest.approx(3.182446 * np.std([1, -3, 20, 2], ddof=1) / 2)
    assert (figures.coverage, figures.asked_coverage) == (0.75, pytest.approx(0.9))
    # Clopper and Pearson for 3 of 4
    assert figures.coverage_low == pytest.approx(0.1941, abs=1e-4)
    assert figures.coverage_high == pytest.approx(0.9937, abs=1e-4)


def test_a_protein_measured_often_counts_once_with_its_median(database: Database) -> None:
    came_back(database, [1.0, -2.0])
    for day, measured in ((1, 60.0), (2, 54.0), (3, 70.0)):
        came_back(
            database,
            [0.0],
            days=day,
            sequence_hash="c" * 64,
            measured_tm_celsius=measured,
            tm_celsius=50.0 + day,
            organism="E. coli" if day == 1 else None,
        )
    done = judged(database, window=1)
    assert done.overall is not None
    assert (done.measurements, done.overall.n) == (5, 3)
    assert done.overall.mae == pytest.approx((1 + 2 + 7) / 3)  # 60 measured, 53 predicted at the last time
    assert done.periods[-1].start == MONDAY + dt.timedelta(days=3)


def test_what_has_no_prediction_is_counted_apart(database: Database) -> None:
    came_back(database, [1.0])
    came_back(database, [1.0] * 3, days=1, tm_celsius=None, tm_lower_celsius=None, tm_upper_celsius=None, coverage=None)
    done = judged(database)
    assert (done.measurements, done.unpredicted, done.overall and done.overall.n) == (1, 3, 1)


def test_few_or_constant_values_have_no_correlation_and_one_has_no_error_of_its_bias(database: Database) -> None:
    came_back(database, [1.0])
    one = judged(database).overall
    assert one is not None
    assert (one.spearman, one.bias_error) == (None, None)
    came_back(database, [0.0] * 5, days=1, measured_tm_celsius=50.0)
    same = judged(database, since=MONDAY + dt.timedelta(days=1)).overall
    assert same is not None
    assert same.spearman is None


def test_organisms_have_figures_of_their_own_from_five_proteins_on(database: Database) -> None:
    names = ["few"] * 4 + ["cold"] * 5 + ["hot"] * 6 + [None] * 7
    came_back(database, [float(k) for k in range(22)], organism=lambda k: names[k])
    organisms = judged(database).organisms
    assert list(organisms) == ["hot", "cold"]
    assert organisms["cold"].mae == pytest.approx((4 + 5 + 6 + 7 + 8) / 5)


# Time and model


def test_weeks_begin_on_monday_and_hold_the_proteins_of_that_week(database: Database) -> None:
    came_back(database, [1.0, 2.0], days=6.99)
    came_back(database, [5.0], days=7)
    came_back(database, [7.0], days=22)
    weeks = judged(database).periods
    assert [(w.start - MONDAY).days for w in weeks] == [0, 7, 21]
    assert [(w.end - w.start).days for w in weeks] == [7, 7, 7]
    assert [(w.figures.n, w.figures.mae) for w in weeks] == [(2, 1.5), (1, 5.0), (1, 7.0)]


def test_windows_of_some_proteins_are_counted_back_from_the_newest(database: Database) -> None:
    came_back(database, [1.0, 2.0, 3.0, 4.0, 5.0], hours=1)
    periods = judged(database, window=2).periods
    assert [(p.figures.n, p.figures.bias) for p in periods] == [(1, 1.0), (2, 2.5), (2, 4.5)]
    assert periods[-1].start == MONDAY + dt.timedelta(hours=3)
    assert periods[-1].end == MONDAY + dt.timedelta(hours=4)
    assert [p.figures.n for p in judged(database, window=5).periods] == [5]
    assert [p.figures.n for p in judged(database, window=9).periods] == [5]
    with pytest.raises(ConfigError, match="at least 1"):
        judged(database, window=0)


def test_only_the_time_and_the_model_asked_for_count(database: Database) -> None:
    came_back(database, [1.0], days=-1)
    came_back(database, [2.0], days=1)
    came_back(database, [4.0], days=2, model_hash="b" * 64)
    came_back(database, [8.0], days=3)
    until = MONDAY + dt.timedelta(days=3)
    assert judged(database, until=until).overall.mae == 3.0  # type: ignore[union-attr]
    assert judged(database, until=until, model_hash=MODEL).overall.mae == 2.0  # type: ignore[union-attr]
    assert judged(database, since=until).overall.mae == 8.0  # type: ignore[union-attr]
    nothing = judged(database, model_hash="c" * 64)
    assert (nothing.overall, nothing.periods, nothing.organisms, nothing.alerts) == (None, (), {}, ())


# Alerts


def test_good_predictions_raise_no_alert(database: Database) -> None:
    came_back(database, [-4.0, 3.0, 1.0, -2.0, 2.0, 0.0, -1.0, 1.0, 0.5, 15.0] * 5)
    done = judged(database)
    assert done.overall is not None
    assert done.overall.coverage == 0.9
    assert done.alerts == ()


@pytest.mark.parametrize(("inside", "word"), [(40, "narrow"), (80, "wide")])
def test_a_coverage_that_has_left_its_band_raises_an_alert(database: Database, inside: int, word: str) -> None:
    came_back(database, [1.0, -1.0] * (inside // 2) + [15.0, -15.0] * ((80 - inside) // 2))
    (alert,) = judged(database).alerts
    assert f"too {word}" in alert
    assert f"{inside / 80:.1%} of 80" in alert


def test_too_few_proteins_raise_no_alert_however_odd_they_are(database: Database) -> None:
    came_back(database, [40.0])
    assert judged(database).alerts == ()


def test_a_bias_raises_an_alert_only_where_it_is_both_sure_and_large(database: Database) -> None:
    came_back(database, [2.9, 3.1] * 3, days=0)
    came_back(database, [1.8, 2.0] * 10, days=1)
    came_back(database, [9.0, -8.0, 9.0, 9.0, -4.0], days=2)

    def alerts(day: int) -> tuple[str, ...]:
        start = MONDAY + dt.timedelta(days=day)
        return judged(database, since=start, until=start + dt.timedelta(days=1)).alerts

    (alert,) = alerts(0)
    assert "3.0 +- 0.1 degC too high" in alert
    assert alerts(1) == ()  # sure, but of no matter
    assert alerts(2) == ()  # 3 degC on the average, but by chance as likely as not


@pytest.mark.parametrize("n", [30, 100])
def test_alerts_are_rare_where_all_is_as_promised(database: Database, n: int) -> None:
    """Predictions with honest intervals: coverage and bias may each be wrong about once in twenty times, not more."""
    random = np.random.default_rng(5)
    false = 0
    for day in range(40):
        came_back(database, (random.normal(0, 1, n) * 10 / 1.645).tolist(), days=day)
        start = MONDAY + dt.timedelta(days=day)
        false += bool(judged(database, since=start, until=start + dt.timedelta(days=1)).alerts)
    assert false <= 5


# For other programs


def test_postgresql_gives_the_same_figures(database: Database, empty_postgresql_url: str) -> None:
    other = Database(empty_postgresql_url)
    other.migrate()
    for one in (database, other):
        came_back(one, [1.0, -3.0, 20.0, 2.0, 0.5, 1.5], organism="E. coli", hours=40)
        came_back(one, [1.0], days=9, tm_celsius=None)
    assert judged(other).to_dict() == judged(database).to_dict()
    assert gauges(other, since=MONDAY) == gauges(database, since=MONDAY)
    other.close()


def test_everything_can_be_written_as_json(database: Database) -> None:
    came_back(database, [1.0, 2.0, 15.0, 3.0, 4.0, 5.0], organism="E. coli")
    done = judged(database)
    read = json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert read["since"] == "2026-03-02T00:00:00+00:00"
    assert read["overall"]["mae"] == done.overall.mae  # type: ignore[union-attr]
    assert read["organisms"]["E. coli"]["n"] == 6
    assert read["periods"][0]["end"] == "2026-03-09T00:00:00+00:00"
    assert read["periods"][0]["figures"]["n"] == 6


def test_gauges_say_the_same_without_scipy_and_pandas(database: Database, sqlite_url: str) -> None:
    assert gauges(database, since=MONDAY) == {"rows": 0.0}
    came_back(database, [1.0, -3.0, 20.0, 2.0])
    figures = judged(database).overall
    assert figures is not None
    assert gauges(database, since=MONDAY, model_hash=MODEL) == {
        "rows": 4.0,
        "mae_celsius": figures.mae,
        "bias_celsius": figures.bias,
        "coverage": figures.coverage,
        "asked_coverage": figures.asked_coverage,
    }
    code = (
        "import datetime as dt, sys; from enzyme_stability.monitoring.database import Database;"
        "from enzyme_stability.monitoring.performance import gauges;"
        "print(gauges(Database(sys.argv[1]), since=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))['rows'],"
        "{'scipy', 'pandas'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, sqlite_url]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["4.0", "set()"]
