"""Raw tables become one clean table, and every raw row is either in it or in the list of removed ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_proteins import FOUNDERS, protein, relative
from pydantic import ValidationError

from enzyme_stability.data import preparation, tables
from enzyme_stability.data.merging import CLEAN_COLUMNS, combine
from enzyme_stability.data.preparation import (
    PreparationSettings,
    Prepared,
    Recipe,
    load_recipe,
    prepare,
    prepare_recipe,
    prepare_test_table,
)
from enzyme_stability.data.tables import Columns, RawTable, load_yaml
from enzyme_stability.errors import DataError

pytestmark = pytest.mark.usefixtures("mmseqs")

DATA = Path(os.environ.get("ENZYME_STABILITY_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no raw tables at {DATA}; set ENZYME_STABILITY_DATA")

HELD_OUT = protein(250)
HUMAN, COLI, UNSEEN = FOUNDERS[:3]

RUNS = f"""accession,run,tm,r2,sequence
P1,Homo_sapiens_lysate,50,0.99,{HUMAN}
P1,Homo_sapiens_cells,52,0.99,{HUMAN}
P2,Mus_musculus_liver,60,0.99,{relative(HUMAN, 0.99)}
P3,Homo_sapiens_lysate,50,0.99,MKV1{HUMAN}
P4,Homo_sapiens_lysate,,0.99,{protein(250)}
P5,Homo_sapiens_lysate,150,0.99,{protein(250)}
P6,Homo_sapiens_lysate,50,0.5,{protein(250)}
P7,Homo_sapiens_lysate,50,0.99,{relative(HELD_OUT, 0.6) + protein(300)}
P8,Escherichia_coli_lysate,70,0.99,{COLI}
"""

BENCHMARK = f"""name,tm,ogt,sequence
1,50.04,33,{HUMAN[:-1]}
2,51.0,33,{HUMAN[:-1]}
3,75.3,44,{COLI[:-1]}
4,80,61.5,{UNSEEN}
"""

KNOWN = {
    "runs": RawTable(
        path="runs.csv",
        source="Runs",
        licence="CC BY 4.0",
        columns=Columns(id="accession", run="run", tm="tm", curve_r2="r2", sequence="sequence"),
        organism_in_run=True,
    ),
    "benchmark": RawTable(
        path="benchmark.csv",
        source="Benchmark",
        columns=Columns(id="name", tm="tm", predicted_growth_temperature="ogt", sequence="sequence"),
        derived=True,
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    (folder / "runs.csv").write_text(RUNS)
    (folder / "benchmark.csv").write_text("\ufeff" + BENCHMARK)
    (folder / "held_out.csv").write_text(f"id,sequence,tm\nH1,{HELD_OUT},55\n")
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "known_tables", lambda: KNOWN)
        patch.setattr(preparation, "known_tables", lambda: KNOWN)
        return prepare(["runs", "benchmark"], root=folder, held_out=[folder / "held_out.csv"], threads=1)


def reason(prepared: Prepared, table: str, line: int) -> tuple[str, str]:
    removed = prepared.removed
    row = removed[(removed["table"] == table) & (removed["line"] == line)].iloc[0]
    return row["reason"], row["detail"]


def test_every_raw_row_is_kept_or_removed_with_a_reason(prepared: Prepared) -> None:
    assert list(prepared.table.columns) == CLEAN_COLUMNS
    places = pd.concat([prepared.table[["table", "line"]], prepared.removed[["table", "line"]]])
    expected = [("runs", line) for line in range(2, 11)] + [("benchmark", line) for line in range(2, 6)]
    assert sorted(places.itertuples(index=False, name=None)) == sorted(expected)


def test_unusable_rows_say_why(prepared: Prepared) -> None:
    assert reason(prepared, "runs", 5) == ("bad sequence", "'1' at position 4 is not an amino acid")
    assert reason(prepared, "runs", 6) == ("tm missing", "'' is no temperature")
    assert reason(prepared, "runs", 7) == ("tm out of range", "150 degC is not within 20 to 110")
    assert reason(prepared, "runs", 8) == ("poor curve", "R2 of the melting curve 0.5")


def test_a_relative_of_a_held_out_protein_leaves_even_if_only_half_of_either_chain_aligns(prepared: Prepared) -> None:
    why, detail = reason(prepared, "runs", 9)
    assert why == "near held-out protein"
    assert detail.startswith("H1 (")
    assert detail.endswith("at 60% identity")


def test_a_relative_that_shows_from_one_side_only_leaves_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_sided(queries: list[str], targets: list[str], **_: object) -> pd.DataFrame:
        hits = [(queries.index(COLI), targets.index(HELD_OUT), 0.31)] if COLI in queries else []
        return pd.DataFrame(hits, columns=["query", "target", "identity"])

    monkeypatch.setattr(preparation, "search", one_sided)
    path = folder / "mine.csv"
    path.write_text(f"id,seq,tm\na,{HUMAN},50\nb,{COLI},60\n")
    prepared = prepare([path], root=folder, held_out=[folder / "held_out.csv"], threads=1)
    assert prepared.table["id"].tolist() == ["a"]
    assert prepared.removed.loc[0, "detail"].endswith("at 31% identity")


def test_repeated_measurements_become_one_row_with_their_spread(prepared: Prepared) -> None:
    row = prepared.table.set_index("id").loc["P1"]
    assert row["tm_celsius"] == 51
    assert row["tm_spread_celsius"] == pytest.approx(2**0.5)
    assert row["measurements"] == 2
    assert row["run"] == "Homo_sapiens_lysate; Homo_sapiens_cells"
    assert reason(prepared, "runs", 3) == ("merged", "measurement of P1 (runs, line 2)")


def test_orthologues_of_two_organisms_stay_two_proteins(prepared: Prepared) -> None:
    assert prepared.table.set_index("id").loc[["P1", "P2"], "organism"].tolist() == ["Homo sapiens", "Mus musculus"]


def test_a_number_that_a_benchmark_took_over_is_not_counted_again(prepared: Prepared) -> None:
    assert reason(prepared, "benchmark", 2) == ("duplicate", "copy of P1 (runs, line 2)")  # of one run, rounded
    assert reason(prepared, "benchmark", 3) == ("duplicate", "copy of P1 (runs, line 2)")  # the mean of the runs


def test_another_number_from_a_benchmark_is_a_measurement(prepared: Prepared) -> None:
    row = prepared.table.set_index("id").loc["P8"]
    assert (row["measurements"], row["tm_celsius"], row["source"]) == (2, 72.65, "Runs; Benchmark")
    assert row["sequence"] == COLI  # not the copy that lacks its last residue


def test_growth_temperatures_real_and_predicted_stay_apart(prepared: Prepared) -> None:
    table = prepared.table.set_index("id")
    assert table.loc["P8", "growth_temperature_celsius"] == 37
    assert table.loc["P8", "predicted_growth_temperature_celsius"] == 44
    assert np.isnan(table.loc["4", "growth_temperature_celsius"])
    assert table.loc["4", "predicted_growth_temperature_celsius"] == 61.5


def test_a_single_measurement_has_no_spread(prepared: Prepared) -> None:
    row = prepared.table.set_index("id").loc["4"]
    assert row["measurements"] == 1
    assert np.isnan(row["tm_spread_celsius"])


def test_the_summary_counts_and_is_json(prepared: Prepared) -> None:
    summary = json.loads(json.dumps(prepared.summary, allow_nan=False))
    assert (summary["raw_rows"], summary["proteins"], summary["measurements"]) == (13, 4, 6)
    assert summary["removed"]["duplicate"] == 2
    assert summary["tables"][0]["licence"] == "CC BY 4.0"
    assert summary["tables"][0]["removed"]["poor curve"] == 1


def rows(*values: tuple[float, str, str, bool]) -> pd.DataFrame:
    frame = pd.DataFrame(values, columns=["tm_celsius", "table", "run", "derived"])
    frame["line"] = range(2, len(frame) + 2)
    return frame.assign(
        id="P1", sequence=FOUNDERS[0], source=frame["table"], organism=None, ph=np.nan,
        growth_temperature_celsius=np.nan, predicted_growth_temperature_celsius=np.nan,
    )  # fmt: skip


def combined(frame: pd.DataFrame, tolerance: float = 0.05) -> pd.Series:
    table, removed = combine(frame, np.zeros(len(frame), dtype=np.int64), tolerance)
    assert len(table) + len(removed) == len(frame)
    return table.iloc[0]


def test_two_runs_that_agree_to_the_digit_are_two_measurements() -> None:
    row = combined(rows((50.0, "runs", "one", False), (50.0, "runs", "two", False)))
    assert (row["measurements"], row["tm_spread_celsius"]) == (2, 0)


def test_a_row_that_stands_there_twice_is_counted_once() -> None:
    assert combined(rows((50.0, "runs", "one", False), (50.0, "runs", "one", False)))["measurements"] == 1
    assert combined(rows((50.0, "mine", None, False), (50.0, "mine", None, False)))["measurements"] == 1


def test_one_poor_curve_does_not_move_the_median() -> None:
    measured = rows((50.0, "runs", "a", False), (51.0, "runs", "b", False), (80.0, "runs", "c", False))
    assert combined(measured)["tm_celsius"] == 51


def test_a_rounded_copy_is_recognised_at_the_whole_tolerance() -> None:
    assert combined(rows((50.25, "runs", "a", False), (50.3, "benchmark", None, True)))["measurements"] == 1
    assert combined(rows((50.25, "runs", "a", False), (50.31, "benchmark", None, True)))["measurements"] == 2


def test_two_measured_tables_that_agree_are_not_copies_of_each_other() -> None:
    assert combined(rows((50.0, "mine", None, False), (50.0, "yours", None, False)))["measurements"] == 2


def test_two_proteins_of_one_name_get_two_ids() -> None:
    frame = rows((50.0, "runs", "a", False), (60.0, "runs", "b", False))
    table, _ = combine(frame, np.array([0, 1]), 0.05)
    assert table["id"].tolist() == ["P1", "P1@runs:3"]


def test_a_user_table_alone_needs_no_declaration(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"name,seq,Tm_kelvin\nlipase,{FOUNDERS[0].lower()},333.15\n")
    table = prepare([path], root=tmp_path).table
    assert table.loc[0, ["id", "sequence", "tm_celsius", "source"]].tolist() == ["lipase", FOUNDERS[0], 60, "mine"]


def test_a_table_of_nothing_usable_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("seq,tm\nMK,50\n")
    with pytest.raises(DataError, match="is left; the first left for: bad sequence: a length of 2 is too short"):
        prepare([path], root=tmp_path)


def test_a_name_that_is_neither_table_nor_file_lists_the_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file or public table is called 'tm51'; the tables are: meltome_runs"):
        prepare(["tm51"], root=tmp_path)


def test_a_test_table_keeps_its_order_and_its_repeats(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    lines = [f"b,{FOUNDERS[1]},150", f"a,{FOUNDERS[0]},50", f"b,{FOUNDERS[1]},60", "c,MK,50", f"d,{FOUNDERS[2]},"]
    path.write_text("id,seq,tm\n" + "\n".join(lines) + "\n")
    prepared = prepare_test_table(path, tmp_path)
    assert prepared.table["tm_celsius"].tolist() == [150, 50, 60]
    assert prepared.removed["reason"].tolist() == ["bad sequence", "tm missing"]


def test_a_test_table_of_runs_has_one_row_a_protein_at_its_first_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging = KNOWN["runs"].model_copy(update={"one_row_per_sequence": True})
    monkeypatch.setattr(tables, "known_tables", lambda: {"runs": merging})
    monkeypatch.setattr(preparation, "known_tables", lambda: {"runs": merging})
    prepared = prepare_test_table("runs", folder)
    assert prepared.table["id"].tolist() == ["P1", "P2", "P5", "P6", "P7", "P8"]
    assert prepared.table.loc[0, "tm_celsius"] == 51


@pytest.mark.parametrize("name", ["prepare_tm50", "prepare_builtin"])
def test_the_keys_of_a_recipe_are_the_fields_of_the_model(name: str) -> None:
    values = load_yaml(f"{name}.yaml")
    assert set(values) == set(Recipe.model_fields)
    assert set(values["settings"]) == set(PreparationSettings.model_fields)
    assert load_recipe(name).settings == PreparationSettings()
    assert set(load_recipe(name).tables + load_recipe(name).held_out) <= set(tables.known_tables())


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="tm_minimun"):
        Recipe.model_validate({"tables": ["tm50_train"], "settings": {"tm_minimun": 30}})


@needs_data
def test_the_tm50_recipe_keeps_the_benchmark_as_it_is() -> None:
    prepared = prepare_recipe(load_recipe("prepare_tm50"), DATA)
    raw = pd.read_csv(DATA / "tm" / "tm50" / "Tm50Train.csv", encoding="utf-8-sig", dtype={"uniprot_id": str})
    assert prepared.removed.empty
    assert prepared.table["id"].tolist() == raw["uniprot_id"].tolist()
    assert prepared.table["tm_celsius"].tolist() == raw["tm"].tolist()
    assert prepared.table["predicted_growth_temperature_celsius"].tolist() == raw["ogt"].tolist()


@needs_data
@pytest.mark.slow
def test_the_builtin_recipe_accounts_for_every_row_and_keeps_away_from_the_tests() -> None:
    recipe = load_recipe("prepare_builtin")
    prepared = prepare_recipe(recipe, DATA)
    assert len(prepared.table) + len(prepared.removed) == prepared.summary["raw_rows"] == 37413
    held_out = pd.concat([prepare_test_table(name, DATA).table for name in recipe.held_out])
    # Benchmark sequences often lack their last residue, so equality alone would prove little.
    forbidden = set(held_out["sequence"]) | set(held_out["sequence"].str[:-1])
    kept = prepared.table["sequence"]
    assert not (kept.isin(forbidden) | kept.str[:-1].isin(forbidden)).any()
    assert prepared.table["tm_celsius"].between(20, 110).all()
    assert prepared.table["id"].is_unique


@needs_data
@pytest.mark.parametrize(
    ("name", "proteins", "organisms"),
    [
        ("tm50_test", 1550, 0),
        ("deepstabp_test", 2405, 12),
        ("tmpred_test", 704, 9),
        ("flip_human_clustered_test", 752, 1),
        ("flip_mixed_test", 1015, 12),
    ],
)
def test_public_test_tables_have_one_row_a_protein(name: str, proteins: int, organisms: int) -> None:
    table = prepare_test_table(name, DATA).table
    assert len(table) == proteins
    assert table["organism"].nunique() == organisms
