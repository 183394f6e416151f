"""Alignments of three formats in the frame of the wild type, and relatives found in a made-up database."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest

from enzyme_stability.errors import ConfigError, DataError, SequenceError
from enzyme_stability.sequence import AMINO_ACIDS
from enzyme_stability.variants.alignment import (
    Alignment,
    read_alignment,
    search_relatives,
    search_relatives_of,
)

WILD_TYPE = "MKVLWAAGIVTC"
SYMBOLS = AMINO_ACIDS + "-x"

A3M = """#12\t1
>wild_type
MKVLWAAGIVTC
>deletion
MKVL--AGIVTC
>insertion
MKVLWgghAAGIVSC
>unknown
MKXLWAAGIVTU
>short
MKVLWAAG
>digit
MKVLWAAGIV7C
>ss_pred
CCHHHHHHHEEC
"""


def texts(alignment: Alignment) -> list[str]:
    return ["".join(SYMBOLS[code] for code in row) for row in alignment.rows]


def written(folder: Path, content: str | bytes, name: str = "rows.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def mutated(sequence: str, identity: float, seed: int) -> str:
    random = np.random.default_rng(seed)
    residues = np.array(list(sequence))
    places = random.choice(len(residues), round(len(residues) * (1 - identity)), replace=False)
    residues[places] = random.choice(list(AMINO_ACIDS), len(places))
    return "".join(residues)


def test_insertions_of_an_a3m_are_dropped_and_bad_rows_named(tmp_path: Path) -> None:
    alignment = read_alignment(written(tmp_path, A3M), WILD_TYPE)
    assert alignment.rows.dtype == np.uint8
    assert texts(alignment) == ["MKVLWAAGIVTC", "MKVL--AGIVTC", "MKVLWAAGIVSC", "MKxLWAAGIVTC"]
    assert alignment.left_out == [
        "line_1: line 1: text before the first '>' header",
        "ss_pred: an annotation, no protein",
        "short: 8 columns, and the row of the wild type has 12",
        "digit: '7' in column 11 is not an amino acid",
    ]


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_line_ends_byte_order_marks_and_compression_make_no_difference(tmp_path: Path, change: object) -> None:
    plain = read_alignment(written(tmp_path, A3M), WILD_TYPE)
    text = change(A3M)  # type: ignore[operator]
    packed = read_alignment(written(tmp_path, gzip.compress(text.encode()), "other.a3m"), WILD_TYPE)
    assert texts(packed) == texts(plain)


def test_in_aligned_fasta_small_letters_are_residues_and_dots_are_gaps(tmp_path: Path) -> None:
    fasta = ">other\nmkvlw.GaagivtcC\n>own\nmkvlw--aagivtc-\n>third\n-KVLWWWAAGIV---\n"
    assert texts(read_alignment(written(tmp_path, fasta), WILD_TYPE)) == [WILD_TYPE, WILD_TYPE, "-KVLWAAGIV--"]


def test_aligned_fasta_all_in_small_letters_is_no_a3m(tmp_path: Path) -> None:
    fasta = f">own\n{WILD_TYPE.lower()}\n>other\n{'-' * 6 + WILD_TYPE.lower()[6:]}\n>short\nmkv\n"
    assert texts(read_alignment(written(tmp_path, fasta), WILD_TYPE)) == [WILD_TYPE, "------AGIVTC"]


def test_stockholm_is_recognised_by_content(tmp_path: Path) -> None:
    stockholm = (
        "# STOCKHOLM 1.0\n#=GF ID made up\n\n"
        "relative/1-9  MK-LGWA\nown           MKVL.WA\n\n"
        "relative/1-9  AGI--C\nown           AGIVTC\n#=GC SS_cons   HHHHHHHHHHHHH\n//\n"
    )
    expected = [WILD_TYPE, "MK-LWAAGI--C"]
    assert texts(read_alignment(written(tmp_path, stockholm), WILD_TYPE)) == expected
    packed = written(tmp_path, gzip.compress(stockholm.encode()), "other.a3m")
    assert texts(read_alignment(packed, WILD_TYPE)) == expected
    with pytest.raises(DataError, match="holds 2 alignments"):
        read_alignment(written(tmp_path, stockholm * 2), WILD_TYPE)


def test_a_wild_type_with_unknown_residues_and_insertions_is_found_in_any_row(tmp_path: Path) -> None:
    a3m = ">profile\nMKVAAGIVTC\n>own\nMKVlxAAGIVTC\n>third\nMKV-AGIaaVTC\n"
    alignment = read_alignment(written(tmp_path, a3m), "MKVLXAAGIVTC")
    assert texts(alignment) == ["MKVLxAAGIVTC", "MKV--AAGIVTC", "MKV---AGIVTC"]


def test_a_first_row_with_another_residue_stands_for_the_wild_type(tmp_path: Path) -> None:
    fasta = ">variant\nMKVLWA-AGIVTS\n>other\nMKV---WAGIVTC\n"
    assert texts(read_alignment(written(tmp_path, fasta), WILD_TYPE)) == [WILD_TYPE, "MKVLWAAGIVTS", "MKV---AGIVTC"]


def test_a_first_row_without_a_tag_or_a_loop_is_mapped_residue_by_residue(tmp_path: Path) -> None:
    wild_type = mutated("A" * 80, 0.0, 1)
    crystal = wild_type[6:40] + wild_type[44:]
    relative = mutated(crystal, 0.6, 2)
    alignment = read_alignment(written(tmp_path, f">crystal\n{crystal}\n>relative\n{relative}\n"), wild_type)
    expected = ["-" * 6 + row[:34] + "-" * 4 + row[34:] for row in (crystal, relative)]
    assert texts(alignment) == [wild_type, *expected]


def test_a_file_of_other_proteins_is_refused_with_the_closest_row(tmp_path: Path) -> None:
    wild_type = mutated("A" * 100, 0.0, 1)
    rows = [mutated("A" * 100, 0.0, 5), mutated(wild_type, 0.8, 3), mutated("A" * 100, 0.0, 4)]
    same = sum(a == b for a, b in zip(wild_type, rows[1], strict=True))
    path = written(tmp_path, "".join(f">row_{k}\n{row}\n" for k, row in enumerate(rows)))
    with pytest.raises(DataError, match=rf"{path}: no row is the wild type; in the closest, row_1, {same} of the 100 "):
        read_alignment(path, wild_type)


def test_a_short_piece_does_not_stand_for_the_wild_type(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is the wild type"):
        read_alignment(written(tmp_path, f">piece\n{WILD_TYPE[:5]}\n"), WILD_TYPE)


def test_sequences_that_are_not_aligned_are_refused(tmp_path: Path) -> None:
    fasta = f">own\n{WILD_TYPE}\n>a\n{WILD_TYPE}GG\n>b\n{WILD_TYPE}G\n>c\nMKV\n"
    with pytest.raises(DataError, match="is no alignment: 3 of 4 rows"):
        read_alignment(written(tmp_path, fasta), WILD_TYPE)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        bytes(range(256)) * 20,
        b">",
        b">a\n>b\n",
        b">a\n---------\n",
        b">a\n\xff\xfe\xfd\n",
        b"# STOCKHOLM 1.0\n",
        b"# STOCKHOLM 1.0\n//\n",
        b"# STOCKHOLM 1.0\nown MKVLWAAGIVTC\nother MKV",
        b"# STOCKHOLM 1.0\nown MKVLWAAGIVTC\n//\nother MKV\n",
        b"# STOCKHOLM 1.0\nown\n",
        b"# STOCKHOLM 1.0\n#=GF\x00\xff\n\xff\xff",
        gzip.compress(A3M.encode(), mtime=0)[:-20],
        gzip.compress(b"# STOCKHOLM 1.0\nown MKVLWAAGIVTC\n//\n", mtime=0)[:-4],
    ],
)
def test_what_is_no_alignment_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match=str(path)):
        read_alignment(path, WILD_TYPE)


def test_a_missing_file_and_an_unusable_wild_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_alignment(tmp_path / "missing.a3m", WILD_TYPE)
    with pytest.raises(SequenceError, match="'1' at position 3"):
        read_alignment(written(tmp_path, A3M), "MK1LWAAGIVTC")


FOUNDER = mutated("A" * 220, 0.0, 11)
STRANGER = mutated("A" * 200, 0.0, 12)
RELATIVES = [mutated(FOUNDER, identity, seed) for seed, identity in enumerate((0.9, 0.8, 0.7, 0.6), start=20)]
DELETION, INSERTION = FOUNDER[:100] + FOUNDER[103:], FOUNDER[:60] + "GPS" + FOUNDER[60:]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Relatives of the founder, one of them in a longer protein and twice, and a hundred strangers."""
    unrelated = [mutated("A" * 150, 0.0, seed) for seed in range(100, 200)]
    proteins = [*unrelated, *RELATIVES, "MGSSHHHHHHSS" + RELATIVES[0], DELETION, INSERTION]
    path = tmp_path_factory.mktemp("database") / "proteins"
    path.write_bytes(gzip.compress("".join(f">{k} x\r\n{row}\r\n" for k, row in enumerate(proteins)).encode()))
    return path


