from __future__ import annotations

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enzyme_stability.errors import SequenceError
from enzyme_stability.sequence import AMINO_ACIDS, MINIMUM_LENGTH, CleanSequence, Record, clean_sequence

CHAIN = "MKVLAARRWQ"  # ten residues, the fewest accepted

policy_text = st.text(alphabet=AMINO_ACIDS + AMINO_ACIDS.lower() + "BJOUXZbx*-. \n", max_size=60)


def refusal(text: str) -> str:
    with pytest.raises(SequenceError) as caught:
        clean_sequence(text)
    return str(caught.value)


def test_standard_residues_pass_unchanged() -> None:
    assert clean_sequence(AMINO_ACIDS) == CleanSequence(AMINO_ACIDS, 20, AMINO_ACIDS)


@pytest.mark.parametrize(
    "text",
    [
        "mkvlaarrwq",
        "MkVlAaRrWq",
        "MKV LAA RRWQ",
        "MKVLA\nARRWQ\n",
        "MKVLA\r\nARRWQ\r\n",
        "\tMKVLAARRWQ  ",
        "MKVLA\u00a0ARRWQ",  # non-breaking blank, as copied from a web page
        "MKVLA\u2009ARRWQ",  # thin blank
        "MKVLA\u3000ARRWQ",  # ideographic blank
        "MKVLAARRWQ*",
        "mkvlaarrwq *\n",
    ],
)
def test_case_blanks_and_a_final_stop_leave_no_trace(text: str) -> None:
    assert clean_sequence(text) == CleanSequence(CHAIN, 10, CHAIN)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("MKVLA-ARRWQ", "1 gap removed"),
        ("MKVLA.ARRWQ", "1 gap removed"),
        ("--MKV.LAARRWQ-", "4 gaps removed"),
        ("MKVLAARRWQ*--", "2 gaps removed"),
        ("MKVLAARRWQ--*", "2 gaps removed"),
        ("..mkvlaarrwq..*..", "6 gaps removed"),
    ],
)
def test_gaps_of_an_alignment_are_removed_with_a_note(text: str, note: str) -> None:
    assert clean_sequence(text) == CleanSequence(CHAIN, 10, CHAIN, 0, (note,))


@pytest.mark.parametrize(
    ("letter", "counted_as", "note"), [("U", "C", "2 U counted as C"), ("O", "K", "2 O counted as K")]
)
def test_rare_residues_count_as_the_closest_standard_one(letter: str, counted_as: str, note: str) -> None:
    chain = f"{CHAIN}{counted_as}A{counted_as}"
    expected = CleanSequence(chain, 13, chain, 2, (note,))
    assert clean_sequence(f"{CHAIN}{letter}A{letter}") == expected
    assert clean_sequence(f"{CHAIN}{letter.lower()}A{letter}") == expected


@pytest.mark.parametrize("letter", "BJXZ")
def test_unknown_residues_are_left_out_but_count_in_the_length(letter: str) -> None:
    assert clean_sequence(f"MKV{letter}{letter.lower()}LAARRWQ") == CleanSequence(
        CHAIN, 12, "MKVXXLAARRWQ", 2, (f"2 {letter} left out",)
    )


def test_every_change_has_its_own_note() -> None:
    clean = clean_sequence("-MKVLAARRWQUOBJXZ*")
    assert clean.residues == f"{CHAIN}CK"
    assert (clean.length, clean.nonstandard) == (16, 6)
    assert clean.notes == (
        "1 gap removed",
        "1 U counted as C",
        "1 O counted as K",
        "1 B left out",
        "1 J left out",
        "1 X left out",
        "1 Z left out",
    )


@pytest.mark.parametrize("text", ["", " ", "\n\t", "*", "-", "--..--", "-*-", "\u00a0"])
def test_nothing_left_is_an_empty_sequence(text: str) -> None:
    assert refusal(text) == "the sequence is empty"


