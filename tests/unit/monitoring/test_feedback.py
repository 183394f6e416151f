"""Measured temperatures that come back: what they are compared with, what is refused, what can be learned from them."""

from __future__ import annotations

import datetime as dt
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import select

from enzyme_stability import Predictor, Record
from enzyme_stability.config import TrainConfig
from enzyme_stability.data.frames import read_table
from enzyme_stability.errors import ArtifactError, DataError
from enzyme_stability.monitoring.database import Database
from enzyme_stability.monitoring.feedback import FeedbackOutcome, Measured, record_feedback
from enzyme_stability.monitoring.feedback_tables import RetrainSet, export_retrain_set, read_measured
from enzyme_stability.monitoring.hashing import sequence_hash
from enzyme_stability.monitoring.tables import FeedbackRow, PredictionRow
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.training import train

CHAIN = AMINO_ACIDS * 5
OTHER = CHAIN[::-1]
HASH = sequence_hash(CHAIN)
NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def log(database: Database, tm: float, *, model_hash: str, hours: int = 0, **columns: Any) -> None:
    """One logged prediction of ``CHAIN``."""
    values = {
        "made_at": NOON + dt.timedelta(hours=hours),
        "sequence_hash": HASH,
        "tm_celsius": tm,
        "tm_lower_celsius": tm - 10,
        "tm_upper_celsius": tm + 10,
        "coverage": 0.8,
        "status": "ok",
        "model": f"model {model_hash:.1}",
        "model_hash": model_hash,
        "latency_ms": 1.0,
    }
    with database.session() as session:
        session.add(PredictionRow(**values | columns))


def stored(database: Database) -> list[dict[str, Any]]:
    with database.session() as session:
        rows = session.scalars(select(FeedbackRow).order_by(FeedbackRow.id)).all()
        return [{column.name: getattr(row, column.name) for column in FeedbackRow.__table__.columns} for row in rows]


# What a measurement is compared with


def test_the_newest_prediction_counts_and_those_of_the_current_model_come_first(
    database: Database, builtin: Predictor
) -> None:
    log(database, 50.0, model_hash="a" * 64, hours=1)
    log(database, 51.0, model_hash="a" * 64, hours=3)
    log(database, 52.0, model_hash="a" * 64, hours=2)
    log(database, math.nan, model_hash="a" * 64, hours=9, tm_celsius=None, status="error")
    record_feedback(database, None, [Measured("x", 55.0, CHAIN, source="no current model")])
    record_feedback(database, builtin, [Measured("x", 55.0, CHAIN, source="other model only")])
    log(database, 60.0, model_hash=builtin.digest, hours=-5)
    record_feedback(database, builtin, [Measured("x", 55.0, CHAIN, source="current model")])
    assert [row["tm_celsius"] for row in stored(database)] == [51.0, 51.0, 60.0]
    assert [row["coverage"] for row in stored(database)] == [0.8, 0.8, 0.8]
    assert stored(database)[-1]["model_hash"] == builtin.digest


def test_a_hash_finds_what_was_predicted_for_the_sequence_and_no_sequence_is_kept(database: Database) -> None:
    log(database, 50.0, model_hash="a" * 64)
    (outcome,) = record_feedback(database, None, [Measured("x", 55, sequence_sha256=HASH.upper())], received_at=NOON)
    assert outcome == FeedbackOutcome("x", "ok", "predicted 50.00 degC")
    (row,) = stored(database)
    assert row | {"id": 0} == {
        "id": 0,
        "received_at": NOON,
        "name": "x",
        "sequence_hash": HASH,
        "sequence": None,
        "measured_tm_celsius": 55.0,
        "organism": None,
        "growth_temperature_celsius": None,
        "source": None,
        "tm_celsius": 50.0,
        "tm_lower_celsius": 40.0,
        "tm_upper_celsius": 60.0,
        "coverage": 0.8,
        "model": "model a",
        "model_hash": "a" * 64,
    }


