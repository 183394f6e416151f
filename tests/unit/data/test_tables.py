"""Raw tables are read as they are: declared ones by their declaration, any other by the names of its columns."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest

from enzyme_stability.data import tables
from enzyme_stability.data.tables import (
    Columns,
    GrowthTemperatures,
    RawTable,
    describe_file,
    find_table,
    full_organism,
    growth_temperatures,
    known_tables,
    load_yaml,
    read_raw,
)
from enzyme_stability.errors import ConfigError, DataError

DATA = Path(os.environ.get("ENZYME_STABILITY_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no raw tables at {DATA}; set ENZYME_STABILITY_DATA")

CHAIN = "MKVLAAGIVGLCAKAYWTERD"


def read_file(path: Path, unit: tables.Unit | None = None) -> pd.DataFrame:
    return read_raw("mine", describe_file(path, unit), Path())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_declarations_use_the_fields_of_the_model_and_no_others() -> None:
    declared = load_yaml("tables.yaml")
    assert set().union(*declared.values()) == set(RawTable.model_fields) - {"unit"}  # every public table is in degC
    assert set().union(*(table["columns"] for table in declared.values())) == set(Columns.model_fields)
    assert set(load_yaml("organism_growth_temperatures.yaml")) == set(GrowthTemperatures.model_fields)


def test_every_table_names_its_source_licence_and_citation() -> None:
    for name, table in known_tables().items():
        assert all((table.source, table.description, table.licence, table.citation)), name
        assert table.url or table.by_hand, name


def test_a_misspelt_key_in_a_declaration_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"t": {"path": "t.csv", "source": "T", "columns": {"sequence": "s"}, "licence_": "MIT"}}
    monkeypatch.setattr(tables, "load_yaml", lambda _: wrong)
    with pytest.raises(ConfigError, match=r"(?s)tables\.yaml, t: .*licence_"):
        known_tables.__wrapped__()


def test_an_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match="no file or public table is called 'tm51'; the tables are: meltome_runs, tm50"):
        find_table("tm51")


def test_every_growth_temperature_has_an_explained_source() -> None:
    table = GrowthTemperatures.model_validate(load_yaml("organism_growth_temperatures.yaml"))
    assert {entry.source for entry in table.organisms.values()} == set(table.sources)


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("E.coli", "Escherichia coli"),
        ("H. sapiens", "Homo sapiens"),
        ("Escherichia coli K-12", "Escherichia coli"),
        ("Oleispira_antarctica_RB-8_lysate_R1", "Oleispira antarctica"),
        ("Geobacillus sp. EPT3", "Geobacillus sp. EPT3"),
        ("X.laevis", "X. laevis"),
        ("", None),
        ("uncultured bacterium", None),
    ],
)
def test_organisms_get_their_binomial(written: str, full: str | None) -> None:
    assert full_organism(written) == full


def test_a_byte_order_mark_blanks_and_an_index_column_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", f"\ufeff,Protein ID , Sequence,Tm (degC)\n0,a,{CHAIN},51.5\n7,b,{CHAIN}, 60 \n")
    rows = read_file(path)
    assert rows["id"].tolist() == ["a", "b"]
    assert rows["tm_celsius"].tolist() == [51.5, 60]
    assert rows["line"].tolist() == [2, 3]


@pytest.mark.parametrize("column", ["tm", "Tm_celsius", "melting temperature", "MeltingPoint", "target"])
def test_usual_names_of_the_temperature_are_found(tmp_path: Path, column: str) -> None:
    rows = read_file(write(tmp_path / "mine.tsv", f"seq\t{column}\torganism\tpH\n{CHAIN}\t51.5\tE.coli\t7.4\n"))
    assert rows.loc[0, ["tm_celsius", "organism", "ph"]].tolist() == [51.5, "Escherichia coli", 7.4]
    assert rows.loc[0, "growth_temperature_celsius"] == growth_temperatures()["Escherichia coli"]
    assert rows.loc[0, "id"] == "mine:2"


def test_columns_can_be_named_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", f"chain,T1/2,tm\n{CHAIN},51.5,99\n")
    table = describe_file(path, columns={"sequence": "chain", "tm": "T1/2"})
    assert read_raw("mine", table, Path()).loc[0, "tm_celsius"] == 51.5
    with pytest.raises(DataError, match=r"\['chian'\] cannot be used; columns of the file: \['chain', 'T1/2', 'tm'\]"):
        describe_file(path, columns={"sequence": "chian"})


def test_a_table_without_a_temperature_lists_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column for the tm \(usual names: tm_celsius.*the file has \['seq', 'x'\]"):
        describe_file(write(tmp_path / "mine.csv", f"seq,x\n{CHAIN},51.5\n"))


def test_kelvin_is_known_by_the_column_or_by_the_caller(tmp_path: Path) -> None:
    by_column = write(tmp_path / "a.csv", f"sequence,Tm_K\n{CHAIN},323.15\n")
    by_caller = write(tmp_path / "b.csv", f"sequence,tm\n{CHAIN},323.15\n")
    assert read_file(by_column).loc[0, "tm_celsius"] == pytest.approx(50)
    assert read_file(by_caller, "kelvin").loc[0, "tm_celsius"] == pytest.approx(50)
    with pytest.raises(DataError, match=r"every temperature in 'tm' is above 200.*unit='kelvin'"):
        read_file(by_caller)


def test_what_is_no_number_is_missing_and_keeps_its_text(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path / "mine.csv", f"sequence,tm\n{CHAIN},n.d.\n{CHAIN},inf\n{CHAIN},\n{CHAIN},55\n"))
    assert rows["tm_celsius"].isna().tolist() == [True, True, True, False]
    assert rows["raw_tm"].tolist() == ["n.d.", "inf", "", "55"]


def test_an_id_like_na_or_001_stays_text(tmp_path: Path) -> None:
    rows = read_file(write(tmp_path / "mine.csv", f"id,sequence,tm\nNA,{CHAIN},55\n001,{CHAIN},55\n"))
    assert rows["id"].tolist() == ["NA", "001"]


def test_rows_outside_the_filter_keep_the_line_numbers_right(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", f"s,tm,set\n{CHAIN},50,train\n{CHAIN},51,test\n{CHAIN},52,train\n{CHAIN},53,test\n")
    table = RawTable(path="t.csv", source="T", columns=Columns(sequence="s", tm="tm"), rows={"set": "test"})
    assert read_raw("t", table, tmp_path)[["line", "tm_celsius"]].to_numpy().tolist() == [[3, 51], [5, 53]]


def test_declared_stand_ins_for_missing_values_are_missing(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", f"s,topt,ogt\n{CHAIN},0,37\n{CHAIN},60,0\n")
    columns = Columns(sequence="s", optimum="topt", growth_temperature="ogt")
    rows = read_raw("t", RawTable(path="t.csv", source="T", columns=columns, missing={"optimum": (0,)}), tmp_path)
    assert rows["optimum_temperature_celsius"].isna().tolist() == [True, False]
    assert rows["growth_temperature_celsius"].tolist() == [37, 0]


def test_a_declared_column_that_is_absent_is_named(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", f"s,tm\n{CHAIN},50\n")
    table = RawTable(path="t.csv", source="T", columns=Columns(sequence="s", tm="Tm"))
    with pytest.raises(DataError, match=r"t\.csv: no column \['Tm'\]; the file has \['s', 'tm'\]"):
        read_raw("t", table, tmp_path)


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "sequence": [CHAIN, CHAIN], "tm": [51.5, None]})
    frame.to_parquet(tmp_path / "mine.parquet")
    frame.to_csv(tmp_path / "mine.csv", index=False)
    assert read_file(tmp_path / "mine.parquet").equals(read_file(tmp_path / "mine.csv"))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv: no such file"):
        describe_file(tmp_path / "nothing.csv")
    (tmp_path / "broken.csv").write_bytes(b"sequence,tm\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"broken\.csv: cannot be read as a table"):
        describe_file(tmp_path / "broken.csv")


@needs_data
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("meltome_runs", 16659),
        ("tm50_train", 6240),
        ("tm50_test", 1550),
        ("deepstabp_test", 2405),
        ("meltome_13_species", 3491),
        ("tmpred_train", 2832),
        ("tmpred_test", 704),
        ("flip_human_full", 5251),
        ("flip_human_clustered_train", 2940),
        ("flip_human_clustered_test", 1504),
        ("flip_mixed_test", 1422),
        ("brenda_stability_train", 2798),
        ("brenda_stability_val", 311),
        ("growth_and_optimum", 2917),
    ],
)
def test_the_public_tables_read_as_published(name: str, rows: int) -> None:
    read = read_raw(name, find_table(name), DATA)
    assert len(read) == rows
    assert (read["raw_sequence"] != "").all()


@needs_data
@pytest.mark.parametrize("name", [name for name, table in known_tables().items() if table.sha256])
def test_the_declared_checksums_are_those_of_the_published_files(name: str) -> None:
    content = (DATA / find_table(name).path).read_bytes()
    assert hashlib.sha256(content).hexdigest() in find_table(name).sha256


@needs_data
def test_stored_growth_temperatures_are_those_of_the_deepstabp_test_table() -> None:
    rows = read_raw("deepstabp_test", find_table("deepstabp_test"), DATA)
    given = rows.groupby("organism")["growth_temperature_celsius"].agg(["min", "max"])
    stored = pd.Series(growth_temperatures()).drop("Geobacillus stearothermophilus")  # not in that table
    assert given["min"].to_dict() == given["max"].to_dict() == stored.to_dict()