@pytest.mark.parametrize(
    ("text", "shown", "position"),
    [
        ("1MKVLAARRWQ", "1", 1),
        ("MKVLAARRWQ1", "1", 11),
        ("MKVL4ARRW5", "4", 5),  # the first of two
        ("MKV LAA\nRR?WQ", "?", 9),  # blanks are no residues
        ("MKßVLAARRWQ", "ß", 3),  # upper-casing would make two serines of it
        ("MKVLAARRWQ\u0131", "\u0131", 11),  # dotless i, upper-cased an isoleucine
        ("MK\u212aVLAARRWQ", "\u212a", 3),  # Kelvin sign, looks like K
        ("ＭKVLAARRWQ", "Ｍ", 1),  # noqa: RUF001 - full width
        ("MKVLААRRWQ", "А", 5),  # noqa: RUF001 - Cyrillic
        ("MKVLA\u200bARRWQ", "U+200B", 6),  # zero-width blank
        ("MKVLA\u202eARRWQ", "U+202E", 6),  # turns a terminal line round
        ("MKVLA\x00ARRWQ", "U+0000", 6),
        ("\ufeffMKVLAARRWQ", "U+FEFF", 1),
        ("MKVLA\ud800ARRWQ", "U+D800", 6),
        ("MKVLAARRWQ>", ">", 11),
        ("MKVLAARRWQ🧬", "🧬", 11),
    ],
)
def test_anything_else_is_refused_by_name_and_position(text: str, shown: str, position: int) -> None:
    assert refusal(text) == f"'{shown}' at position {position} is not an amino acid"


@pytest.mark.parametrize(("text", "position"), [("MKVLA*ARRWQ", 6), ("*MKVLAARRWQ", 1), ("MKVLAARRWQ**", 11)])
def test_a_stop_codon_inside_is_refused_with_its_position(text: str, position: int) -> None:
    message = refusal(text)
    assert f"stop codon '*' at position {position}" in message
    assert "give one protein a record" in message


def test_gaps_between_two_stop_codons_do_not_hide_one() -> None:
    assert "stop codon '*' at position 11" in refusal("MKVLAARRWQ*-*")


@pytest.mark.parametrize("length", [1, 2, 9])
def test_fewer_than_ten_residues_are_refused(length: int) -> None:
    assert refusal("A" * length) == f"a length of {length} is too short to fold; at least 10 residues are needed"


def test_gaps_do_not_help_a_short_peptide() -> None:
    assert refusal("MKVLA----ARRW").startswith("a length of 9 is too short")


def test_ten_residues_are_enough() -> None:
    assert clean_sequence("A" * 10).length == 10


def test_unknown_residues_do_not_help_a_short_peptide() -> None:
    assert refusal("MKVLAARRWX") == "only 9 of 10 residues are known; 10 are needed"
    assert refusal("X" * 500) == "only 0 of 500 residues are known; 10 are needed"


def test_a_chain_longer_than_titin_is_not_truncated() -> None:
    chain = (AMINO_ACIDS * 2000)[:40_000]
    assert clean_sequence(chain) == CleanSequence(chain, 40_000, chain)
    assert clean_sequence(f"{chain.lower()}X*") == CleanSequence(chain, 40_001, f"{chain}X", 1, ("1 X left out",))


@given(st.text())
def test_any_text_is_cleaned_or_refused_in_one_printable_line(text: str) -> None:
    try:
        said = clean_sequence(text).residues
    except SequenceError as error:
        said = str(error)
        assert said.isprintable()
        assert len(said) < 150
    else:
        assert set(said) <= set(AMINO_ACIDS)


@given(policy_text)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    try:
        once = clean_sequence(text)
    except SequenceError:
        return
    assert clean_sequence(once.residues) == CleanSequence(once.residues, len(once.residues), once.residues)


@given(policy_text)
def test_every_letter_is_accounted_for(text: str) -> None:
    try:
        clean = clean_sequence(text)
    except SequenceError:
        return
    letters = [letter.upper() for letter in text if letter in string.ascii_letters]
    assert clean.length == len(letters)
    assert clean.nonstandard == sum(letter in "BJOUXZ" for letter in letters)
    assert len(clean.residues) == clean.length - sum(letter in "BJXZ" for letter in letters) >= MINIMUM_LENGTH


@given(policy_text, st.integers(0, 60), st.sampled_from([" ", "\n", "\t", "\u00a0"]))
def test_blanks_and_case_never_change_the_outcome(text: str, place: int, blank: str) -> None:
    def outcome(of: str) -> CleanSequence | str:
        try:
            return clean_sequence(of)
        except SequenceError as error:
            return str(error)

    assert outcome(f"{text[:place]}{blank}{text[place:]}".lower()) == outcome(text)


def test_records_cannot_be_changed_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Record("a", CHAIN).sequence = ""  # type: ignore[misc]