def test_relatives_are_found_and_stand_in_the_frame_of_the_wild_type(database: Path) -> None:
    found = texts(search_relatives(FOUNDER, database, threads=1))
    assert found[0] == FOUNDER
    assert len(found) == len(set(found)) == 6  # the insertion apart, one row of the database equals the wild type
    deletion = next(row for row in found if row.count("-") == 3)
    assert deletion.replace("-", "") == DELETION
    for relative in RELATIVES:
        row = max(found, key=lambda row: sum(a == b for a, b in zip(row, relative, strict=True)))
        assert row.strip("-") in relative  # alignments are local: the ends of a distant relative may be missing
        assert len(row.strip("-")) > 200


def test_proteins_that_are_searched_together_get_their_own_relatives_in_order(database: Path) -> None:
    unknown = FOUNDER[:50] + "X" + FOUNDER[51:]
    found = search_relatives_of([STRANGER, FOUNDER, unknown, STRANGER], database, threads=1)
    assert [len(alignment.rows) for alignment in found] == [1, 6, 7, 1]
    assert [texts(alignment)[0] for alignment in found] == [STRANGER, FOUNDER, unknown.replace("X", "x"), STRANGER]
    assert texts(found[1]) == texts(search_relatives(FOUNDER, database, threads=1))


def test_no_more_relatives_are_kept_than_asked_for(database: Path) -> None:
    assert texts(search_relatives(FOUNDER, database, threads=1, max_relatives=2))[0] == FOUNDER
    assert len(search_relatives(FOUNDER, database, threads=1, max_relatives=2).rows) == 3
    with pytest.raises(ConfigError, match="give 1 or more"):
        search_relatives(FOUNDER, database, max_relatives=0)