def test_a_protein_that_was_never_predicted_is_predicted_now(database: Database, builtin: Predictor) -> None:
    (warm,) = builtin.predict([Record("", CHAIN, 70.0)])
    (plain,) = builtin.predict([CHAIN])
    assert warm.tm_celsius != plain.tm_celsius
    outcomes = record_feedback(
        database,
        builtin,
        [
            Measured("warm", 61.5, f" {CHAIN.lower()}* ", growth_temperature_celsius=70, organism=" T. maritima "),
            Measured("plain", 61.5, f"{CHAIN}X", source="DSC"),
        ],
    )
    assert [o.status for o in outcomes] == ["ok", "ok"]
    first, second = stored(database)
    assert [first[c] for c in ("tm_celsius", "tm_lower_celsius", "tm_upper_celsius", "coverage", "model_hash")] == [
        *(warm.tm_celsius, warm.tm_lower_celsius, warm.tm_upper_celsius, 0.9, builtin.digest)
    ]
    assert (first["sequence"], first["organism"], first["growth_temperature_celsius"]) == (CHAIN, "T. maritima", 70.0)
    assert second["tm_celsius"] == plain.tm_celsius
    assert second["sequence"] == f"{CHAIN}X"
    assert second["sequence_hash"] == first["sequence_hash"] == HASH


def test_without_anything_to_compare_with_a_measurement_is_kept_alone(database: Database, builtin: Predictor) -> None:
    outcomes = record_feedback(database, builtin, [Measured("x", 55.0, sequence_sha256="b" * 64)])
    outcomes += record_feedback(database, None, [Measured("y", 55.0, CHAIN)])
    assert {o.status for o in outcomes} == {"warning"}
    assert all("nothing to compare it with" in o.note for o in outcomes)
    assert [row["tm_celsius"] for row in stored(database)] == [None, None]


