from __future__ import annotations

import csv
import gzip
import io
import os
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from unittest import mock

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enzyme_stability.data.readers import read_records
from enzyme_stability.errors import DataError, EnzymeStabilityError, MissingDependencyError
from enzyme_stability.sequence import AMINO_ACIDS, Record

PROTEOMES = Path("../shared/data/proteomes")
BOM = b"\xef\xbb\xbf"


def read(data: bytes | str, **columns: str) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return list(read_records(path, **columns))


def pairs(records: list[Record]) -> list[tuple[str, str]]:
    assert not [record for record in records if record.problem]
    return [(record.id, record.sequence) for record in records]


def read_until_error(path: Path) -> tuple[list[Record], str]:
    records: list[Record] = []
    with pytest.raises(DataError) as raised:
        records.extend(read_records(path))
    return records, str(raised.value)


def piped(stream: io.BufferedIOBase) -> mock.mock._patch[io.TextIOWrapper]:
    return mock.patch("sys.stdin", io.TextIOWrapper(stream))


class Dribble(io.RawIOBase):
    """A pipe that hands over one byte at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        byte = self.data.read(1)
        buffer[: len(byte)] = byte
        return len(byte)


def parquet(table: dict[str, object], path: Path) -> Path:
    pq.write_table(pa.table(table), path)
    return path


# FASTA


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("start", [b"", BOM])
def test_line_endings_byte_order_mark_and_gzip_do_not_change_what_fasta_says(ending, packed, start):
    text = ending.join(["", ">first protein of two", "MKV", "", "LAW", ">second", "ACD", ""])
    assert pairs(read(packed(start + text.encode()))) == [("first", "MKVLAW"), ("second", "ACD")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (">sp|P12345|AATM_RABIT Aspartate aminotransferase", "P12345"),
        (">tr|A0A023|A0A023_ECOLX Something", "A0A023"),
        (">sp|P12345-2|AATM_RABIT", "P12345-2"),
        (">sp|broken", "sp|broken"),
        (">gi|123|ref|NP_1.1| name", "gi|123|ref|NP_1.1|"),
        ("> spaced out", "spaced"),
        (">tab\tafter", "tab"),
    ],
)
def test_id_of_a_fasta_header(header, expected):
    assert pairs(read(f"{header}\nMKV\n")) == [(expected, "MKV")]


def test_an_empty_header_is_numbered_among_all_records():
    assert [record.id for record in read(">a\nMKV\n>\nMKV\n>  \nMKV\n")] == ["a", "record_2", "record_3"]


def test_a_header_without_sequence_keeps_its_place():
    assert pairs(read(">a\n>b\nMKV\n>c")) == [("a", ""), ("b", "MKV"), ("c", "")]


def test_ids_may_repeat_and_order_is_kept():
    assert pairs(read(">b\nMKV\n>a\nACD\n>b\nWWW\n")) == [("b", "MKV"), ("a", "ACD"), ("b", "WWW")]


def test_comment_lines_are_not_part_of_a_sequence():
    assert pairs(read(";made by hand\n>a\nMKV\n; half way\nLAW\n")) == [("a", "MKVLAW")]


def test_bytes_that_are_not_utf8_in_a_header_do_not_stop_the_file():
    assert pairs(read(b">caf\xe9 au lait\nMKV\n>b\nACD\n")) == [("caf\ufffd", "MKV"), ("b", "ACD")]


def test_sequence_text_is_not_cleaned():
    assert pairs(read(">a\nmk-v*\nX.?\n")) == [("a", "mk-v*X.?")]


@pytest.mark.parametrize("width", [60, 40_000])
def test_a_very_long_sequence_reads_wrapped_or_not(width):
    sequence = (AMINO_ACIDS * 2_000)[:40_000]
    lines = [sequence[start : start + width] for start in range(0, len(sequence), width)]
    assert pairs(read("\n".join([">long", *lines]))) == [("long", sequence)]


@pytest.mark.parametrize("title", ["My proteins\n", ";comment\nMy proteins\n", "My proteins\nof last year\n"])
def test_text_before_the_first_header_is_a_problem_of_its_own(title):
    stray, *rest = read(f"{title}>a\nMKV\n>b\nACD\n")
    line = title.split("\n").index("My proteins") + 1
    assert (stray.sequence, stray.problem) == ("", f"line {line}: text before the first '>' header")
    assert pairs(rest) == [("a", "MKV"), ("b", "ACD")]


def test_comments_and_then_no_header_at_all_is_a_problem_of_one_record():
    (stray,) = read("; my proteins\nMKV\nACD\n")
    assert stray.problem == "line 2: text before the first '>' header"


def test_a_byte_order_mark_amid_joined_files_does_not_hide_a_record():
    assert pairs(read(BOM + b">a\nMKV\n" + BOM + b">b\nACD\n")) == [("a", "MKV"), ("b", "ACD")]


def test_column_options_on_fasta_are_refused():
    with pytest.raises(DataError, match="FASTA, which has no columns"):
        read(">a\nMKV\n", column="sequence")


def test_every_protein_of_a_uniprot_proteome_is_read_under_its_accession():
    if not PROTEOMES.is_dir():
        pytest.skip(f"the proteomes are not there: {PROTEOMES.resolve()}")
    for path in sorted(PROTEOMES.glob("*.fasta.gz")):
        headers = [line for line in gzip.decompress(path.read_bytes()).decode().splitlines() if line[0] == ">"]
        records = list(read_records(path))
        assert [record.id for record in records] == [header.split("|")[1] for header in headers]
        assert all(record.sequence.isalpha() and not record.problem for record in records)


@st.composite
def fasta_files(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str]]]:
    names = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1).filter(
        lambda name: not name.startswith(("sp|", "tr|"))
    )
    records = draw(st.lists(st.tuples(names, st.text("ACDEFGHIKLMNPQRSTVWYX*-", max_size=200)), min_size=1))
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    width = draw(st.integers(1, 80))
    lines = []
    for name, sequence in records:
        description = draw(st.sampled_from(["", " some enzyme", "\tOS=Thermus"]))
        lines.append(f">{name}{description}")
        lines += [sequence[start : start + width] for start in range(0, len(sequence), width)]
        lines += [""] * draw(st.integers(0, 2))
    data = draw(st.sampled_from([b"", BOM])) + ending.join(lines).encode()
    if draw(st.booleans()):
        cut = draw(st.integers(0, len(data)))
        data = gzip.compress(data[:cut], 1) + gzip.compress(data[cut:], 1)
    return data, records


@given(fasta_files())
def test_fasta_reads_back_as_it_was_written(case):
    data, records = case
    assert pairs(read(data)) == records


# Tables


@pytest.mark.parametrize("mark", [",", "\t", ";"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("start", [b"", BOM])
def test_delimiter_line_endings_and_gzip_do_not_change_what_a_table_says(mark, ending, packed, start):
    rows = [["Name", "Sequence", "OGT"], ["a", "MKV", "37"], ["b", "ACD", "-2.5"], ["c", "WWW", ""]]
    text = ending.join(mark.join(row) for row in rows)
    assert read(packed(start + text.encode())) == [
        Record("a", "MKV", 37.0),
        Record("b", "ACD", -2.5),
        Record("c", "WWW", None),
    ]


@pytest.mark.parametrize(
    "name", ["sequence", "Sequence", "SEQ", "protein_sequence", "Protein Sequence", "aa_sequence", "mutated_sequence"]
)
def test_usual_names_of_a_sequence_column_are_recognised(name):
    assert pairs(read(f"ID,{name}\na,MKV\n")) == [("a", "MKV")]


@pytest.mark.parametrize("name", ["id", "Name", "accession", "uniprot_id", "Entry", "Protein ID", "protein"])
def test_usual_names_of_an_id_column_are_recognised(name):
    assert pairs(read(f"sequence,{name}\nMKV,a\n")) == [("a", "MKV")]


def test_the_more_specific_of_two_id_columns_names_the_record():
    assert pairs(read("name,accession,sequence\nlipase,P1,MKV\n")) == [("P1", "MKV")]


@pytest.mark.parametrize("name", ["growth_temperature", "Growth_Temperature_Celsius", "OGT"])
def test_usual_names_of_a_growth_temperature_column_are_recognised(name):
    assert read(f"id,sequence,{name}\na,MKV,60\n")[0].growth_temperature == 60.0


@pytest.mark.parametrize("name", ["temperature", "growth_temperature_std", "ogt_predicted", "topt"])
def test_a_column_that_only_resembles_a_growth_temperature_is_left_alone(name):
    assert read(f"id,sequence,{name}\na,MKV,60\n") == [Record("a", "MKV")]


def test_columns_can_be_named():
    text = "sequence,label,protein,hot\nAAA,b,MKV,50\n"
    record = read(text, column="protein", id_column="label", growth_temperature_column="hot")[0]
    assert record == Record("b", "MKV", 50.0)


def test_the_named_sequence_column_is_not_taken_for_the_id():
    assert pairs(read("protein,tm\nMKV,50\n", column="protein")) == [("row_1", "MKV")]


@pytest.mark.parametrize("option", ["column", "id_column", "growth_temperature_column"])
def test_a_named_column_that_is_absent_is_refused_with_those_that_are_there(option):
    with pytest.raises(DataError, match="no column 'nope'; the columns are 'id', 'sequence'"):
        read("id,sequence\na,MKV\n", **{option: "nope"})


def test_a_table_without_a_sequence_column_is_refused_with_its_columns_and_the_option():
    with pytest.raises(DataError, match=r"'a', 'b'.*--column"):
        read("a,b\nMKV,ACD\n")


def test_an_endless_first_line_is_not_shown_whole():
    with pytest.raises(DataError) as raised:
        read("M" * 10_000_001)
    assert len(str(raised.value)) < 500


def test_two_possible_sequence_columns_are_not_guessed_between():
    text = "id,sequence,mutated_sequence\na,MKV,MKW\n"
    with pytest.raises(DataError, match=r"'sequence', 'mutated_sequence' .*--column"):
        read(text)
    assert pairs(read(text, column="mutated_sequence")) == [("a", "MKW")]


def test_a_repeated_column_name_is_refused():
    with pytest.raises(DataError, match="'sequence' stands more than once"):
        read("sequence,id,sequence\nMKV,a,ACD\n")


def test_several_columns_without_a_name_are_no_repetition():
    assert pairs(read(",id,sequence,,\n0,a,MKV,,\n")) == [("a", "MKV")]


def test_rows_without_an_id_are_numbered():
    assert [record.id for record in read("sequence\nMKV\nACD\n")] == ["row_1", "row_2"]
    assert [record.id for record in read("id,sequence\na,MKV\n,ACD\n")] == ["a", "row_2"]


@pytest.mark.parametrize("blank", ["", " ", "nan", "NaN", "NA", "null", "None"])
def test_a_blank_growth_temperature_is_unknown(blank):
    assert read(f"id,sequence,ogt\na,MKV,{blank}\n") == [Record("a", "MKV", None)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("warm", "is not a number"),
        ("37 C", "is not a number"),
        ("310.15", "is outside -20 to 150 degC"),
        ("-21", "is outside -20 to 150 degC"),
        ("inf", "is outside -20 to 150 degC"),
    ],
)
def test_a_senseless_growth_temperature_is_a_problem_of_its_row_alone(value, reason):
    before, bad, after = read(f"id,sequence,ogt\na,MKV,37\nb,ACD,{value}\nc,WWW,80\n")
    assert bad == Record("b", "ACD", None, f"line 3, column 'ogt': '{value}' {reason}")
    assert [before, after] == [Record("a", "MKV", 37.0), Record("c", "WWW", 80.0)]


@pytest.mark.parametrize("value", [-20.0, 150.0])
def test_the_bounds_of_the_growth_temperature_are_accepted(value):
    assert read(f"id,sequence,ogt\na,MKV,{value}\n")[0].growth_temperature == value


@pytest.mark.parametrize(("row", "fields"), [("b", 1), ("b,ACD", 2), ("b,ACD,1,surplus", 4)])
def test_a_row_with_the_wrong_number_of_fields_is_a_problem_of_that_row_alone(row, fields):
    before, bad, after = read(f"id,sequence,tm\na,MKV,1\n\n{row}\nc,WWW,1\n")
    assert (bad.id, bad.problem) == ("b", f"line 4: {fields} fields, but the header has 3")
    assert pairs([before, after]) == [("a", "MKV"), ("c", "WWW")]


def test_empty_fields_beyond_the_header_are_no_problem():
    assert pairs(read("id,sequence\na,MKV,,\n")) == [("a", "MKV")]


def test_blanks_after_a_delimiter_do_not_hide_a_quote():
    assert pairs(read('id, sequence\n"a, b", "MKV"\n')) == [("a, b", "MKV")]


def test_a_blank_sequence_keeps_its_place():
    assert pairs(read("id,sequence\na,\nb,MKV\n")) == [("a", ""), ("b", "MKV")]


def test_line_breaks_inside_a_quoted_sequence_are_removed_and_lines_still_counted():
    first, bad = read('id,sequence,ogt\na,"MK\r\nV\nL",37\nb,ACD,hot\n')
    assert first == Record("a", "MKVL", 37.0)
    assert bad.problem.startswith("line 5,")


def test_a_quote_in_the_header_may_span_lines():
    assert pairs(read('id,"Tm\n(degC)",sequence\na,50,MKV\n')) == [("a", "MKV")]


def test_a_quote_that_is_never_closed_costs_its_own_line_only():
    good, bad, *rest = read('id,sequence\na,MKV\nb,"ACD\n' + "".join(f"c{n},WWW\n" for n in range(3)))
    assert pairs([good]) == [("a", "MKV")]
    assert bad == Record("row_2", "", problem="line 3: a quote is not closed")
    assert pairs(rest) == [("c0", "WWW"), ("c1", "WWW"), ("c2", "WWW")]


def test_a_stray_quote_costs_its_own_line_only():
    bad, good = read('id,sequence\n"a"b,MKV\nc,WWW\n')
    assert bad.problem.startswith("line 2: ")
    assert pairs([good]) == [("c", "WWW")]


def test_many_bad_rows_are_all_reported():
    records = read("id,sequence\n" + '"a"b,MKV\n' * 20_000)
    assert [record.id for record in records] == [f"row_{n}" for n in range(1, 20_001)]
    assert records[-1].problem.startswith("line 20001: ")


def test_a_field_longer_than_the_default_limit_of_csv_is_read():
    sequence = AMINO_ACIDS * 10_000
    assert pairs(read(f"id,sequence\na,{sequence}\n")) == [("a", sequence)]


@pytest.mark.parametrize("text", [";id;sequence\n0;a;MKV\n", "id,sequence,note\na,MKV,x\n>b,ACD,y\n"])
def test_a_table_is_not_taken_for_fasta(text):
    records = read(text)
    assert (records[0].id, records[0].sequence) == ("a", "MKV")
    assert len(records) == text.count("\n") - 1


def test_a_table_of_no_rows_holds_no_records():
    assert read("id,sequence\n") == []


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str]]]:
    names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(str.strip).filter(bool)
    records = draw(st.lists(st.tuples(names, st.text("ACDEFGHIKLMNPQRSTVWYX*-", min_size=1))))
    text = io.StringIO(newline="")
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    mark = draw(st.sampled_from(",;\t"))
    writer = csv.writer(text, delimiter=mark, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "sequence"), *records])
    data = draw(st.sampled_from([b"", BOM])) + text.getvalue().encode()
    return (gzip.compress(data, 1) if draw(st.booleans()) else data), records


@given(csv_files())
def test_a_table_reads_back_as_it_was_written(case):
    data, records = case
    assert pairs(read(data)) == records


# Parquet


def test_parquet_is_found_by_content_and_read_like_any_table(tmp_path):
    table = {"Name": ["a", "b", None], "tm": [1.0, 2.0, 3.0], "Sequence": ["MKV", "ACD", "W\nW"], "ogt": [37, None, 80]}
    assert list(read_records(parquet(table, tmp_path / "proteins.fasta"))) == [
        Record("a", "MKV", 37.0),
        Record("b", "ACD", None),
        Record("row_3", "WW", 80.0),
    ]


def test_a_bad_row_of_parquet_is_a_problem_of_that_row_alone(tmp_path):
    table = {"id": [1, 2, 3], "sequence": ["MKV", None, "WWW"], "ogt": [500.0, float("nan"), 80.0]}
    hot, empty, good = read_records(parquet(table, tmp_path / "table.parquet"))
    assert hot.problem == "row 1, column 'ogt': '500.0' is outside -20 to 150 degC"
    assert empty == Record("2", "", None, "row 2, column 'sequence': no sequence")
    assert good == Record("3", "WWW", 80.0)


def test_a_parquet_column_may_be_named_with_a_dot_or_hold_bytes(tmp_path):
    path = parquet({"protein.seq": [b"MKV"], "protein.seq.note": ["x"]}, tmp_path / "table.parquet")
    assert pairs(list(read_records(path, column="protein.seq"))) == [("row_1", "MKV")]


def test_parquet_of_several_batches_keeps_every_row_in_order(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"id": range(5_000), "sequence": ["MKV"] * 5_000}), path, row_group_size=1_700)
    assert [record.id for record in read_records(path)] == [str(n) for n in range(5_000)]


def test_parquet_columns_are_refused_like_those_of_any_table(tmp_path):
    path = parquet({"a": ["MKV"], "b": ["ACD"]}, tmp_path / "table.parquet")
    with pytest.raises(DataError, match=r"'a', 'b'.*--column"):
        list(read_records(path))


def test_damaged_parquet_is_refused(tmp_path):
    path = parquet({"id": ["a"], "sequence": ["MKV"]}, tmp_path / "table.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"table\.parquet: the Parquet data is damaged"):
        list(read_records(path))


def test_parquet_inside_gzip_is_refused(tmp_path):
    path = parquet({"id": ["a"], "sequence": ["MKV"]}, tmp_path / "table.parquet")
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match="unpack it first"):
        list(read_records(path))


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = parquet({"id": ["a"], "sequence": ["MKV"]}, tmp_path / "table.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"enzyme-stability\[parquet\]"):
        list(read_records(path))


# Where the bytes come from


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("text", [">a\nMKV\n>b\nACD\n", "id,sequence\na,MKV\nb,ACD\n"])
def test_standard_input_is_read_however_slowly_it_arrives(packed, text):
    with piped(io.BufferedReader(Dribble(packed(text.encode())))):
        assert pairs(list(read_records("-"))) == [("a", "MKV"), ("b", "ACD")]


def test_standard_input_stays_open():
    with piped(io.BytesIO(b">a\nMKV\n")):
        list(read_records("-"))
        assert not sys.stdin.buffer.closed


def test_parquet_on_standard_input_is_refused(tmp_path):
    path = parquet({"id": ["a"], "sequence": ["MKV"]}, tmp_path / "table.parquet")
    with piped(io.BytesIO(path.read_bytes())), pytest.raises(DataError, match=r"standard input.*must be a file"):
        list(read_records("-"))


def test_the_file_is_closed_after_the_last_record_and_when_reading_is_given_up(tmp_path):
    path = tmp_path / "proteins.fasta"
    path.write_text(">a\nMKV\n" * 10_000)
    whole, part = read_records(path), read_records(path)
    with warnings.catch_warnings(record=True, category=ResourceWarning, action="always") as left_open:
        next(part)
        assert str(path) in {file.path for file in psutil.Process().open_files()}
        part.close()
        assert len(list(whole)) == 10_000
        assert str(path) not in {file.path for file in psutil.Process().open_files()}
    assert not left_open


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (BOM + b" \r\n\n", "the file is empty"),
        (gzip.compress(b""), "the file is empty"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "is not text"),
        (gzip.compress(b"\x00\x01\x02"), "is not text"),
        (">a\nMKV\n".encode("utf-16"), "CSV in UTF-8"),
        (gzip.compress(b">a\nMKV\n")[:8], "the gzip data is truncated after 0 complete records"),
    ],
)
def test_a_file_without_records_is_refused_with_the_reason(data, reason):
    with pytest.raises(DataError, match=reason):
        read(data)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"nope\.fasta does not exist"):
        list(read_records(tmp_path / "nope.fasta"))
    with pytest.raises(DataError, match="is a folder"):
        list(read_records(tmp_path))
    with pytest.raises(DataError, match="File name too long"):
        list(read_records("x" * 5_000))


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions do not bind the administrator, as whom tests often run in a container."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_may_not_be_read_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "secret.fasta"
        path.write_text(">a\nMKV\n")
        path.chmod(0)
        with ordinary_user(), pytest.raises(DataError, match=r"secret\.fasta may not be read"):
            list(read_records(path))


def many(count: int) -> Iterator[tuple[str, str]]:
    return ((f"p{n}", AMINO_ACIDS[n % 20 :] + f"{AMINO_ACIDS[n * 7 % 20]}" * (n % 13)) for n in range(count))


@pytest.mark.parametrize("form", [">{}\n{}\n", "{},{}\n"])
def test_a_truncated_gzip_file_gives_the_records_before_the_cut_and_no_part_of_one(tmp_path, form):
    path = tmp_path / "cut.gz"
    head = "" if form.startswith(">") else "id,sequence\n"
    whole = gzip.compress((head + "".join(form.format(*pair) for pair in many(50_000))).encode())
    path.write_bytes(whole[: len(whole) // 2])
    records, message = read_until_error(path)
    assert len(records) > 10_000
    assert pairs(records) == list(islice(many(50_000), len(records)))
    assert f"cut.gz: the gzip data is truncated after {len(records)} complete records" in message


def test_a_damaged_gzip_file_gives_the_records_before_the_damage(tmp_path):
    path = tmp_path / "damaged.gz"
    data = bytearray(gzip.compress("".join(f">{name}\n{sequence}\n" for name, sequence in many(50_000)).encode()))
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    path.write_bytes(data)
    records, message = read_until_error(path)
    assert pairs(records[:10_000]) == list(many(10_000))
    assert "damaged.gz: the gzip data is damaged" in message


def test_rubbish_after_gzip_data_is_reported_after_the_records():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rubbish.gz"
        path.write_bytes(gzip.compress(b">a\nMKV\n>b\nACD\n") + b"rubbish")
        records, message = read_until_error(path)
    assert pairs(records) == [("a", "MKV")]
    assert "damaged" in message


def test_a_failing_disk_is_reported_after_the_records():
    class Failing(Dribble):
        def readinto(self, buffer: bytearray) -> int:
            if self.data.tell() > 20_000:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    records: list[Record] = []
    stopped = pytest.raises(DataError, match=r"standard input: reading stopped after .*: Input/output error")
    with piped(io.BufferedReader(Failing(b">a\nMKV\n" * 10_000))), stopped:
        records.extend(read_records("-"))
    assert pairs(records) == [("a", "MKV")] * len(records)
    assert records


headed = st.sampled_from(
    [b"", b">", b">a\nMKV\n", b"id,sequence\n", b'id;sequence\n"', b";", b"\x1f\x8b\x08\x00", b"PAR1"]
)


@settings(max_examples=300)
@given(headed, st.binary(max_size=300))
@example(b"PAR1", b"\x00" * 4 + b"PAR1")
def test_arbitrary_bytes_raise_nothing_but_the_errors_of_the_package(head, data):
    with suppress(EnzymeStabilityError):
        assert all(record.id for record in read(head + data))


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_gzip_raises_nothing_but_the_errors_of_the_package(data):
    packed = bytearray(gzip.compress(b">a\nMKV\n>b\nACDEFGH\n" * 20))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with suppress(EnzymeStabilityError):
        read(bytes(packed[: data.draw(st.integers(0, len(packed)))]))


# Resources


@pytest.mark.parametrize("form", [">{}\n{}\n", "{},{}\n"])
@pytest.mark.parametrize("opened", [open, gzip.open])
def test_memory_does_not_grow_with_the_number_of_records(tmp_path, form, opened):
    def peak(count: int) -> int:
        path = tmp_path / str(count)
        with opened(path, "wt") as file:
            file.write("" if form.startswith(">") else "id,sequence\n")
            file.writelines(form.format(*pair) for pair in many(count))
        tracemalloc.start()
        assert sum(1 for _ in read_records(path)) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(100_000) < peak(50_000) + 50_000  # either is more than a buffer of gzip


def test_memory_does_not_grow_with_the_rows_of_parquet(tmp_path):
    rows = 100_000
    names, sequences = zip(*((name, f"{AMINO_ACIDS * 5}{name}") for name, _ in many(rows)), strict=True)
    table = pa.table({"id": names, "sequence": sequences})
    path, size = tmp_path / "table.parquet", table.nbytes
    pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="none")
    script = (
        "import sys, pyarrow; from enzyme_stability.data.readers import read_records\n"
        "print(max(pyarrow.total_allocated_bytes() for _ in read_records(sys.argv[1])))\n"
    )
    # a process of its own: what Arrow holds for other tests would count
    most = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    assert 0 < int(most.stdout) < size / 2


def test_reading_text_imports_nothing_heavy(tmp_path):
    (tmp_path / "proteins.fasta").write_text(">a\nMKV\n")
    (tmp_path / "proteins.csv").write_text("id,sequence\na,MKV\n")
    script = (
        "import sys; from enzyme_stability.data.readers import read_records\n"
        "for name in ('proteins.fasta', 'proteins.csv'): assert len(list(read_records(name))) == 1\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'torch', 'pydantic'} & set(sys.modules); assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