def test_a_search_by_seeds_finds_close_relatives_too(database: Path) -> None:
    found = search_relatives(FOUNDER, database, threads=1, iterations=1, sensitivity=1.0)
    assert RELATIVES[0] in texts(found)


def test_nothing_to_search_for_is_no_error_and_what_cannot_be_searched_is_named(database: Path, tmp_path: Path) -> None:
    assert search_relatives_of([], database) == []
    with pytest.raises(SequenceError, match="sequence 2: stop codon"):
        search_relatives_of([FOUNDER, "MKV*LWAAGIVTC"], database)
    with pytest.raises(DataError, match=r"missing\.fasta cannot be read: No such file"):
        search_relatives(FOUNDER, tmp_path / "missing.fasta")


def test_without_room_for_temporary_files_the_folder_is_named(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DataError, match=f"is {tmp_path}/missing full or read-only"):
        search_relatives(FOUNDER, database)


def test_an_enzyme_has_relatives_in_another_bacterium(data_root: Path) -> None:
    proteome = data_root / "proteomes" / "UP000008183_thermotoga_maritima.fasta.gz"
    if not proteome.is_file():
        pytest.skip(f"{proteome} is not there")
    reductase = (
        "MISLIAALAVDRVIGMENAMPWNLPADLAWFKRNTLNKPVIMGRHTWESIGRPLPGRKNIILSSQPGTDDRVTWVKSVDEAIAACGDVPEIMVIGGGRVYEQFLPKAQKLYLTH"
        "IDAEVEGDTHFPDYEPDDWESVFSEFHDADAQNSHSYCFEILERR"
    )
    found = texts(search_relatives(reductase, proteome, threads=1))
    assert len(found) > 1
    assert found[1][42] == "G"  # of the motif that binds the cofactor