def test_a_predictor_that_fails_costs_no_measurement(
    database: Database, builtin: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builtin.save(tmp_path / "broken")
    broken = Predictor.load(tmp_path / "broken")
    (tmp_path / "broken" / "head_plain.onnx").unlink()
    with caplog.at_level("WARNING"):
        (outcome,) = record_feedback(database, broken, [Measured("x", 55.0, CHAIN)])
    assert outcome.status == "warning"
    assert "the predictor failed" in outcome.note
    assert "head_plain.onnx is missing" in caplog.text  # for the operator; the sender is told no paths
    assert "head_plain" not in outcome.note
    assert stored(database)[0]["measured_tm_celsius"] == 55.0


# What is refused, and what is left out


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Measured("x", 55.0, "MKV1LAARRWQ"), "'1' at position 4"),
        (Measured("x", 55.0), "neither a sequence nor"),
        (Measured("x", 55.0, "  "), "neither a sequence nor"),
        (Measured("x", 55.0, sequence_sha256="ab"), "no SHA-256"),
        (Measured("x", 55.0, CHAIN, "b" * 64), "not that of the sequence"),
        (Measured("x", None, CHAIN), "no measured Tm"),
        (Measured("x", math.nan, CHAIN), "no temperature"),
        (Measured("x", math.inf, CHAIN), "no temperature"),
        (Measured("x", "55", CHAIN), "no temperature"),  # type: ignore[arg-type]
        (Measured("x", True, CHAIN), "no temperature"),
        (Measured("x", 328.15, CHAIN), "not within -20 to 160"),
        (Measured("x", 55.0, CHAIN, growth_temperature_celsius=310.0), "not within -20 to 150"),
        (Measured("x", 55.0, CHAIN, source="s" * 201), "source has 201 letters"),
        (Measured("i" * 201, 55.0, CHAIN), "id has 201 letters"),
        (Measured("x", 55.0, CHAIN, organism="a\0b"), "no database takes"),
        (Measured("x", 55.0, CHAIN, source="\ud83e"), "no database takes"),
        (Measured("x", 55.0, CHAIN, problem="line 7: no number"), "line 7: no number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_record_says_why_and_costs_itself_only(database: Database, bad: Measured, words: str) -> None:
    good = Measured("good", 55.0, OTHER)
    before, refused, after = record_feedback(database, None, [good, bad, Measured("z", 56.0, OTHER)])
    assert (refused.id, refused.status) == (bad.id, "error")
    assert words in refused.note
    assert (before.status, after.status) == ("warning", "warning")
    assert [row["name"] for row in stored(database)] == ["good", "z"]


def test_exact_repeats_are_stored_once_and_repeated_measurements_each(database: Database) -> None:
    first = Measured("a", 55.1, CHAIN, source="DSC")
    again = [
        *(first, Measured("b", 55.1, sequence_sha256=HASH, source="DSC")),
        *(Measured("c", 55.2, CHAIN, source="DSC"), Measured("d", 55.1, CHAIN), Measured("e", 55.1, CHAIN)),
    ]
    assert "stored already" not in record_feedback(database, None, [first])[0].note
    notes = [outcome.note for outcome in record_feedback(database, None, again)]
    assert ["stored already" in note for note in notes] == [True, True, False, False, True]
    assert [(row["name"], row["measured_tm_celsius"]) for row in stored(database)] == [
        *(("a", 55.1), ("c", 55.2), ("d", 55.1))
    ]


def test_a_measurement_sent_again_with_more_gains_what_it_lacked_and_loses_nothing(
    database: Database, builtin: Predictor
) -> None:
    record_feedback(database, None, [Measured("a", 55.1, sequence_sha256=HASH, organism="E. coli")])
    again = Measured("b", 55.1, CHAIN, organism="Homo sapiens", growth_temperature_celsius=37)
    assert record_feedback(database, builtin, [again])[0].status == "warning"
    (row,) = stored(database)
    assert (row["name"], row["organism"]) == ("a", "E. coli")
    assert (row["sequence"], row["growth_temperature_celsius"], row["model_hash"]) == (CHAIN, 37.0, builtin.digest)
    assert row["tm_celsius"] == builtin.predict([Record("", CHAIN, 37.0)])[0].tm_celsius


def test_thousands_at_once_find_each_its_own_prediction(database: Database) -> None:
    hashes = [f"{k:064x}" for k in range(1234)]
    for k in (0, 700, 1233):
        log(database, 50 + k / 100, model_hash="a" * 64, sequence_hash=hashes[k])
    outcomes = record_feedback(database, None, [Measured(h, 55.0, sequence_sha256=h) for h in hashes])
    assert [k for k, o in enumerate(outcomes) if o.status == "ok"] == [0, 700, 1233]
    assert [row["tm_celsius"] for row in stored(database) if row["tm_celsius"]] == [50.0, 57.0, 62.33]


def test_a_database_that_cannot_be_written_is_said_in_one_sentence(tmp_path: Path) -> None:
    unprepared = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(ArtifactError) as error:
        record_feedback(unprepared, None, [Measured("x", 55.0, CHAIN)])
    assert "\n" not in str(error.value)


# Tables


def read(path: Path) -> list[tuple[str, Measured]]:
    return list(read_measured(path))


def test_a_table_is_read_whatever_it_is_written_in(tmp_path: Path) -> None:
    rows = {"id": ["a", "b"], "sequence": [CHAIN, OTHER], "measured_tm_celsius": [55.1, None], "ogt": [37.0, None]}
    table = pd.DataFrame(rows | {"organism": ["E. coli", None], "source": [None, "DSC"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    table.to_csv(tmp_path / "t.csv.gz", index=False, sep=";", encoding="utf-8-sig")
    table.to_parquet(tmp_path / "t.parquet")
    expected = [Measured("a", 55.1, CHAIN, None, "E. coli", 37.0), Measured("b", None, OTHER, source="DSC")]
    for name in ("t.csv", "t.tsv", "t.csv.gz", "t.parquet"):
        assert [measured for _, measured in read(tmp_path / name)] == expected, name


def test_rows_that_cannot_be_used_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'Sequence,tm_celsius,note\n\n{CHAIN},55,"two\nlines"\n{CHAIN},hot,\n,,\n{CHAIN},55,x,y\n')
    (first, good), (second, hot), (third, ragged) = read(path)
    assert (first, good.id, good.problem) == ("line 4", "row_1", "")
    assert (second, hot.problem) == ("line 5", "the tm 'hot' is no number")
    assert third == "line 7"
    assert "more fields" in ragged.problem


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "no column for the sequence"),
        ("t.csv", b"sequence,x\n", "no column for the tm"),
        ("t.csv", b"tm,x\n", "sequence_sha256"),
        ("t.csv", b"id,sequence,tm_celsius,tm_lower_celsius,tm_upper_celsius\n", "holds predictions"),
        ("t.csv", b'sequence,tm\nMKV,"5\n', "after line 1"),
        ("t.csv", b"sequence,tm\n\xff\xfe,5\n", "UTF-8"),
        ("t.csv.gz", gzip.compress(b"sequence,tm\n" * 99)[:-9], "cannot be read"),
        ("t.csv.gz", b"sequence,tm\n", "cannot be read"),
        ("t.parquet", b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_no_table_of_measurements_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read(tmp_path / name)
    assert words in str(error.value)
    for absent in (tmp_path / "absent.csv", tmp_path / "absent.parquet", tmp_path):
        with pytest.raises(DataError, match=str(absent)):
            read(absent)


def test_measurements_beside_predictions_are_told_from_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"sequence,tm_celsius,tm_lower_celsius,measured_tm_celsius\n{CHAIN},50,40,61\n")
    ((_, measured),) = read(path)
    assert measured.measured_tm_celsius == 61.0


# A table to learn from


def test_repeats_become_one_row_for_each_protein_and_growth_temperature(database: Database, tmp_path: Path) -> None:
    sent = [
        Measured("a", 50.0, CHAIN, growth_temperature_celsius=37, source="DSC"),
        Measured("b", 53.0, CHAIN, growth_temperature_celsius=37, source="DSF", organism="E. coli"),
        Measured("c", 80.0, sequence_sha256=HASH, growth_temperature_celsius=37, source="DSF"),
        Measured("d", 60.0, CHAIN, growth_temperature_celsius=70),
        Measured("e", 61.0, OTHER),
        Measured("f", 62.0, sequence_sha256="b" * 64),
    ]
    record_feedback(database, None, sent, received_at=NOON)
    record_feedback(database, None, [Measured("g", 99.0, OTHER)], received_at=NOON + dt.timedelta(days=2))
    before = NOON + dt.timedelta(days=1)
    assert export_retrain_set(database, tmp_path / "t.csv", until=before) == RetrainSet(3, 5, 1)
    table = pd.read_csv(tmp_path / "t.csv").astype(object)
    rows = table.where(table.notna(), None).to_dict("records")
    spread = float(np.std([50, 53, 80], ddof=1))
    assert [list(row.values()) for row in rows] == [
        ["a", CHAIN, 53.0, pytest.approx(spread), 3, "DSC; DSF", "E. coli", 37.0],
        ["d", CHAIN, 60.0, None, 1, None, None, 70.0],
        ["e", OTHER, 61.0, None, 1, None, None, None],
    ]
    assert export_retrain_set(database, tmp_path / "t.csv", since=before) == RetrainSet(1, 1, 0)


def test_nothing_to_learn_from_and_files_that_training_cannot_read_are_refused(
    database: Database, tmp_path: Path
) -> None:
    record_feedback(database, None, [Measured("x", 55.0, sequence_sha256=HASH)])
    with pytest.raises(DataError, match="nothing to learn from"):
        export_retrain_set(database, tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"\.csv and \.parquet"):
        export_retrain_set(database, tmp_path / "t.jsonl")
    record_feedback(database, None, [Measured("x", 55.0, CHAIN)])
    with pytest.raises(DataError, match="does not exist"):
        export_retrain_set(database, tmp_path / "absent" / "t.csv")
    assert not list(tmp_path.glob("t.*"))


def test_a_predictor_learns_from_what_came_back(
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made_up_proteins: pd.DataFrame,
    quick_settings: dict[str, Any],
) -> None:
    database = Database(sqlite_url)
    database.migrate()
    columns = made_up_proteins[["id", "sequence", "tm_celsius", "growth_temperature_celsius"]]
    sent = [
        Measured(id_, tm, sequence, growth_temperature_celsius=None if math.isnan(growth) else growth)
        for id_, sequence, tm, growth in columns.itertuples(index=False)
    ]
    record_feedback(database, None, sent)
    for name in ("table.csv", "table.parquet"):
        assert export_retrain_set(database, tmp_path / name).rows == len(sent)
    same = read_table(tmp_path / "table.csv"), read_table(tmp_path / "table.parquet")
    assert np.allclose(*(table["tm_celsius"] for table in same))
    monkeypatch.chdir(tmp_path)
    learnt = train(TrainConfig.model_validate(quick_settings | {"data": {"path": "table.parquet"}}))
    assert learnt.takes_growth_temperature
    predicted = [row.tm_celsius for row in learnt.predict(columns["sequence"])]
    assert np.corrcoef(np.array(predicted, dtype=float), columns["tm_celsius"])[0, 1] > 0.8
