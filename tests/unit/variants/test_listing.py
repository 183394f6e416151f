"""Lists of variants from arguments and files, and what becomes of those that cannot be."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from enzyme_stability.errors import DataError, UnsupportedVariantError, VariantError
from enzyme_stability.variant import Variant
from enzyme_stability.variants.listing import checked, parsed, read_list


def read(path: Path, content: str) -> list[str]:
    path.write_text(content, encoding="utf-8")
    return list(read_list([str(path)]))


def test_arguments_are_passed_on_in_their_order() -> None:
    given = ["G45P", "WT", "A1V:C2D", "", "no variant", "p.Ala1Val", "p.(A1=)", "p.Ala1del"]
    assert list(read_list(given)) == given


def test_a_file_of_the_name_of_a_variant_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("WT").write_text("A1V\n")
    assert list(read_list(["WT"])) == ["A1V"]


def test_a_folder_of_the_name_of_a_variant_is_not_in_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("WT").mkdir()
    assert list(read_list(["WT"])) == ["WT"]


@pytest.mark.parametrize("column", ["variant", "Variants", " MUTATION ", '"mutations"', "mutant"])
def test_the_column_is_found_by_its_usual_names(tmp_path: Path, column: str) -> None:
    assert read(tmp_path / "table.csv", f"id,{column}\nq,A1V\nr,C2D\n") == ["A1V", "C2D"]


def test_a_header_with_a_comma_in_quotes_counts_as_one_field(tmp_path: Path) -> None:
    assert read(tmp_path / "table.csv", '"name, short",variant\nq,A1V\n') == ["A1V"]


@pytest.mark.parametrize("line", ["A1V,C2D", '"A1V,C2D"', "A1V:C2D", "A1V C2D"])
def test_several_substitutions_in_the_only_column_stay_together(tmp_path: Path, line: str) -> None:
    (text,) = read(tmp_path / "table.csv", f"variant\n{line}\n")
    assert Variant.parse(text) == Variant.parse("A1V:C2D")


def test_a_field_too_many_is_named_and_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3: 3 fields, but the header has 2"):
        read(tmp_path / "table.csv", "variant,note\nA1V,\nA1V,C2D,\n".replace(",\n", ",x\n"))
    assert read(tmp_path / "table.csv", "variant,note\nA1V,x,,\n") == ["A1V"]  # as a spreadsheet writes it


def test_blank_rows_are_passed_over_and_missing_variants_are_not(tmp_path: Path) -> None:
    assert read(tmp_path / "table.csv", "id,variant\n\nq,A1V\n,\nr\ns,\n") == ["A1V", "", ""]


def test_a_table_of_nothing_but_its_header_is_an_empty_list(tmp_path: Path) -> None:
    assert read(tmp_path / "table.csv", "variant\n") == []


def test_a_line_number_counts_the_lines_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 5"):
        read(tmp_path / "table.csv", '# made today\n\nvariant\nA1V\n"C2D\n')


def test_a_field_beyond_the_limit_is_named(tmp_path: Path) -> None:
    before = csv.field_size_limit(131_072)  # that of the library; reading sequences raises it
    try:
        with pytest.raises(DataError, match="line 2: the row cannot be read: field larger"):
            read(tmp_path / "table.csv", "variant\n" + "A" * 200_000)
        assert read(tmp_path / "list.txt", "A" * 200_000) == ["A" * 200_000]
    finally:
        csv.field_size_limit(before)


def test_text_is_a_variant_or_the_reason_why_not() -> None:
    assert parsed("A28V", 26) == Variant.parse("A28V", offset=26)
    assert isinstance(parsed("A1del", 0), UnsupportedVariantError)
    assert isinstance(parsed("1", 0), VariantError)


def test_a_variant_fits_or_the_reason_why_not() -> None:
    fitting, misfit = parsed("C28V", 26), parsed("A28V", 26)
    assert checked(fitting, "ACD") is fitting
    assert "C at position 28, not A" in str(checked(misfit, "ACD"))
    assert isinstance(checked(misfit, "ACD"), VariantError)
    unread = parsed("?", 0)
    assert checked(unread, "ACD") is unread
